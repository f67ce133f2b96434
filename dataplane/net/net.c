#include "dataplane/net/net.h"

#include <netinet/in.h>
#include <stdlib.h>
#include "dataplane/net/transport.h"
#include "spool/base/clock.h"

enum { REST_HIGH = 64 * 1024, TLS_SCRATCH = 16 * 1024, TLS_OUT_HIGH = 128 * 1024 };
#define LINGER_NS (2 * NS_PER_S)

static void flush(struct net_conn *c);

/* ---- lists ---- */

static void mark(struct net_conn *c)
{
	if (c->dirty)
		return;
	c->dirty = true;
	TAILQ_INSERT_TAIL(&c->net->dirty, c, dirty_entry);
}

static void emit(struct net_conn *c, struct net_event *ev)
{
	ev->conn = c;
	ev->user = c->user;
	c->net->cfg.handler(c->net->cfg.ctx, ev);
}

static void emit_type(struct net_conn *c, enum net_event_type type)
{
	struct net_event ev = { .type = type, .listener = c->listener };

	if (!c->closing && !c->dead)
		emit(c, &ev);
}

/* ---- connections ---- */

static struct net_conn *conn_new(struct net *n)
{
	struct net_conn *c;
	uint32_t slot;

	if (n->nconns >= n->cfg.conns_max)
		return NULL;
	c = calloc(1, sizeof(*c));
	if (!c)
		return NULL;
	slot = n->nfree ? n->free_slots[--n->nfree] : n->nslots++;
	n->slot[slot] = c;
	c->net = n;
	c->slot = slot;
	c->gen = ++n->next_gen & 0xffffff;
	c->fd = -1;
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
	if (c->lingering)
		TAILQ_REMOVE(&n->lingering, c, linger_entry);
	if (c->user)
		emit(c, &ev);
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

static void release(struct net_conn *c, bool reset)
{
	if (c->dead)
		return;
	c->dead = true;
	c->net->ops->release(c, reset);
	mark(c);
}

static void fail(struct net_conn *c, enum status st, const char *reason)
{
	if (c->dead)
		return;
	if (!c->closing) {
		c->status = st;
		c->reason = reason;
	}
	release(c, st == ST_DENIED);
}

/* ---- input ---- */

static bool rest_add(struct net_conn *c, struct span s)
{
	uint32_t need = c->rest_len + (uint32_t)s.n;

	if (c->rest_off + need > c->rest_cap) {
		uint32_t cap = need < 4096 ? 4096 : need * 2;
		char *bigger = malloc(cap);

		if (!bigger)
			return false;
		if (c->rest_len)
			memcpy(bigger, c->rest + c->rest_off, c->rest_len);
		free(c->rest);
		c->rest = bigger;
		c->rest_cap = cap;
		c->rest_off = 0;
	}
	memcpy(c->rest + c->rest_off + c->rest_len, s.p, s.n);
	c->rest_len = need;
	return true;
}

static void rest_take(struct net_conn *c, size_t n)
{
	c->rest_off += (uint32_t)n;
	c->rest_len -= (uint32_t)n;
	if (c->rest_len)
		return;
	free(c->rest);
	c->rest = NULL;
	c->rest_off = c->rest_cap = 0;
}

/* Offers plaintext to the handler; keeps what it leaves. */
static void deliver(struct net_conn *c, struct span s)
{
	bool had_tls = c->tls != NULL;
	struct net_event ev = { .type = NET_DATA, .data = s };

	if (c->closing || c->dead)
		return;
	if (!c->paused) {
		c->delivering = true;
		emit(c, &ev);
		c->delivering = false;
		CHECK(ev.used <= s.n);
		s = span_skip(s, ev.used);
	}
	if (!s.n || c->closing || c->dead)
		return;
	if (!had_tls && c->tls) {
		fail(c, ST_DENIED, "data was sent behind STARTTLS");
		return;
	}
	c->paused = true;
	if (!rest_add(c, s))
		fail(c, ST_NOMEM, "out of memory");
	else if (c->rest_len > REST_HIGH)
		c->net->ops->recv(c, false);
}

static void tell_eof(struct net_conn *c)
{
	if (!c->eof_seen || c->eof_told || c->rest_len)
		return;
	c->eof_told = true;
	emit_type(c, NET_EOF);
}

/* Goes on with the handshake and with what can be decrypted. */
static void tls_turn(struct net_conn *c)
{
	static char scratch[TLS_SCRATCH];
	size_t n;

	while (!c->dead && !c->closing && !(c->tls_on && c->paused)) {
		switch (tls_session_read(c->tls, scratch, sizeof(scratch), &n)) {
		case TLS_ON:
			c->tls_on = true;
			emit_type(c, NET_TLS_ON);
			continue;
		case TLS_DATA:
			deliver(c, span_of(scratch, n));
			continue;
		case TLS_MORE:
			break;
		case TLS_END:
			c->close_notified = true; /* not one byte more is read (P4) */
			c->eof_seen = true;
			tell_eof(c);
			break;
		case TLS_ERROR:
			c->status = c->tls_on ? ST_IO : ST_DENIED;
			c->reason = "TLS error";
			flush(c); /* the alert */
			c->closing = true;
			mark(c);
			break;
		}
		break;
	}
	if (tls_session_pending(c->tls))
		mark(c);
}

void up_data(struct net_conn *c, struct span data)
{
	if (c->closing || c->dead || c->close_notified)
		return;
	if (!c->tls) {
		deliver(c, data);
		return;
	}
	if (!tls_session_feed(c->tls, data))
		fail(c, ST_NOMEM, "out of memory");
	else
		tls_turn(c);
}

void up_eof(struct net_conn *c)
{
	c->eof_seen = true;
	if (c->closing) {
		if (c->shut)
			release(c, false);
		return;
	}
	if (c->tls && !c->close_notified) {
		fail(c, ST_CLOSED, "the peer ended TLS without close_notify");
		return;
	}
	tell_eof(c);
}

void net_pause(struct net_conn *c)
{
	c->paused = true;
}

void net_resume(struct net_conn *c)
{
	if (!c->paused && c->recv_wanted)
		return;
	c->resume_wanted = true;
	mark(c);
}

static void resume(struct net_conn *c)
{
	c->resume_wanted = false;
	c->paused = false;
	if (c->rest_len) {
		struct net_event ev = { .type = NET_DATA, .data = span_of(c->rest + c->rest_off, c->rest_len) };
		bool had_tls = c->tls != NULL;

		c->delivering = true;
		emit(c, &ev);
		c->delivering = false;
		rest_take(c, ev.used);
		if (!had_tls && c->tls && c->rest_len) {
			fail(c, ST_DENIED, "data was sent behind STARTTLS");
			return;
		}
	}
	if (c->closing || c->dead)
		return;
	if (c->rest_len) {
		c->paused = true;
		return;
	}
	if (c->paused)
		return;
	if (c->tls)
		tls_turn(c);
	if (!c->recv_wanted && !c->paused && !c->dead && !c->eof_seen)
		c->net->ops->recv(c, true);
	tell_eof(c);
}

/* ---- output ---- */

static bool out_add_bytes(char **buf, uint32_t *len, uint32_t *cap, struct span s)
{
	if (*len + s.n > *cap) {
		uint32_t bigger = *cap ? *cap : 512;
		char *p;

		while (bigger < *len + s.n)
			bigger *= 2;
		p = realloc(*buf, bigger);
		if (!p)
			return false;
		*buf = p;
		*cap = bigger;
	}
	memcpy(*buf + *len, s.p, s.n);
	*len += (uint32_t)s.n;
	return true;
}

enum status net_write(struct net_conn *c, struct span s)
{
	if (c->closing || c->dead)
		return ST_OK; /* nobody hears it; NET_CLOSED is on its way */
	mark(c);
	if (c->tls_on) {
		if (tls_session_pending(c->tls) > NET_WRITE_MAX)
			c->drain_wanted = true;
		else if (!tls_session_write(c->tls, s))
			fail(c, ST_IO, "TLS error");
		return c->drain_wanted ? ST_FULL : ST_OK;
	}
	if (c->out_len + s.n > NET_WRITE_MAX) {
		c->drain_wanted = true;
		return ST_FULL;
	}
	if (!out_add_bytes(&c->out, &c->out_len, &c->out_cap, s))
		fail(c, ST_NOMEM, "out of memory");
	return ST_OK;
}

void net_send(struct net_conn *c, const struct span *slices, unsigned n)
{
	CHECK(!c->sent_wanted && n <= NET_SLICES_MAX - 2);
	if (c->closing || c->dead)
		return;
	if (!c->slice)
		c->slice = malloc(NET_SLICES_MAX * sizeof(*c->slice));
	if (!c->slice) {
		fail(c, ST_NOMEM, "out of memory");
		return;
	}
	memcpy(c->slice, slices, n * sizeof(*slices));
	c->nslice = n;
	c->sent_wanted = true;
	mark(c);
}

/* Encrypts slices as far as the output's bound lets. */
static void encrypt_slices(struct net_conn *c)
{
	while (c->nslice && tls_session_pending(c->tls) < TLS_OUT_HIGH) {
		struct span piece = c->slice[0];

		if (piece.n > TLS_SCRATCH)
			piece.n = TLS_SCRATCH;
		if (!tls_session_write(c->tls, piece)) {
			fail(c, ST_IO, "TLS error");
			return;
		}
		c->slice[0] = span_skip(c->slice[0], piece.n);
		if (!c->slice[0].n)
			memmove(c->slice, c->slice + 1, --c->nslice * sizeof(*c->slice));
	}
}

/* Plaintext that was written before TLS, then what TLS has to say. */
static bool collect_tx(struct net_conn *c)
{
	c->tx_len = 0;
	if (c->out_len) {
		char *p = c->tx;
		uint32_t cap = c->tx_cap;

		c->tx = c->out;
		c->tx_len = c->out_len;
		c->tx_cap = c->out_cap;
		c->out = p;
		c->out_cap = cap;
		c->out_len = 0;
		return true;
	}
	if (c->tls) {
		size_t n = tls_session_pending(c->tls);

		if (n > c->tx_cap) {
			free(c->tx);
			c->tx = malloc(n);
			c->tx_cap = c->tx ? (uint32_t)n : 0;
		}
		if (c->tx)
			c->tx_len = (uint32_t)tls_session_take(c->tls, c->tx, n);
	}
	return c->tx_len > 0;
}

/* The end of an orderly close: everything is out. */
static void finish_close(struct net_conn *c)
{
	if (c->shut)
		return;
	if (c->tls_on && !c->close_notified) {
		c->close_notified = true;
		tls_session_close(c->tls);
		if (tls_session_pending(c->tls)) {
			flush(c);
			return;
		}
	}
	c->shut = true;
	if (c->eof_seen) {
		release(c, false);
		return;
	}
	c->net->ops->shutdown(c);
	c->lingering = true;
	c->linger_until_ns = clock_mono_ns() + LINGER_NS;
	TAILQ_INSERT_TAIL(&c->net->lingering, c, linger_entry);
	if (!c->recv_wanted)
		c->net->ops->recv(c, true); /* to see the peer's FIN */
}

static void flush(struct net_conn *c)
{
	struct span v[NET_SLICES_MAX];
	unsigned n = 0;

	if (c->sending || c->dead || !c->open)
		return;
	if (c->tls_on && c->nslice)
		encrypt_slices(c);
	if (collect_tx(c))
		v[n++] = span_of(c->tx, c->tx_len);
	if (!c->tls) {
		memcpy(v + n, c->slice ? c->slice : v, c->nslice * sizeof(*v));
		n += c->nslice;
		c->slices_sending = c->nslice;
		c->nslice = 0;
	}
	if (n) {
		c->sending = true;
		c->net->ops->send(c, v, n);
	} else if (c->closing) {
		finish_close(c);
	}
}

void up_sent(struct net_conn *c)
{
	c->sending = false;
	c->slices_sending = 0;
	if (c->tx_cap > 4096) { /* idle connections keep little */
		free(c->tx);
		c->tx = NULL;
		c->tx_cap = 0;
	}
	if (c->dead)
		return;
	if (c->sent_wanted && !c->nslice && !(c->tls && tls_session_pending(c->tls))) {
		c->sent_wanted = false;
		emit_type(c, NET_SENT);
	}
	if (c->drain_wanted && !c->dead) {
		c->drain_wanted = false;
		emit_type(c, NET_DRAINED);
	}
	mark(c);
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
	struct tls_context *t = c->net->listener_tls[c->listener];

	c->open = true;
	c->net->ops->recv(c, true);
	if (t)
		net_start_tls(c, t, SPAN_NONE);
	emit_type(c, NET_ACCEPTED);
}

void up_connected(struct net_conn *c)
{
	c->open = true;
	if (c->dead)
		return;
	c->net->ops->recv(c, true);
	emit_type(c, NET_CONNECTED);
	mark(c);
}

void up_gone(struct net_conn *c, enum status st, const char *reason)
{
	fail(c, st, reason);
}

void up_released(struct net_conn *c)
{
	c->released = true;
	mark(c);
}

void net_start_tls(struct net_conn *c, struct tls_context *t, struct span name)
{
	char host[256];
	struct out o = out_of(host, sizeof(host) - 1);

	out_add(&o, name);
	host[o.n] = '\0';
	if (c->rest_len && !c->delivering) {
		fail(c, ST_DENIED, "data was sent behind STARTTLS");
		return;
	}
	c->tls = tls_session_new(t, c->inbound, host);
	if (!c->tls) {
		fail(c, ST_NOMEM, "out of memory");
		return;
	}
	c->resume_wanted = true; /* the handshake begins at net_poll */
	mark(c);
}

const char *net_tls_text(const struct net_conn *c)
{
	return c->tls_on ? tls_session_text(c->tls) : NULL;
}

void net_close(struct net_conn *c)
{
	if (c->closing || c->dead)
		return;
	c->closing = true;
	c->status = ST_OK;
	c->reason = "closed by us";
	mark(c);
}

void net_abort(struct net_conn *c)
{
	if (c->dead)
		return;
	c->status = c->closing ? c->status : ST_OK;
	c->reason = "aborted by us";
	c->closing = true;
	release(c, true);
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
	CHECK(listener < sizeof(n->listener_tls) / sizeof(n->listener_tls[0]));
	n->listener_tls[listener] = l->tls;
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

void net_stop(struct net *n)
{
	if (n)
		n->ops->stop(n);
}

void net_accept_pause(struct net *n, bool pause)
{
	n->ops->accept_pause(n, pause);
}

static void poll_conn(struct net_conn *c)
{
	if (c->released) {
		conn_end(c);
		return;
	}
	if (c->dead)
		return;
	if (c->resume_wanted && !c->closing && c->open)
		resume(c);
	if (!c->dead)
		flush(c);
}

void net_poll(struct net *n)
{
	struct net_conn *c;
	uint64_t now;

	while ((c = TAILQ_FIRST(&n->dirty))) {
		TAILQ_REMOVE(&n->dirty, c, dirty_entry);
		c->dirty = false;
		poll_conn(c);
	}
	if (TAILQ_EMPTY(&n->lingering))
		return;
	now = clock_mono_ns();
	while ((c = TAILQ_FIRST(&n->lingering)) && c->linger_until_ns <= now) {
		TAILQ_REMOVE(&n->lingering, c, linger_entry);
		c->lingering = false;
		release(c, false);
	}
}

enum status net_new(struct uring *u, const struct net_config *cfg, struct net **ret)
{
	struct net *n = calloc(1, sizeof(*n));
	enum status st;

	if (!n)
		return ST_NOMEM;
	n->uring = u;
	n->cfg = *cfg;
	n->ops = cfg->transport == NET_DPDK ? &net_dpdk_ops : &net_uring_ops;
	TAILQ_INIT(&n->dirty);
	TAILQ_INIT(&n->lingering);
	n->slot = calloc(cfg->conns_max, sizeof(struct net_conn *));
	n->free_slots = calloc(cfg->conns_max, sizeof(*n->free_slots));
	st = !n->slot || !n->free_slots ? ST_NOMEM : n->ops->start(n);
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
