/* The network itself: time, chance, and what a link does to what is sent over it. */
#include <stdlib.h>
#include "dataplane/net/net_sim_internal.h"
#include "spool/base/clock.h"

enum { SEGMENT = 1460, WINDOW = 64 * 1024, FIRST_PORT = 40000 };
#define WALL_AT_0_NS (1700000000 * NS_PER_S)

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

static void set_time(struct sim *s, uint64_t ns)
{
	if (ns > s->now_ns)
		s->now_ns = ns;
	clock_fake(s->now_ns, WALL_AT_0_NS + s->now_ns);
}

static struct sim_event *event_new(enum sim_event_type type, struct sim_end *to, uint64_t at_ns, size_t n)
{
	struct sim *s = to->link->sim;
	struct sim_event *e = calloc(1, sizeof(*e) + n), *before;

	CHECK(e);
	e->type = type;
	e->to = to;
	e->at_ns = at_ns;
	e->n = n;
	TAILQ_FOREACH_REVERSE(before, &s->queue, sim_event_queue, entry)
		if (before->at_ns <= at_ns)
			break;
	if (before)
		TAILQ_INSERT_AFTER(&s->queue, before, e, entry);
	else
		TAILQ_INSERT_HEAD(&s->queue, e, entry);
	return e;
}

void sim_event_add(enum sim_event_type type, struct sim_end *to, uint64_t at_ns)
{
	(void)event_new(type, to, at_ns, 0);
}

struct sim_end *sim_peer(struct sim_end *e)
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

void sim_to_peer(struct sim_end *from, enum sim_event_type type)
{
	if (!from->silent)
		sim_event_add(type, sim_peer(from), arrival(from));
}

/* ---- output ---- */

/* The cut's byte has passed. */
static void cut(struct sim_end *e)
{
	struct sim_end *other = sim_peer(e);

	e->npending = e->next = 0;
	switch (e->link->cut.how) {
	case SIM_CUT_RESET:
		sim_to_peer(e, EV_RESET);
		sim_event_add(EV_RESET, e, e->last_ns);
		break;
	case SIM_CUT_EOF:
		sim_to_peer(e, EV_EOF);
		sim_event_add(EV_RESET, e, e->last_ns);
		break;
	case SIM_CUT_NOT:
	case SIM_CUT_SILENT:
		break;
	}
	e->silent = other->silent = true;
}

static bool is_cut_by(const struct sim_end *e)
{
	return e->link->cut.how != SIM_CUT_NOT && e->link->cut.by_client == (e == &e->link->end[0]);
}

static size_t least(size_t a, uint64_t b)
{
	return a < b ? a : (size_t)b;
}

size_t sim_room(const struct sim_end *e, size_t n)
{
	uint32_t window = e->link->sim->o.window ? e->link->sim->o.window : WINDOW;
	uint64_t room = window > e->under_way ? window - e->under_way : 0;

	return n > room && room < window / 2 ? 0 : least(n, room);
}

/* One segment of what is pending. False: nothing goes now. */
static bool send_segment(struct sim_end *e)
{
	struct sim *s = e->link->sim;
	struct span *v = &e->pending[e->next];
	size_t room = sim_room(e, v->n), n;

	if (v->n && !room)
		return false;
	n = least(1 + below(s, s->o.segment_max ? s->o.segment_max : SEGMENT), room);
	if (is_cut_by(e))
		n = least(n, e->link->cut.at - e->sent);
	if (n) {
		struct sim_event *ev = event_new(EV_DATA, sim_peer(e), arrival(e), n);

		memcpy(ev->data, v->p, n);
		e->under_way += n;
		e->sent += n;
		*v = span_skip(*v, n);
	}
	if (!v->n)
		e->next++;
	return true;
}

void sim_pump(struct sim_end *e)
{
	while (e->next < e->npending && !e->silent) {
		if (is_cut_by(e) && e->sent == e->link->cut.at) {
			cut(e);
			return;
		}
		if (!send_segment(e))
			return;
		if (is_cut_by(e) && e->sent == e->link->cut.at)
			cut(e);
	}
	if (e->npending && !e->silent) {
		e->npending = e->next = 0;
		if (e->state == END_CONN)
			sim_event_add(EV_SENT, e, e->link->sim->now_ns);
	}
}

/* ---- input ---- */

void sim_taken(struct sim_end *e, size_t n)
{
	struct sim_end *from = sim_peer(e);

	from->under_way -= n;
	sim_pump(from);
}

static void break_end(struct sim_end *e)
{
	e->npending = e->next = 0;
	e->silent = e->broken = true;
}

/* It is received: a net is told, and who is gone answers with a reset. */
static void receive(struct sim_end *e, struct sim_event *ev)
{
	if (ev->type == EV_RESET)
		break_end(e);
	if (e->state == END_CONN) {
		if (ev->type == EV_DATA)
			up_data(e->conn, span_of(ev->data, ev->n));
		else if (ev->type == EV_EOF)
			up_eof(e->conn);
		else
			up_gone(e->conn, ST_CLOSED, "connection reset by peer");
	} else if (e->state == END_GONE && ev->type == EV_DATA) {
		sim_to_peer(e, EV_RESET);
	}
	if (ev->type == EV_DATA)
		sim_taken(e, ev->n);
}

static bool holds(const struct sim_end *e, const struct sim_event *ev)
{
	switch (e->state) {
	case END_WAITING:
	case END_SOCKET:
		return true;
	case END_CONN:
		return ev->type != EV_RESET && (!e->recv_on || !STAILQ_EMPTY(&e->held));
	case END_NONE:
	case END_GONE:
		break;
	}
	return false;
}

/* It is there, but perhaps nobody looks at it yet. False: it was kept for later. */
static bool arrive(struct sim_end *e, struct sim_event *ev)
{
	if (!holds(e, ev)) {
		receive(e, ev);
		return true;
	}
	STAILQ_INSERT_TAIL(&e->held, ev, held);
	if (ev->type == EV_RESET)
		break_end(e);
	return false;
}

static void receive_held(struct sim_end *e)
{
	struct sim_event *ev;

	while ((ev = STAILQ_FIRST(&e->held)) && (e->recv_on || e->state == END_GONE)) {
		STAILQ_REMOVE_HEAD(&e->held, held);
		receive(e, ev);
		free(ev);
	}
}

void sim_end_leave(struct sim_end *e, bool reset)
{
	e->state = END_GONE;
	e->conn = NULL;
	e->npending = e->next = 0;
	if (reset)
		sim_to_peer(e, EV_RESET);
	else if (!e->fin_sent)
		sim_to_peer(e, EV_EOF);
	if (!STAILQ_EMPTY(&e->held))
		sim_event_add(EV_RECV, e, e->link->sim->now_ns);
}

/* ---- connecting ---- */

struct sim_link *sim_link_new(struct sim *s, const struct sockaddr *to, const struct sockaddr *source)
{
	struct sim_link *l = calloc(1, sizeof(*l));
	struct sim_end *e;

	if (!l)
		return NULL;
	l->sim = s;
	l->cut = s->cut;
	for (unsigned i = 0; i < 2; i++) {
		l->end[i].link = l;
		STAILQ_INIT(&l->end[i].held);
	}
	STAILQ_INSERT_TAIL(&s->links, l, entry);
	e = &l->end[0];
	net_unpack((const struct sockaddr_storage *)(const void *)to, l->end[1].ip, &l->end[1].port);
	memcpy(e->ip, "\0\0\0\0\0\0\0\0\0\0\xff\xff\x7f\0\0\1", 16);
	if (source)
		net_unpack((const struct sockaddr_storage *)(const void *)source, e->ip, &e->port);
	if (!e->port)
		e->port = s->next_port++;
	sim_to_peer(e, EV_ARRIVE);
	return l;
}

static void syn(struct sim_end *e)
{
	if (!sim_port_find(e->link->sim, e->port)) {
		sim_to_peer(e, EV_REFUSED);
		return;
	}
	e->state = END_WAITING;
	sim_to_peer(e, EV_CONNECTED);
	sim_net_accept(e);
}

static void connected(struct sim_end *e)
{
	if (e->state != END_CONN)
		return;
	memcpy(e->conn->local_ip, e->ip, 16);
	e->conn->local_port = e->port;
	up_connected(e->conn);
}

static void refused(struct sim_end *e)
{
	e->broken = true;
	if (e->state == END_CONN)
		up_gone(e->conn, ST_DENIED, "connection refused");
}

/* ---- what happens ---- */

static void happen(struct sim_event *ev)
{
	struct sim_end *e = ev->to;

	switch (ev->type) {
	case EV_ARRIVE:
		syn(e);
		break;
	case EV_CONNECTED:
		connected(e);
		break;
	case EV_REFUSED:
		refused(e);
		break;
	case EV_ACCEPT:
		sim_net_accept(e);
		break;
	case EV_SENT:
		if (e->state == END_CONN)
			up_sent(e->conn);
		break;
	case EV_RECV:
		receive_held(e);
		break;
	case EV_DATA:
	case EV_EOF:
	case EV_RESET:
		if (!arrive(e, ev))
			return;
		break;
	}
	free(ev);
}

static struct sim_net *first_to_wake(struct sim *s)
{
	struct sim_net *sn, *first = NULL;

	LIST_FOREACH(sn, &s->nets, entry)
		if (sn->wake_ns != UINT64_MAX && (!first || sn->wake_ns < first->wake_ns))
			first = sn;
	return first;
}

static bool step_until(struct sim *s, uint64_t end_ns)
{
	struct sim_event *ev = TAILQ_FIRST(&s->queue);
	struct sim_net *sn = first_to_wake(s);

	if (sn && sn->wake_ns <= end_ns && (!ev || sn->wake_ns <= ev->at_ns)) {
		set_time(s, sn->wake_ns);
		sn->wake_ns = UINT64_MAX;
		up_wake(sn->net);
		return true;
	}
	if (!ev || ev->at_ns > end_ns)
		return false;
	TAILQ_REMOVE(&s->queue, ev, entry);
	set_time(s, ev->at_ns);
	happen(ev);
	return true;
}

bool sim_step(struct sim *s)
{
	return step_until(s, UINT64_MAX);
}

bool sim_wait(struct sim *s, uint64_t timeout_ns)
{
	uint64_t end = s->now_ns + timeout_ns;

	if (step_until(s, end))
		return true;
	set_time(s, end);
	return false;
}

uint64_t sim_now(const struct sim *s)
{
	return s->now_ns;
}

/* ---- the network ---- */

struct sim *sim_new(const struct sim_options *o)
{
	struct sim *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->o = *o;
	s->random = o->seed;
	s->next_port = FIRST_PORT;
	TAILQ_INIT(&s->queue);
	STAILQ_INIT(&s->links);
	LIST_INIT(&s->nets);
	set_time(s, NS_PER_S);
	return s;
}

static void link_free(struct sim_link *l)
{
	struct sim_event *ev;

	for (unsigned i = 0; i < 2; i++)
		while ((ev = STAILQ_FIRST(&l->end[i].held))) {
			STAILQ_REMOVE_HEAD(&l->end[i].held, held);
			free(ev);
		}
	free(l);
}

void sim_free(struct sim *s)
{
	struct sim_event *ev;
	struct sim_link *l;

	if (!s)
		return;
	while ((ev = TAILQ_FIRST(&s->queue))) {
		TAILQ_REMOVE(&s->queue, ev, entry);
		free(ev);
	}
	while ((l = STAILQ_FIRST(&s->links))) {
		STAILQ_REMOVE_HEAD(&s->links, entry);
		link_free(l);
	}
	free(s);
	clock_fake_off();
}

void sim_set_options(struct sim *s, const struct sim_options *o)
{
	s->o = *o;
	s->random = o->seed;
}

void sim_set_cut(struct sim *s, const struct sim_cut *c)
{
	s->cut = *c;
}
