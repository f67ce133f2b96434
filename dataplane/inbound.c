#include "dataplane/inbound.h"

#include <stdlib.h>
#include "dataplane/session.h"
#include "spool/base/clock.h"
#include "spool/base/counters.h"
#include "spool/mail/header.h"

struct inbound {
	TAILQ_HEAD(, session) sessions;
	uint32_t nsessions;
	uint32_t nroom;        /* sessions that wait for room */
	struct map *per_client; /* client address -> number of its sessions */
};

static void session_run(struct session *s, struct net_event *ev);

enum status inbound_new(struct worker *w, struct inbound **ret)
{
	struct inbound *in = calloc(1, sizeof(*in));

	if (!in)
		return ST_NOMEM;
	TAILQ_INIT(&in->sessions);
	if (map_new(&in->per_client) != ST_OK) {
		free(in);
		return ST_NOMEM;
	}
	*ret = in;
	return ST_OK;
}

void inbound_free(struct inbound *in)
{
	if (!in)
		return;
	map_free(in->per_client);
	free(in);
}

/* ---- time ---- */

static void session_deadline(struct session *s)
{
	const struct snap_settings *set = s->cfg->set;
	uint64_t now = s->w->now_ns;

	switch (smtp_server_wait(&s->smtp)) {
	case SRV_WAIT_BODY:
		s->deadline_ns = now + set->timeout_body_ns;
		break;
	case SRV_WAIT_COMMAND:
		s->deadline_ns = now + set->timeout_command_ns;
		break;
	case SRV_WAIT_DECISION:
		s->deadline_ns = UINT64_MAX; /* it is us who are slow; the decision has its own limit */
		return;
	}
	if (s->deadline_ns > s->end_ns)
		s->deadline_ns = s->end_ns;
	if (!timer_armed(&s->timer))
		wheel_set(s->w->wheel, &s->timer, s->deadline_ns);
}

/* Gives what the session has to say to the connection. False when the client does not take it. */
static bool session_flush(struct session *s)
{
	struct span o = smtp_server_output(&s->smtp);

	if (!o.n)
		return true;
	if (net_write(s->conn, o) != ST_OK)
		return false;
	smtp_server_sent(&s->smtp, o.n);
	return true;
}

static void session_close(struct session *s)
{
	s->waits = WAITS_CLOSE;
	session_flush(s);
	net_close(s->conn);
}

void inbound_timer(struct worker *w, struct timer *t)
{
	struct session *s = container_of(t, struct session, timer);
	struct reply r;

	if (s->waits == WAITS_CLOSE)
		return;
	if (s->deadline_ns > w->now_ns) {
		uint64_t due = s->deadline_ns == UINT64_MAX ? w->now_ns + s->cfg->set->timeout_command_ns : s->deadline_ns;

		wheel_set(w->wheel, t, due);
		return;
	}
	counter_add(C_SESSIONS_TIMEOUT, 1);
	if (s->waits == WAITS_TLS || s->waits == WAITS_DRAIN) {
		net_abort(s->conn);
		return;
	}
	reply_set(&r, 421, "4.4.2", "%s: time limit reached, closing", snap_cstr(&s->cfg->snap, s->cfg->set->hostname));
	smtp_server_shutdown(&s->smtp, &r);
	session_close(s);
}

/* ---- begin and end ---- */

static uintptr_t client_count(struct inbound *in, const uint8_t ip[16], int change)
{
	struct span key = span_of(ip, 16);
	uintptr_t n = (uintptr_t)map_get(in->per_client, key) + (uintptr_t)change;

	if (n == 0)
		map_del(in->per_client, key);
	else if (map_set(in->per_client, key, (void *)n) != ST_OK)
		return 0; /* without memory the client is not counted: never refused for our own trouble */
	return n;
}

/* Reasons to refuse a connection before its first command; false when there is none. */
static bool session_refusal(struct session *s, struct reply *r)
{
	const struct snap_settings *set = s->cfg->set;
	const char *host = snap_cstr(&s->cfg->snap, set->hostname);

	if (s->w->fenced)
		reply_set(r, 421, "4.3.0", "%s: the spool of this node is out of order, try another one", host);
	else if (s->w->stopping)
		reply_set(r, 421, "4.3.2", "%s: shutting down, try another node", host);
	else if (s->w->inbound->nsessions > set->conns_max)
		reply_set(r, 421, "4.7.0", "%s: too many connections", host);
	else if (client_count(s->w->inbound, s->facts.client_ip, 0) > set->conns_per_client)
		reply_set(r, 421, "4.7.0", "%s: too many connections from your host", host);
	else
		return false;
	return true;
}

static void session_accept(struct worker *w, struct net_event *ev)
{
	struct session *s = calloc(1, sizeof(*s));
	struct reply r;

	if (!s) {
		net_abort(ev->conn);
		return;
	}
	s->owner.kind = OWNER_SESSION;
	s->w = w;
	s->cfg = config_hold(w->cfg);
	s->conn = ev->conn;
	s->timer.kind = TIMER_SESSION;
	s->end_ns = w->now_ns + s->cfg->set->session_max_ns;
	net_set_user(ev->conn, s);
	net_peer(ev->conn, s->facts.client_ip, &s->client_port);
	s->facts.snap = &s->cfg->snap;
	s->facts.net = snap_find_net(s->facts.snap, s->facts.client_ip);
	TAILQ_INSERT_TAIL(&w->inbound->sessions, s, entry);
	w->inbound->nsessions++;
	client_count(w->inbound, s->facts.client_ip, 1);
	counter_add(C_SESSIONS, 1);
	counter_add(C_SESSIONS_OPEN, 1);
	smtp_server_init(&s->smtp, &s->cfg->smtp);
	if (session_refusal(s, &r)) {
		counter_add(C_SESSIONS_REFUSED, 1);
		smtp_server_refuse(&s->smtp, &r);
		session_close(s);
		return;
	}
	session_flush(s);
	session_deadline(s);
}

static void body_end(struct session *s)
{
	if (s->body)
		body_drop(s->body);
	s->body = NULL;
}

static void room_wait(struct session *s, bool on)
{
	if (on == (s->waits == WAITS_ROOM))
		return;
	s->waits = on ? WAITS_ROOM : WAITS_NOTHING;
	s->w->inbound->nroom += on ? 1 : -1u;
}

static void session_free(struct session *s)
{
	struct worker *w = s->w;

	if (s->waits == WAITS_ROOM)
		room_wait(s, false);
	if (s->mail)
		s->mail->session = NULL; /* it goes on without us */
	if (s->rate_query)
		shared_cancel(s->rate_query);
	body_end(s);
	wheel_cancel(w->wheel, &s->timer);
	client_count(w->inbound, s->facts.client_ip, -1);
	TAILQ_REMOVE(&w->inbound->sessions, s, entry);
	w->inbound->nsessions--;
	counter_sub(C_SESSIONS_OPEN, 1);
	smtp_server_done(&s->smtp);
	config_release(s->cfg);
	free(s);
}

/* ---- decisions ---- */

static void answer(struct session *s, const struct reply *r)
{
	s->waits = WAITS_NOTHING;
	smtp_server_reply(&s->smtp, r);
}

static void refuse_log(struct session *s, const struct decision *d, struct span to)
{
	char ip[48], text[256];
	struct out o = out_of(ip, sizeof(ip)), t = out_of(text, sizeof(text));
	struct logline l;

	ip_write(s->facts.client_ip, &o);
	reply_line(&d->reply, &t);
	log_begin(&l, LOG_LVL_INFO, "rejected");
	log_str(&l, "rule", d->rule);
	log_span(&l, "client", out_span(&o));
	log_span(&l, "helo", s->smtp.helo);
	log_span(&l, "from", s->smtp.env.sender);
	if (to.n)
		log_span(&l, "to", to);
	log_span(&l, "reply", out_span(&t));
	log_emit(&l);
}

static void rate_over_log(struct worker *w, struct span client, double rate, double limit)
{
	struct logline l;

	log_begin(&l, LOG_LVL_INFO, "rate-over");
	log_str(&l, "rule", "A8");
	log_span(&l, "client", client);
	log_f(&l, "rate", "%.1f", rate);
	log_f(&l, "limit", "%.1f", limit);
	log_str(&l, "mode", w->cfg->set->rate_mode == MODE_DEFER ? "defer" : "monitor");
	log_emit(&l);
}

/* What the counter said about this session's client, and what follows from it for MAIL. */
static void rate_decide(struct session *s, const struct rate_answer *a)
{
	struct decision d = policy_rate(&s->facts, a->over, a->rate);
	struct reply r;
	char ip[48];
	struct out o = out_of(ip, sizeof(ip));

	if (a->over) {
		ip_write(s->facts.client_ip, &o);
		counter_add(C_RATE_OVER, 1);
		rate_over_log(s->w, out_span(&o), a->rate, policy_rate_limit(&s->facts));
	}
	if (d.accept) {
		reply_set(&r, 250, "2.1.0", "Ok");
		answer(s, &r);
		return;
	}
	counter_add(C_RATE_DEFERRED, 1);
	refuse_log(s, &d, SPAN_NONE);
	answer(s, &d.reply);
}

static void on_rate(void *ctx, const struct rate_answer *a)
{
	struct session *s = ctx;

	s->rate_query = NULL;
	rate_decide(s, a);
	session_run(s, NULL);
}

static void decide_mail(struct session *s)
{
	const struct snap_settings *set = s->cfg->set;
	double limit = policy_rate_limit(&s->facts);
	char key[64] = "client/";
	struct out o = { key, 7, sizeof(key), false };
	struct rate_answer a = { 0 };
	struct reply r;
	enum status st = store_room(s->w->store[0], s->smtp.size_declared);

	if (st != ST_OK) {
		counter_add(C_TEMPFAIL_SPOOL_FULL, st == ST_FULL);
		if (st == ST_FULL)
			reply_set(&r, 452, "4.3.1", "The spool is full, try again later");
		else
			reply_set(&r, 421, "4.3.0", "The spool of this node is out of order, try another one");
		answer(s, &r);
		return;
	}
	if (limit <= 0) {
		reply_set(&r, 250, "2.1.0", "Ok");
		answer(s, &r);
		return;
	}
	ip_write(s->facts.client_ip, &o);
	st = shared_rate(s->w->shared, out_span(&o), 1, limit, set->rate_period_ns, set->rate_mode == MODE_DEFER, on_rate, s, &a,
		&s->rate_query);
	if (st == ST_AGAIN)
		s->waits = WAITS_RATE;
	else
		rate_decide(s, &a);
}

static void decide_rcpt(struct session *s)
{
	struct decision d = policy_relay(&s->facts, &s->smtp.rcpt);
	struct reply r;

	if (d.accept) {
		reply_set(&r, 250, "2.1.5", "Ok");
		answer(s, &r);
		return;
	}
	counter_add(C_RCPT_REFUSED, 1);
	counter_add(C_RELAY_DENIED, 1);
	refuse_log(s, &d, s->smtp.rcpt.full);
	answer(s, &d.reply);
}

static void decide_data(struct session *s)
{
	struct reply r;

	if (body_new(s->w->store[0], s->smtp.size_declared, &s->body) == ST_OK)
		reply_set(&r, 354, NULL, "End data with <CR><LF>.<CR><LF>");
	else
		reply_set(&r, 452, "4.3.1", "Out of memory, try again later");
	answer(s, &r);
}

static void take_body(struct session *s)
{
	struct reply r;

	if (!s->body || body_append(s->body, s->smtp.body) == ST_OK)
		return;
	counter_add(C_TEMPFAIL_SPOOL_FULL, 1);
	body_end(s);
	reply_set(&r, 452, "4.3.1", "The spool is full, try again later");
	smtp_server_abort_body(&s->smtp, &r);
}

/* What the content itself says about its way: whether it needs 8BITMIME or SMTPUTF8, and RFC 8689 4.1's header field, which REQUIRETLS outdoes. */
static uint32_t content_flags(const struct session *s, struct span head)
{
	struct span rest = head, name, value;
	uint32_t flags = s->smtp.wire.high ? ENV_8BIT : 0;

	while (header_next(&rest, &name, &value))
		if (span_eq_nocase(name, SPAN("TLS-Required")) && span_eq_nocase(span_trim(span_cut(&value, '\r')), SPAN("No")) &&
			!(s->smtp.env.flags & ENV_REQUIRETLS))
			flags |= ENV_TLS_OPTIONAL;
	for (size_t i = 0; flags & ENV_8BIT && i < head.n - rest.n; i++)
		if ((unsigned char)head.p[i] >= 0x80)
			return flags | ENV_8BIT_HEADER;
	return flags;
}

/* The facts of the session that go into the envelope beside what MAIL and RCPT said. */
static void complete_envelope(struct session *s)
{
	struct envelope *e = &s->smtp.env;

	e->arrived_ns = clock_steady_ns();
	e->helo = s->smtp.helo;
	memcpy(e->client_ip, s->facts.client_ip, 16);
	e->client_port = s->client_port;
	if (s->smtp.tls)
		e->flags |= ENV_TLS;
	if (s->smtp.esmtp)
		e->flags |= ENV_ESMTP;
}

static void decide_message(struct session *s)
{
	struct decision d = policy_hops(&s->facts, header_count_received(body_head(s->body)));
	struct body *b = s->body;
	struct reply r;

	s->body = NULL;
	if (s->smtp.wire.dot_line)
		body_mark_dot_lines(b);
	if (!d.accept) {
		body_drop(b);
		counter_add(C_MSG_REFUSED, 1);
		refuse_log(s, &d, SPAN_NONE);
		answer(s, &d.reply);
		return;
	}
	complete_envelope(s);
	s->smtp.env.flags |= content_flags(s, body_head(b));
	if (mail_seal(s->w, &s->smtp.env, b, s, &s->mail, &r) != ST_OK) {
		s->mail = NULL;
		counter_add(C_MSG_REFUSED, 1);
		answer(s, &r);
		return;
	}
	s->mail->scan_down = policy_class(&s->facts) == CLASS_FRAGILE ? SCAN_DOWN_HOLD : (uint8_t)s->cfg->set->scan_down;
	s->waits = WAITS_ANSWER;
}

void inbound_answer(struct session *s, const struct reply *r)
{
	s->mail = NULL;
	answer(s, r);
	session_run(s, NULL);
}

/* ---- the session's turn ---- */

/* Does what the protocol engine asks for. False when the session cannot go on now. */
static bool session_act(struct session *s, enum server_action act)
{
	switch (act) {
	case SRV_MORE:
	case SRV_STEP:
		break;
	case SRV_MAIL:
		decide_mail(s);
		break;
	case SRV_RCPT:
		decide_rcpt(s);
		break;
	case SRV_DATA:
		decide_data(s);
		break;
	case SRV_BODY:
		take_body(s);
		break;
	case SRV_BODY_END:
		decide_message(s);
		break;
	case SRV_RESET:
		body_end(s);
		break;
	case SRV_STARTTLS:
		s->waits = WAITS_TLS;
		session_flush(s);
		net_start_tls(s->conn, s->cfg->tls_server, NULL);
		break;
	case SRV_CLOSE:
		counter_add(C_BARE_LINE_ENDS, s->smtp.bad_line_end);
		body_end(s);
		session_close(s);
		break;
	}
	return s->waits == WAITS_NOTHING;
}

/* Room for the next piece of input is made sure before the engine sees it, so that a body piece can always be taken. */
static bool session_has_room(struct session *s, size_t n)
{
	return !s->body || body_room(s->body, n) != ST_AGAIN; /* full shows at body_append */
}

/* Feeds the engine with what came (ev) or lets it go on after an answer (ev NULL). */
static void session_run(struct session *s, struct net_event *ev)
{
	struct span in = ev ? ev->data : SPAN_NONE;
	size_t used = 0, n;
	bool go = s->waits == WAITS_NOTHING;

	while (go) {
		enum server_action act;

		if (!session_has_room(s, in.n)) {
			room_wait(s, true);
			break;
		}
		act = smtp_server_step(&s->smtp, in, &n);
		used += n;
		in = span_skip(in, n);
		go = session_act(s, act);
		if (go && act == SRV_MORE) {
			if (!session_flush(s)) {
				s->waits = WAITS_DRAIN;
				go = false;
			}
			if (in.n == 0)
				break;
		}
	}
	if (s->waits != WAITS_CLOSE) {
		if (s->waits != WAITS_DRAIN && s->waits != WAITS_TLS && !session_flush(s))
			s->waits = s->waits == WAITS_NOTHING ? WAITS_DRAIN : s->waits;
		session_deadline(s);
	}
	if (ev)
		ev->used = s->waits == WAITS_CLOSE ? ev->data.n : used;
	else if (s->waits == WAITS_NOTHING && s->eof)
		session_close(s);
	else if (s->waits == WAITS_NOTHING)
		net_resume(s->conn);
}

static void on_tls(struct session *s)
{
	s->waits = WAITS_NOTHING;
	counter_add(C_TLS_IN, 1);
	smtp_server_tls_started(&s->smtp);
	session_run(s, NULL);
}

/* The client will send no more: what it has not finished is nothing (P2); what it waits for it still gets. */
static void on_eof(struct session *s)
{
	s->eof = true;
	if (s->waits == WAITS_ANSWER || s->waits == WAITS_RATE || s->waits == WAITS_CLOSE)
		return;
	body_end(s);
	session_close(s);
}

void inbound_net_event(struct worker *w, struct net_event *ev)
{
	struct session *s = ev->type == NET_ACCEPTED ? NULL : ev->user;

	switch (ev->type) {
	case NET_ACCEPTED:
		session_accept(w, ev);
		break;
	case NET_DATA:
		session_run(s, ev);
		break;
	case NET_TLS_ON:
		on_tls(s);
		break;
	case NET_DRAINED:
		if (s->waits == WAITS_DRAIN) {
			s->waits = WAITS_NOTHING;
			session_run(s, NULL);
		}
		break;
	case NET_EOF:
		on_eof(s);
		break;
	case NET_CLOSED:
		if (s->waits == WAITS_TLS)
			counter_add(C_TLS_IN_FAILED, 1);
		session_free(s);
		break;
	case NET_CONNECTED:
	case NET_SENT:
		break;
	}
}

/* ---- all sessions ---- */

void inbound_room(struct worker *w)
{
	struct session *s, *next;

	if (!w->inbound->nroom)
		return;
	for (s = TAILQ_FIRST(&w->inbound->sessions); s; s = next) {
		next = TAILQ_NEXT(s, entry);
		if (s->waits == WAITS_ROOM) {
			room_wait(s, false);
			net_resume(s->conn);
		}
	}
}

void inbound_shutdown(struct worker *w)
{
	struct session *s, *next;
	struct reply r;

	reply_set(&r, 421, "4.3.2", "%s: shutting down, try another node", snap_cstr(&w->cfg->snap, w->cfg->set->hostname));
	for (s = TAILQ_FIRST(&w->inbound->sessions); s; s = next) {
		next = TAILQ_NEXT(s, entry);
		if (s->waits == WAITS_NOTHING && smtp_server_wait(&s->smtp) == SRV_WAIT_COMMAND) {
			smtp_server_shutdown(&s->smtp, &r);
			session_close(s);
		}
	}
}

uint32_t inbound_sessions(const struct worker *w)
{
	return w->inbound->nsessions;
}
