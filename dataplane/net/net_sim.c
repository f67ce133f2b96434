/* One queue of events in order of time. A link has two ends; an end's output is cut into segments, each of which is an event at the other end. */
#include "dataplane/net/net_sim.h"

#include <netinet/in.h>
#include <stdlib.h>
#include "dataplane/net/transport.h"
#include "spool/base/clock.h"

enum { LISTENERS = 16, SEGMENT = 1460, WINDOW = 64 * 1024 };
enum event_type {
	EV_ARRIVE,    /* the SYN is at the listener */
	EV_CONNECTED, /* the answer to it is back */
	EV_REFUSED,
	EV_DATA,
	EV_EOF,
	EV_RESET,
	EV_SENT,      /* the output was taken: to its sender */
	EV_WAKE,      /* it receives again: what was held */
};

struct sim_end {
	struct link *link;
	struct net_conn *conn; /* NULL: not there yet, or released */
	bool there;            /* conn was set once */
	bool recv_on, fin_sent, silent;
	uint64_t last_ns;      /* when the last of its output arrives */
	uint64_t sent, under_way;
	struct span pending[NET_SLICES_MAX];
	unsigned npending, next;
	STAILQ_HEAD(, event) held; /* arrived while it did not receive */
};

struct link {
	SLIST_ENTRY(link) entry;
	struct sim *sim;
	struct sim_end end[2]; /* 0 connected */
	struct sim_cut cut;
	uint16_t port;
};

struct event {
	TAILQ_ENTRY(event) entry;
	STAILQ_ENTRY(event) held;
	enum event_type type;
	uint64_t at_ns;
	struct sim_end *to;
	size_t n;
	char data[];
};

struct listener {
	struct net *net;
	uint32_t index;
	uint16_t port;
	bool paused;
};

struct sim {
	struct sim_options o;
	struct sim_cut cut;
	uint64_t now_ns, random;
	TAILQ_HEAD(event_queue, event) queue;
	SLIST_HEAD(, link) links;
	struct listener listener[LISTENERS];
	unsigned nlisteners;
};

/* ---- chance and time ---- */

/* splitmix64 */
static uint64_t draw(struct sim *s)
{
	uint64_t z = s->random += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

static uint64_t below(struct sim *s, uint64_t n)
{
	return n ? draw(s) % n : 0;
}

static uint64_t trip_ns(struct sim *s)
{
	uint64_t t = s->o.delay_ns + below(s, s->o.jitter_ns + 1), again = 200 * NS_PER_MS;

	for (; below(s, 1000) < s->o.loss_permille && again < 60 * NS_PER_S; again *= 2)
		t += again;
	return t;
}

static struct event *event_new(enum event_type type, struct sim_end *to, uint64_t at_ns, size_t n)
{
	struct sim *s = to->link->sim;
	struct event *e = calloc(1, sizeof(*e) + n), *before;

	CHECK(e);
	e->type = type;
	e->to = to;
	e->at_ns = at_ns;
	e->n = n;
	TAILQ_FOREACH_REVERSE(before, &s->queue, event_queue, entry)
		if (before->at_ns <= at_ns)
			break;
	if (before)
		TAILQ_INSERT_AFTER(&s->queue, before, e, entry);
	else
		TAILQ_INSERT_HEAD(&s->queue, e, entry);
	return e;
}

static struct sim_end *peer(struct sim_end *e)
{
	return e == &e->link->end[0] ? &e->link->end[1] : &e->link->end[0];
}

/* When something that leaves now is at the other end: never before what left earlier. */
static uint64_t arrival(struct sim_end *from)
{
	uint64_t t = from->link->sim->now_ns + trip_ns(from->link->sim);

	from->last_ns = t > from->last_ns ? t : from->last_ns;
	return from->last_ns;
}

static void to_peer(struct sim_end *from, enum event_type type)
{
	if (!from->silent)
		event_new(type, peer(from), arrival(from), 0);
}

/* ---- output ---- */

/* The cut's byte has passed. */
static void cut(struct sim_end *e)
{
	struct sim_end *other = peer(e);

	e->npending = e->next = 0;
	switch (e->link->cut.how) {
	case SIM_CUT_NOT:
		break;
	case SIM_CUT_RESET:
		to_peer(e, EV_RESET);
		event_new(EV_RESET, e, e->last_ns, 0);
		break;
	case SIM_CUT_EOF:
		to_peer(e, EV_EOF);
		event_new(EV_RESET, e, e->last_ns, 0);
		break;
	case SIM_CUT_SILENT:
		break;
	}
	e->silent = other->silent = true;
}

static bool cut_by(const struct sim_end *e)
{
	return e->link->cut.how != SIM_CUT_NOT && e->link->cut.by_client == (e == &e->link->end[0]);
}

/* Sends what the window lets through. */
static void pump(struct sim_end *e)
{
	struct sim *s = e->link->sim;
	uint32_t window = s->o.window ? s->o.window : WINDOW, most = s->o.segment_max ? s->o.segment_max : SEGMENT;

	while (e->next < e->npending && !e->silent) {
		struct span *v = &e->pending[e->next];
		size_t n = 1 + below(s, most);
		struct event *ev;

		if (cut_by(e) && e->sent == e->link->cut.at) {
			cut(e);
			return;
		}
		if (e->under_way >= window)
			return;
		n = n < v->n ? n : v->n;
		n = n < window - e->under_way ? n : window - e->under_way;
		if (cut_by(e) && n > e->link->cut.at - e->sent)
			n = e->link->cut.at - e->sent;
		if (n) {
			ev = event_new(EV_DATA, peer(e), arrival(e), n);
			memcpy(ev->data, v->p, n);
			e->under_way += n;
			e->sent += n;
			*v = span_skip(*v, n);
		}
		if (!v->n)
			e->next++;
		if (cut_by(e) && e->sent == e->link->cut.at) {
			cut(e);
			return;
		}
	}
	if (e->npending && e->next == e->npending && !e->silent) {
		e->npending = e->next = 0;
		event_new(EV_SENT, e, s->now_ns, 0);
	}
}

/* ---- input ---- */

static void end_data(struct sim_end *e, struct event *ev)
{
	struct sim_end *from = peer(e);

	from->under_way -= ev->n;
	if (e->conn)
		up_data(e->conn, span_of(ev->data, ev->n));
	else if (e->there)
		to_peer(e, EV_RESET); /* nobody is there any more */
	pump(from);
}

/* False: it was kept for later. */
static bool end_event(struct sim_end *e, struct event *ev)
{
	if (e->conn && (!e->recv_on || !STAILQ_EMPTY(&e->held)) && ev->type != EV_WAKE) {
		STAILQ_INSERT_TAIL(&e->held, ev, held);
		return false;
	}
	if (ev->type == EV_DATA)
		end_data(e, ev);
	else if (ev->type == EV_EOF && e->conn)
		up_eof(e->conn);
	return true;
}

static void end_wake(struct sim_end *e)
{
	struct event *ev;

	while ((ev = STAILQ_FIRST(&e->held)) && (e->recv_on || !e->conn)) {
		STAILQ_REMOVE_HEAD(&e->held, held);
		if (ev->type == EV_DATA)
			end_data(e, ev);
		else if (e->conn)
			up_eof(e->conn);
		free(ev);
	}
}

static void end_reset(struct sim_end *e)
{
	e->npending = e->next = 0;
	e->silent = true;
	if (e->conn)
		up_gone(e->conn, ST_CLOSED, "connection reset by peer");
}

/* ---- connecting ---- */

static void set_address(uint8_t ip[16], unsigned last)
{
	static const uint8_t mapped[12] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff };

	memcpy(ip, mapped, 12);
	ip[12] = 10;
	ip[15] = (uint8_t)last;
}

static void link_arrive(struct link *l)
{
	struct sim *s = l->sim;
	struct listener *ls = NULL;
	struct net_conn *c;

	for (unsigned i = 0; i < s->nlisteners; i++)
		if (s->listener[i].port == l->port && !s->listener[i].paused)
			ls = &s->listener[i];
	c = ls ? up_accepted(ls->net, ls->index) : NULL;
	if (!c) {
		to_peer(&l->end[1], EV_REFUSED);
		return;
	}
	to_peer(&l->end[1], EV_CONNECTED);
	c->sim = &l->end[1];
	l->end[1].conn = c;
	l->end[1].there = true;
	set_address(c->peer_ip, 1);
	up_open(c);
}

static void happen(struct event *ev)
{
	struct sim_end *e = ev->to;

	switch (ev->type) {
	case EV_ARRIVE:
		link_arrive(e->link);
		break;
	case EV_CONNECTED:
		if (e->conn)
			up_connected(e->conn);
		break;
	case EV_REFUSED:
		if (e->conn)
			up_gone(e->conn, ST_DENIED, "connection refused");
		break;
	case EV_RESET:
		end_reset(e);
		break;
	case EV_SENT:
		if (e->conn)
			up_sent(e->conn);
		break;
	case EV_WAKE:
		end_wake(e);
		break;
	case EV_DATA:
	case EV_EOF:
		if (!end_event(e, ev))
			return;
		break;
	}
	free(ev);
}

bool sim_step(struct sim *s)
{
	struct event *ev = TAILQ_FIRST(&s->queue);

	if (!ev)
		return false;
	TAILQ_REMOVE(&s->queue, ev, entry);
	s->now_ns = ev->at_ns > s->now_ns ? ev->at_ns : s->now_ns;
	happen(ev);
	return true;
}

/* ---- operations ---- */

static enum status start(struct net *n)
{
	n->transport = n->cfg.sim;
	return n->transport ? ST_OK : trail(ST_INVALID, "a simulated network is needed");
}

static void stop(struct net *n)
{
	struct sim *s = n->transport;
	unsigned kept = 0;

	for (unsigned i = 0; i < s->nlisteners; i++)
		if (s->listener[i].net != n)
			s->listener[kept++] = s->listener[i];
	s->nlisteners = kept;
}

/* fd is a port of the simulated network. */
static enum status do_listen(struct net *n, int fd, uint32_t listener)
{
	struct sim *s = n->transport;

	if (s->nlisteners == LISTENERS)
		return trail(ST_FULL, "the simulated network has %d listeners", LISTENERS);
	s->listener[s->nlisteners++] = (struct listener){ .net = n, .index = listener, .port = (uint16_t)fd };
	return ST_OK;
}

static void do_accept_pause(struct net *n, bool pause)
{
	struct sim *s = n->transport;

	for (unsigned i = 0; i < s->nlisteners; i++)
		if (s->listener[i].net == n)
			s->listener[i].paused = pause;
}

static enum status do_connect(struct net_conn *c, const struct sockaddr *to, const struct sockaddr *source)
{
	struct sim *s = c->net->transport;
	struct link *l = calloc(1, sizeof(*l));
	uint8_t ip[16];

	if (!l)
		return ST_NOMEM;
	l->sim = s;
	l->cut = s->cut;
	net_unpack((const struct sockaddr_storage *)(const void *)to, ip, &l->port);
	for (unsigned i = 0; i < 2; i++) {
		l->end[i].link = l;
		STAILQ_INIT(&l->end[i].held);
	}
	SLIST_INSERT_HEAD(&s->links, l, entry);
	l->end[0].conn = c;
	l->end[0].there = true;
	c->sim = &l->end[0];
	set_address(c->local_ip, 1);
	to_peer(c->sim, EV_ARRIVE);
	return ST_OK;
}

static void do_recv(struct net_conn *c, bool on)
{
	c->recv_wanted = c->sim->recv_on = on;
	if (on && !STAILQ_EMPTY(&c->sim->held))
		event_new(EV_WAKE, c->sim, c->sim->link->sim->now_ns, 0);
}

static void do_send(struct net_conn *c, const struct span *v, unsigned n)
{
	CHECK(!c->sim->npending && n <= NET_SLICES_MAX);
	memcpy(c->sim->pending, v, n * sizeof(*v));
	c->sim->npending = n;
	c->sim->next = 0;
	pump(c->sim);
}

static void do_shutdown(struct net_conn *c)
{
	c->sim->fin_sent = true;
	to_peer(c->sim, EV_EOF);
}

static void do_release(struct net_conn *c, bool reset)
{
	struct sim_end *e = c->sim;

	e->conn = NULL;
	e->npending = e->next = 0;
	if (reset)
		to_peer(e, EV_RESET);
	else if (!e->fin_sent)
		to_peer(e, EV_EOF);
	if (!STAILQ_EMPTY(&e->held))
		event_new(EV_WAKE, e, e->link->sim->now_ns, 0);
	up_released(c);
}

static uint64_t do_now(const struct net *n)
{
	return sim_now(n->transport);
}

const struct transport_ops net_sim_ops = {
	.start = start,
	.stop = stop,
	.listen = do_listen,
	.accept_pause = do_accept_pause,
	.connect = do_connect,
	.recv = do_recv,
	.send = do_send,
	.shutdown = do_shutdown,
	.release = do_release,
	.now_ns = do_now,
};

/* ---- the network ---- */

struct sim *sim_new(const struct sim_options *o)
{
	struct sim *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->o = *o;
	s->random = o->seed;
	s->now_ns = NS_PER_S;
	TAILQ_INIT(&s->queue);
	SLIST_INIT(&s->links);
	return s;
}

void sim_free(struct sim *s)
{
	struct event *ev;
	struct link *l;

	if (!s)
		return;
	while ((ev = TAILQ_FIRST(&s->queue))) {
		TAILQ_REMOVE(&s->queue, ev, entry);
		free(ev);
	}
	while ((l = SLIST_FIRST(&s->links))) {
		SLIST_REMOVE_HEAD(&s->links, entry);
		for (unsigned i = 0; i < 2; i++)
			while ((ev = STAILQ_FIRST(&l->end[i].held))) {
				STAILQ_REMOVE_HEAD(&l->end[i].held, held);
				free(ev);
			}
		free(l);
	}
	free(s);
}

void sim_set_cut(struct sim *s, const struct sim_cut *c)
{
	s->cut = *c;
}

uint64_t sim_now(const struct sim *s)
{
	return s->now_ns;
}

void sim_sleep(struct sim *s, uint64_t ns)
{
	CHECK(TAILQ_EMPTY(&s->queue));
	s->now_ns += ns;
}
