/* TCP by lwIP over a DPDK port: the raw API, driven from the worker's own loop.
 *
 * lwIP's callbacks only note what happened (struct event); the upcalls are made from net_turn, when lwIP has returned. So the engine may do with a connection what it likes,
 * and no callback ever frees a pcb under lwIP's feet. */
#include <stdlib.h>
#include "dataplane/net/net_dpdk_flow.h"
#include "dataplane/net/net_dpdk_port.h"
#include "dataplane/net/net_dpdk_stack.h"
#include "dataplane/net/transport.h"
#include "lwip/priv/tcp_priv.h"
#include "lwip/tcp.h"
#include "spool/base/clock.h"

enum { BURSTS_A_TURN = 2, POLLS_BEFORE_SLEEP = 1000, LISTENERS = 64 };
#define SLEEP_NS (50 * NS_PER_US)
#define DEEP_SLEEP_NS (500 * NS_PER_US)
#define DEEP_AFTER_NS (2 * NS_PER_S)
#define LAST_WORDS_NS (NS_PER_S)

struct dpdk_conn {
	struct net_conn *conn;  /* NULL: net.c has let go of it */
	struct tcp_pcb *pcb;    /* NULL: lwIP has */
	/* what came while nobody wanted it; and how much lwIP waits for to be taken */
	char *held;
	uint32_t held_len, held_cap, untaken;
	bool eof;
	/* what TCP has not taken yet of a send */
	struct span *out;
	unsigned out_at, nout;
	TAILQ_ENTRY(dpdk_conn) entry;
};

enum event_type { EV_OPEN, EV_CONNECTED, EV_DATA, EV_EOF, EV_ROOM, EV_SENT, EV_WANTED, EV_GONE };

struct event {
	enum event_type type;
	err_t err;              /* EV_GONE */
	struct dpdk_conn *d;
	struct pbuf *p;         /* EV_DATA */
};

struct dpdk_net {
	struct net *n;
	struct tcp_pcb *listener[LISTENERS];
	struct event *event;
	uint32_t nevents, cap;
	TAILQ_HEAD(, dpdk_conn) dead; /* freed when no event can name them any more */
	uint32_t idle_polls;
	uint64_t busy_ns;
};

static struct dpdk_net dn;
static uint8_t conn_id; /* which of a pcb's extra arguments is ours */

/* ---- events ---- */

static void note(enum event_type type, struct dpdk_conn *d, struct pbuf *p, err_t err)
{
	if (dn.nevents == dn.cap) {
		uint32_t cap = dn.cap ? dn.cap * 2 : 256;
		struct event *bigger = realloc(dn.event, cap * sizeof(*bigger));

		CHECK(bigger);
		dn.event = bigger;
		dn.cap = cap;
	}
	dn.event[dn.nevents++] = (struct event){ .type = type, .err = err, .d = d, .p = p };
}

static err_t on_recv(void *arg, struct tcp_pcb *pcb, struct pbuf *p, err_t err)
{
	struct dpdk_conn *d = arg;

	(void)pcb;
	(void)err;
	if (p)
		d->untaken += p->tot_len;
	note(p ? EV_DATA : EV_EOF, d, p, ERR_OK);
	return ERR_OK;
}

static err_t on_sent(void *arg, struct tcp_pcb *pcb, uint16_t len)
{
	struct dpdk_conn *d = arg;

	(void)pcb;
	(void)len;
	if (d->out)
		note(EV_ROOM, d, NULL, ERR_OK);
	return ERR_OK;
}

/* Twice a second: what failed for want of memory is tried again. */
static err_t on_poll(void *arg, struct tcp_pcb *pcb)
{
	return on_sent(arg, pcb, 0);
}

static void on_error(void *arg, err_t err)
{
	struct dpdk_conn *d = arg;

	d->pcb = NULL;
	note(EV_GONE, d, NULL, err);
}

static err_t on_connected(void *arg, struct tcp_pcb *pcb, err_t err)
{
	(void)pcb;
	note(EV_CONNECTED, arg, NULL, err);
	return ERR_OK;
}

/* However a pcb ends, nothing here points to it afterwards. */
static void on_destroy(uint8_t id, void *data)
{
	struct dpdk_conn *d = data;

	(void)id;
	if (d)
		d->pcb = NULL;
}

static const struct tcp_ext_arg_callbacks ext_callbacks = { .destroy = on_destroy };

static struct dpdk_conn *attach(struct net_conn *c, struct tcp_pcb *pcb)
{
	struct dpdk_conn *d = calloc(1, sizeof(*d));

	if (!d)
		return NULL;
	d->conn = c;
	d->pcb = pcb;
	c->dpdk = d;
	tcp_ext_arg_set(pcb, conn_id, d);
	tcp_ext_arg_set_callbacks(pcb, conn_id, &ext_callbacks);
	tcp_arg(pcb, d);
	tcp_recv(pcb, on_recv);
	tcp_sent(pcb, on_sent);
	tcp_err(pcb, on_error);
	tcp_poll(pcb, on_poll, 2);
	tcp_nagle_disable(pcb);
	return d;
}

static err_t on_accept(void *arg, struct tcp_pcb *pcb, err_t err)
{
	uint32_t listener = (uint32_t)((struct tcp_pcb **)arg - dn.listener);
	struct net_conn *c;
	struct dpdk_conn *d;

	if (err != ERR_OK || !pcb)
		return ERR_VAL;
	flow_accepted(pcb);
	c = up_accepted(dn.n, listener);
	d = c ? attach(c, pcb) : NULL;
	if (!d) {
		if (c)
			up_gone(c, ST_NOMEM, "out of memory");
		tcp_abort(pcb);
		return ERR_ABRT;
	}
	stack_ip(&pcb->remote_ip, c->peer_ip);
	stack_ip(&pcb->local_ip, c->local_ip);
	c->peer_port = pcb->remote_port;
	c->local_port = pcb->local_port;
	note(EV_OPEN, d, NULL, ERR_OK);
	return ERR_OK;
}

/* ---- input ---- */

static void taken(struct dpdk_conn *d, uint32_t n)
{
	d->untaken -= n;
	for (; n && d->pcb; n -= n < 0xffff ? n : 0xffff)
		tcp_recved(d->pcb, (uint16_t)(n < 0xffff ? n : 0xffff));
}

static bool hold(struct dpdk_conn *d, const void *p, uint32_t n)
{
	if (d->held_len + n > d->held_cap) {
		uint32_t cap = (d->held_len + n) * 2;
		char *bigger = realloc(d->held, cap);

		if (!bigger)
			return false;
		d->held = bigger;
		d->held_cap = cap;
	}
	memcpy(d->held + d->held_len, p, n);
	d->held_len += n;
	return true;
}

/* The frames go back to the device at once, whether or not the engine wants the octets; the window stays shut until it does. */
static void give_data(struct dpdk_conn *d, struct pbuf *p)
{
	for (struct pbuf *q = p; q; q = q->next) {
		if (!d->conn)
			continue;
		if (d->conn->recv_wanted && !d->held_len) {
			up_data(d->conn, span_of(q->payload, q->len));
			taken(d, q->len);
		} else if (!hold(d, q->payload, q->len)) {
			up_gone(d->conn, ST_NOMEM, "out of memory");
		}
	}
	pbuf_free(p);
}

static void give_eof(struct dpdk_conn *d)
{
	if (!d->eof || d->held_len || !d->conn->recv_wanted)
		return;
	d->eof = false;
	up_eof(d->conn);
}

static void give_held(struct dpdk_conn *d)
{
	char *p = d->held;
	uint32_t n = d->held_len;

	if (d->conn->recv_wanted && n) {
		d->held = NULL;
		d->held_len = d->held_cap = 0;
		up_data(d->conn, span_of(p, n));
		taken(d, n);
		free(p);
	}
	if (d->conn)
		give_eof(d);
}

/* ---- output ---- */

/* Copies into TCP what there is room for. True: all of it. */
static bool send_more(struct dpdk_conn *d, const struct span *v, unsigned n, unsigned *at, size_t *skip)
{
	while (*at < n) {
		struct span s = span_skip(v[*at], *skip);
		size_t room = tcp_sndbuf(d->pcb), piece = s.n < room ? s.n : room;
		bool last = *at == n - 1 && piece == s.n;

		piece = piece < 0xffff ? piece : 0xffff;
		if (s.n && (!piece || tcp_write(d->pcb, s.p, (uint16_t)piece, (uint8_t)(TCP_WRITE_FLAG_COPY | (last ? 0 : TCP_WRITE_FLAG_MORE))) != ERR_OK))
			break;
		*skip += piece;
		if (*skip == v[*at].n) {
			++*at;
			*skip = 0;
		}
	}
	tcp_output(d->pcb);
	return *at == n;
}

static void more_room(struct dpdk_conn *d)
{
	size_t skip = 0;

	if (!d->out || !d->pcb)
		return;
	if (send_more(d, d->out, d->nout, &d->out_at, &skip)) {
		free(d->out);
		d->out = NULL;
		up_sent(d->conn);
	} else {
		d->out[d->out_at] = span_skip(d->out[d->out_at], skip);
	}
}

/* ---- the turn ---- */

static const char *reason_of(err_t err, bool was_open, enum status *ret_st)
{
	*ret_st = ST_CLOSED;
	switch (err) {
	case ERR_RST:
		if (was_open)
			return "connection reset by peer";
		*ret_st = ST_DENIED;
		return "connection refused";
	case ERR_ABRT:
		*ret_st = ST_TIMEOUT;
		return "connection timed out";
	case ERR_CLSD:
		return "connection closed by peer";
	case ERR_RTE:
		return "network unreachable";
	case ERR_USE:
		return "no local address or port available";
	default:
		*ret_st = ST_IO;
		return "network error";
	}
}

static void gone(struct dpdk_conn *d, err_t err)
{
	enum status st;
	const char *reason = reason_of(err, d->conn->open, &st);

	up_gone(d->conn, st, reason);
}

static void on_event(const struct event *ev)
{
	struct dpdk_conn *d = ev->d;

	if (ev->type == EV_DATA) {
		give_data(d, ev->p);
		return;
	}
	if (!d->conn)
		return;
	switch (ev->type) {
	case EV_OPEN:
		up_open(d->conn);
		break;
	case EV_CONNECTED:
		if (!d->pcb)
			break; /* reset in the same burst */
		stack_ip(&d->pcb->local_ip, d->conn->local_ip);
		d->conn->local_port = d->pcb->local_port;
		up_connected(d->conn);
		break;
	case EV_EOF:
		d->eof = true;
		give_eof(d);
		break;
	case EV_WANTED:
		give_held(d);
		break;
	case EV_ROOM:
		more_room(d);
		break;
	case EV_SENT:
		up_sent(d->conn);
		break;
	case EV_GONE:
		gone(d, ev->err);
		break;
	case EV_DATA:
		break;
	}
}

/* Events may make events: those are handled in the same turn. */
static bool run_events(void)
{
	bool any = dn.nevents > 0;
	struct dpdk_conn *d;

	for (uint32_t i = 0; i < dn.nevents; i++) {
		struct event ev = dn.event[i]; /* the array may move */

		on_event(&ev);
	}
	dn.nevents = 0;
	while ((d = TAILQ_FIRST(&dn.dead))) {
		TAILQ_REMOVE(&dn.dead, d, entry);
		free(d->held);
		free(d->out);
		free(d);
	}
	return any;
}

/* Polling is for when there is something to poll for: an idle worker sleeps between looks, and longer after some seconds of silence. */
static uint64_t sleep_ns(bool busy, uint64_t now)
{
	if (busy) {
		dn.idle_polls = 0;
		dn.busy_ns = now;
		return 0;
	}
	if (++dn.idle_polls < POLLS_BEFORE_SLEEP)
		return 0;
	return now - dn.busy_ns > DEEP_AFTER_NS ? DEEP_SLEEP_NS : SLEEP_NS;
}

static uint64_t turn(struct net *n, uint64_t wait_ns)
{
	uint64_t now = clock_mono_ns(), sleep;
	unsigned got = 0;
	bool busy;

	(void)n;
	port_flush();
	for (int i = 0; i < BURSTS_A_TURN; i++) {
		unsigned burst = stack_receive();

		got += burst;
		if (burst < PORT_BURST)
			break;
	}
	stack_timers(now);
	busy = run_events();
	port_flush();
	sleep = sleep_ns(busy || got, now);
	return sleep < wait_ns ? sleep : wait_ns;
}

/* ---- operations ---- */

static enum status start(struct net *n)
{
	enum status st;

	CHECK(!dn.n);
	dn.n = n;
	TAILQ_INIT(&dn.dead);
	n->transport = &dn;
	dn.busy_ns = clock_mono_ns();
	st = stack_start(n->cfg.dpdk, dn.busy_ns);
	conn_id = tcp_ext_arg_alloc_id();
	return st;
}

static void let_go(struct dpdk_conn *d, bool reset)
{
	struct tcp_pcb *pcb = d->pcb;

	taken(d, d->untaken); /* or lwIP ends with a RST, which may overtake our last reply */
	d->pcb = NULL;
	tcp_ext_arg_set(pcb, conn_id, NULL);
	flow_load_pcb(pcb);
	tcp_arg(pcb, NULL);
	tcp_recv(pcb, NULL);
	tcp_sent(pcb, NULL);
	tcp_err(pcb, NULL);
	tcp_poll(pcb, NULL, 2);
	if (reset)
		tcp_abort(pcb);
	else if (tcp_close(pcb) != ERR_OK)
		tcp_abort(pcb);
}

/* The engine is gone: connections are closed without telling it. */
static void let_all_go(struct net *n)
{
	for (uint32_t i = 0; i < n->nslots; i++) {
		struct dpdk_conn *d = n->slot[i] ? n->slot[i]->dpdk : NULL;

		if (!d)
			continue;
		n->slot[i]->dpdk = NULL;
		d->conn = NULL;
		if (d->pcb)
			let_go(d, false);
		TAILQ_INSERT_TAIL(&dn.dead, d, entry);
	}
}

/* What was written last is still on its way, or not acknowledged: there is no kernel that would see to it when the process has ended. */
static void last_words(void)
{
	uint64_t now = clock_mono_ns(), until = now + LAST_WORDS_NS;
	struct flow_stats f = { .active = 1 };

	stack_accept(false);
	while (now < until && f.active) {
		stack_receive();
		stack_timers(now = clock_mono_ns());
		port_flush();
		flow_stats(&f);
	}
	flow_load_all();
	while (tcp_active_pcbs)
		tcp_abort(tcp_active_pcbs);
	port_flush();
}

static void stop(struct net *n)
{
	let_all_go(n);
	run_events();
	last_words();
	port_close();
	free(dn.event);
	dn.event = NULL;
	dn.nevents = dn.cap = 0;
}

static enum status do_listen(struct net *n, const struct net_listen *l, uint32_t listener)
{
	static const uint8_t any4[16] = { [10] = 0xff, [11] = 0xff }, any6[16];
	const uint8_t *own = stack_own_ip(l->ip);
	bool v4 = stack_is_v4(l->ip), any = memcmp(l->ip, v4 ? any4 : any6, 16) == 0;
	struct tcp_pcb *pcb, *open;
	ip_addr_t ip;
	err_t err;

	(void)n;
	if (!own)
		return any ? ST_OK : trail(ST_INVALID, "listen: DPDK has no address of this family (dpdk.ipv4, dpdk.ipv6)");
	if (!any && memcmp(own, l->ip, 16) != 0)
		return trail(ST_INVALID, "listen: the address is not the one that DPDK has (dpdk.ipv4, dpdk.ipv6); write 0.0.0.0 or ::");
	stack_ip_of(l->ip, &ip);
	pcb = tcp_new_ip_type(v4 ? IPADDR_TYPE_V4 : IPADDR_TYPE_V6);
	if (!pcb)
		return ST_NOMEM;
	err = tcp_bind(pcb, &ip, l->port);
	open = err == ERR_OK ? tcp_listen_with_backlog_and_err(pcb, 255, &err) : NULL;
	if (!open) {
		tcp_abort(pcb);
		return trail(ST_IO, "listen: port %u: lwIP says %d", l->port, err);
	}
	dn.listener[listener] = open;
	tcp_arg(open, &dn.listener[listener]);
	tcp_accept(open, on_accept);
	flow_count_half_open(open);
	stack_listening(l->port);
	return ST_OK;
}

static void do_accept_pause(struct net *n, bool pause)
{
	(void)n;
	stack_accept(!pause);
}

static err_t connect_pcb(struct dpdk_conn *d, const uint8_t to[16], uint16_t port, const uint8_t from[16])
{
	ip_addr_t ip;

	stack_ip_of(from, &d->pcb->local_ip);
	d->pcb->local_port = flow_new_port(to, port);
	if (!d->pcb->local_port)
		return ERR_USE;
	stack_ip_of(to, &ip);
	return tcp_connect(d->pcb, &ip, port, on_connected);
}

/* A destination that cannot be reached is an event like a refused one, so that the engine tries the next. */
static enum status do_connect(struct net_conn *c, const struct sockaddr *to, const struct sockaddr *source)
{
	const uint8_t *from = stack_own_ip(c->peer_ip);
	uint8_t bound[16];
	uint16_t ignored;
	struct tcp_pcb *pcb = tcp_new_ip_type(stack_is_v4(c->peer_ip) ? IPADDR_TYPE_V4 : IPADDR_TYPE_V6);
	struct dpdk_conn *d = pcb ? attach(c, pcb) : NULL;
	err_t err = ERR_RTE;

	(void)to; /* net_connect has unpacked it into peer_ip */
	if (!d) {
		if (pcb)
			tcp_abort(pcb);
		return ST_NOMEM;
	}
	if (source)
		net_unpack((const struct sockaddr_storage *)(const void *)source, bound, &ignored);
	if (from && (!source || memcmp(bound, from, 16) == 0))
		err = connect_pcb(d, c->peer_ip, c->peer_port, from);
	if (err != ERR_OK) {
		tcp_err(pcb, NULL);
		pcb->local_port = 0; /* it is in no list */
		tcp_abort(pcb);
		on_error(d, err);
	}
	return ST_OK;
}

static void do_recv(struct net_conn *c, bool on)
{
	c->recv_wanted = on;
	if (on && c->dpdk && (c->dpdk->held_len || c->dpdk->eof))
		note(EV_WANTED, c->dpdk, NULL, ERR_OK);
}

static void do_send(struct net_conn *c, const struct span *v, unsigned n)
{
	struct dpdk_conn *d = c->dpdk;
	unsigned at = 0;
	size_t skip = 0;

	CHECK(!d->out && n <= NET_SLICES_MAX);
	if (!d->pcb)
		return; /* EV_GONE is on its way */
	if (send_more(d, v, n, &at, &skip)) {
		note(EV_SENT, d, NULL, ERR_OK);
		return;
	}
	d->out = malloc((n - at) * sizeof(*d->out));
	CHECK(d->out);
	memcpy(d->out, v + at, (n - at) * sizeof(*d->out));
	d->out[0] = span_skip(d->out[0], skip);
	d->out_at = 0;
	d->nout = n - at;
}

static void do_shutdown(struct net_conn *c)
{
	struct dpdk_conn *d = c->dpdk;

	if (!d->pcb)
		return;
	flow_load_pcb(d->pcb);
	(void)tcp_shutdown(d->pcb, 0, 1); /* without memory for the FIN lwIP tries again itself; in any other state there is nothing to end */
}

static void do_release(struct net_conn *c, bool reset)
{
	struct dpdk_conn *d = c->dpdk;

	if (d) {
		if (d->pcb)
			let_go(d, reset);
		d->conn = NULL;
		c->dpdk = NULL;
		TAILQ_INSERT_TAIL(&dn.dead, d, entry);
	}
	up_released(c);
}

const struct transport_ops net_dpdk_ops = {
	.start = start,
	.stop = stop,
	.turn = turn,
	.listen = do_listen,
	.accept_pause = do_accept_pause,
	.connect = do_connect,
	.recv = do_recv,
	.send = do_send,
	.shutdown = do_shutdown,
	.release = do_release,
};

enum status net_dpdk_open(const struct snap_dpdk *cfg)
{
	return port_open(cfg);
}

const char *net_dpdk_missing(void)
{
	return NULL;
}
