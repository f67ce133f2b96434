#include "dataplane/net/net.h"

#include <netinet/in.h>
#include <stdlib.h>
#include "dataplane/net/transport.h"
#include "spool/base/clock.h"

#define CLOSE_NS (30 * NS_PER_S)
#define LINGER_NS (2 * NS_PER_S)

/* ---- for input.c and output.c ---- */

void conn_mark(struct net_conn *c)
{
	if (c->dirty)
		return;
	c->dirty = true;
	TAILQ_INSERT_TAIL(&c->net->dirty, c, dirty_entry);
}

void conn_emit(struct net_conn *c, struct net_event *ev)
{
	ev->conn = c;
	ev->user = c->user;
	c->net->cfg.handler(c->net->cfg.ctx, ev);
}

void conn_tell(struct net_conn *c, enum net_event_type type)
{
	struct net_event ev = { .type = type, .listener = c->listener };

	if (!c->closing && !c->dead)
		conn_emit(c, &ev);
}

static void wait_no_more(struct net_conn *c)
{
	if (c->waiting)
		TAILQ_REMOVE(&c->waiting->list, c, waiting_entry);
	c->waiting = NULL;
}

void conn_wait(struct net_conn *c, struct conn_waiting *in)
{
	wait_no_more(c);
	c->waiting = in;
	c->due_ns = clock_mono_ns() + in->wait_ns;
	TAILQ_INSERT_TAIL(&in->list, c, waiting_entry);
	conn_mark(c); /* net_poll asks to be woken */
}

void conn_close(struct net_conn *c, enum status st, const char *reason)
{
	if (c->dead)
		return;
	conn_mark(c);
	if (c->closing)
		return;
	c->closing = true;
	c->status = st;
	c->reason = reason;
	conn_wait(c, &c->net->closing);
}

void conn_release(struct net_conn *c, bool reset)
{
	if (c->dead)
		return;
	c->dead = true;
	c->net->ops->release(c, reset);
	conn_mark(c);
}

void conn_fail(struct net_conn *c, enum status st, const char *reason)
{
	if (c->dead)
		return;
	if (!c->closing) {
		c->status = st;
		c->reason = reason;
	}
	conn_release(c, false); /* a peer that was refused something sees an end, not a reset */
}

/* ---- connections ---- */

static struct net_conn *conn_new(struct net *n)
{
	struct net_conn *c;
	uint32_t slot;

	if (n->nconns >= n->cfg.conns_max)
		return NULL;
	c = calloc(1, sizeof(*c) + n->ops->conn_bytes);
	if (!c)
		return NULL;
	slot = n->nfree ? n->free_slots[--n->nfree] : n->nslots++;
	n->slot[slot] = c;
	c->net = n;
	c->slot = slot;
	c->gen = ++n->next_gen & 0xffffff;
	c->reason = "closed";
	n->nconns++;
	return c;
}

/* Nothing of it is under way any more: the last event, then it is gone. */
static void conn_end(struct net_conn *c)
{
	struct net *n = c->net;
	struct net_event ev = { .type = NET_CLOSED, .listener = c->listener, .status = c->status, .reason = c->reason };

	if (c->dirty)
		TAILQ_REMOVE(&n->dirty, c, dirty_entry);
	wait_no_more(c);
	if (c->user)
		conn_emit(c, &ev);
	n->slot[c->slot] = NULL;
	n->free_slots[n->nfree++] = c->slot;
	n->nconns--;
	tls_session_free(c->tls);
	free(c->rest);
	free(c->out);
	free(c->tx);
	free(c->slice);
	free(c);
}

/* ---- begin and end ---- */

struct net_conn *up_accepted(struct net *n, uint32_t listener)
{
	struct net_conn *c = n->freeing ? NULL : conn_new(n);

	if (!c)
		return NULL;
	c->inbound = true;
	c->listener = listener;
	return c;
}

void up_open(struct net_conn *c)
{
	c->open = true;
	input_read(c, true);
	conn_tell(c, NET_ACCEPTED);
}

void up_connected(struct net_conn *c)
{
	c->open = true;
	if (c->dead)
		return;
	input_read(c, true);
	conn_tell(c, NET_CONNECTED);
	conn_mark(c);
}

void up_gone(struct net_conn *c, enum status st, const char *reason)
{
	conn_fail(c, st, reason);
}

void up_released(struct net_conn *c)
{
	c->released = true;
	conn_mark(c);
}

void net_close(struct net_conn *c)
{
	conn_close(c, ST_OK, "closed by us");
}

void net_abort(struct net_conn *c)
{
	if (c->dead)
		return;
	c->status = c->closing ? c->status : ST_OK;
	c->reason = "aborted by us";
	c->closing = true;
	conn_release(c, true);
}

enum status net_connect(struct net *n, const struct sockaddr *to, const struct sockaddr *source, void *user, struct net_conn **ret)
{
	struct net_conn *c = conn_new(n);
	enum status st;

	if (!c)
		return trail(ST_FULL, "%u connections are open already", n->nconns);
	c->user = user;
	net_unpack((const struct sockaddr_storage *)(const void *)to, c->peer_ip, &c->peer_port);
	st = n->ops->connect(c, to, source);
	if (st != ST_OK) {
		c->user = NULL; /* no event: the call has failed */
		conn_end(c);
		return st;
	}
	*ret = c;
	return ST_OK;
}

enum status net_listen(struct net *n, const struct net_listen *l, uint32_t listener)
{
	return n->ops->listen(n, l, listener);
}

uint64_t net_turn(struct net *n, uint64_t wait_ns)
{
	return n->ops->turn ? n->ops->turn(n, wait_ns) : wait_ns;
}

const char *net_tick(struct net *n)
{
	return n->ops->tick ? n->ops->tick(n) : NULL;
}

void net_accept_pause(struct net *n, bool pause)
{
	n->ops->accept_pause(n, pause);
}

/* ---- the loop ---- */

/* Its time is over: the peer did not take what it was told, or never ended its side. */
static void time_out(struct net_conn *c)
{
	if (!c->shut && c->status == ST_OK) {
		c->status = ST_TIMEOUT;
		c->reason = "the peer did not take what was sent";
	}
	wait_no_more(c);
	conn_release(c, !c->shut);
}

static void expire(struct conn_waiting *w, uint64_t now_ns)
{
	struct net_conn *c;

	while ((c = TAILQ_FIRST(&w->list)) && c->due_ns <= now_ns)
		time_out(c);
}

void up_wake(struct net *n)
{
	uint64_t now = clock_mono_ns();

	n->wake_ns = UINT64_MAX;
	expire(&n->closing, now);
	expire(&n->lingering, now);
}

static uint64_t due_ns(const struct conn_waiting *w)
{
	const struct net_conn *c = TAILQ_FIRST(&w->list);

	return c ? c->due_ns : UINT64_MAX;
}

static void ask_wake(struct net *n)
{
	uint64_t a = due_ns(&n->closing), b = due_ns(&n->lingering), due = a < b ? a : b;

	if (due >= n->wake_ns)
		return; /* being woken too early only leads back to here */
	n->wake_ns = due;
	n->ops->wake(n, due);
}

static void poll_conn(struct net_conn *c)
{
	if (c->released) {
		conn_end(c);
		return;
	}
	if (c->dead)
		return;
	if (c->resume_wanted && c->open && (!c->closing || output_waits_for_tls(c)))
		input_resume(c);
	output_flush(c);
}

void net_poll(struct net *n)
{
	struct net_conn *c;

	while ((c = TAILQ_FIRST(&n->dirty))) {
		TAILQ_REMOVE(&n->dirty, c, dirty_entry);
		c->dirty = false;
		poll_conn(c);
	}
	ask_wake(n);
}

/* ---- all of it ---- */

static void waiting_init(struct conn_waiting *w, uint64_t ns, uint64_t usual_ns)
{
	TAILQ_INIT(&w->list);
	w->wait_ns = ns ? ns : usual_ns;
}

static const struct transport_ops *ops_of(enum net_transport t)
{
	switch (t) {
	case NET_URING:
		return &net_uring_ops;
	case NET_DPDK:
		return &net_dpdk_ops;
	case NET_SIM:
		return &net_sim_ops;
	}
	return NULL;
}

enum status net_new(struct uring *u, const struct net_config *cfg, struct net **ret)
{
	struct net *n = calloc(1, sizeof(*n));
	enum status st;

	if (!n)
		return ST_NOMEM;
	n->uring = u;
	n->cfg = *cfg;
	n->ops = ops_of(cfg->transport);
	TAILQ_INIT(&n->dirty);
	waiting_init(&n->closing, cfg->close_ns, CLOSE_NS);
	waiting_init(&n->lingering, cfg->linger_ns, LINGER_NS);
	n->wake_ns = UINT64_MAX;
	n->slot = calloc(cfg->conns_max, sizeof(struct net_conn *));
	n->free_slots = calloc(cfg->conns_max, sizeof(*n->free_slots));
	st = !n->slot || !n->free_slots ? ST_NOMEM : !n->ops ? trail(ST_UNSUPPORTED, "this build has no such transport") : n->ops->start(n);
	if (st != ST_OK) {
		free(n->slot);
		free(n->free_slots);
		free(n);
		return st;
	}
	*ret = n;
	return ST_OK;
}

void net_free(struct net *n)
{
	if (!n)
		return;
	n->freeing = true;
	for (uint32_t i = 0; i < n->nslots; i++)
		if (n->slot[i])
			net_abort(n->slot[i]);
	while (n->nconns) {
		net_poll(n);
		if (n->nconns && uring_wait(n->uring, net_turn(n, 10 * NS_PER_MS)) != ST_OK)
			break;
	}
	n->ops->stop(n);
	free(n->slot);
	free(n->free_slots);
	free(n);
}

static void nobody(void *ctx, struct net_event *ev)
{
	(void)ctx;
	(void)ev;
}

void net_stop(struct net *n)
{
	if (!n)
		return;
	n->freeing = true;
	n->cfg.handler = nobody;
	n->ops->stop(n);
}

uint32_t net_conns(const struct net *n)
{
	return n->nconns;
}

void net_set_user(struct net_conn *c, void *user)
{
	c->user = user;
}

void *net_user(const struct net_conn *c)
{
	return c->user;
}

void net_peer(const struct net_conn *c, uint8_t ret_ip[16], uint16_t *ret_port)
{
	memcpy(ret_ip, c->peer_ip, 16);
	*ret_port = c->peer_port;
}

void net_local(const struct net_conn *c, uint8_t ret_ip[16], uint16_t *ret_port)
{
	memcpy(ret_ip, c->local_ip, 16);
	*ret_port = c->local_port;
}

void net_unpack(const struct sockaddr_storage *ss, uint8_t ret_ip[16], uint16_t *ret_port)
{
	memset(ret_ip, 0, 16);
	*ret_port = 0;
	if (ss->ss_family == AF_INET) {
		const struct sockaddr_in *a = (const struct sockaddr_in *)(const void *)ss;

		ret_ip[10] = ret_ip[11] = 0xff;
		memcpy(ret_ip + 12, &a->sin_addr, 4);
		*ret_port = ntohs(a->sin_port);
	} else if (ss->ss_family == AF_INET6) {
		const struct sockaddr_in6 *a = (const struct sockaddr_in6 *)(const void *)ss;

		memcpy(ret_ip, &a->sin6_addr, 16);
		*ret_port = ntohs(a->sin6_port);
	}
}
