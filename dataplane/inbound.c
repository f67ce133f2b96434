#include "dataplane/inbound.h"

#include <stdlib.h>
#include "dataplane/admit.h"
#include "dataplane/auth.h"
#include "dataplane/dictionary.h"
#include "dataplane/handshakes.h"
#include "dataplane/recipient.h"
#include "dataplane/session.h"
#include "dataplane/terms.h"
#include "spool/base/clock.h"
#include "spool/base/counters.h"
#include "spool/mail/header.h"

#define HANDSHAKE_NS (10 * NS_PER_S) /* P23; and what a balancer has to say first */
#define ROOM_WAIT_NS (20 * NS_PER_S)

static void session_run(struct session *s, struct net_event *ev);

enum status inbound_new(struct worker *w, struct inbound **ret)
{
	struct inbound *in = calloc(1, sizeof(*in));

	if (!in)
		return ST_NOMEM;
	TAILQ_INIT(&in->sessions);
	if (map_new(&in->per_client) != ST_OK || map_new(&in->per_network) != ST_OK) {
		inbound_free(in);
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
	map_free(in->per_network);
	free(in);
}

/* ---- time ---- */

static void session_arm(struct session *s, uint64_t due_ns)
{
	s->timer_ns = due_ns;
	wheel_set(s->w->wheel, &s->timer, due_ns);
}

static void deadline_set(struct session *s, uint64_t after_ns)
{
	uint64_t at = s->w->now_ns + after_ns;

	s->body_bytes = 0;
	s->deadline_ns = at < s->end_ns ? at : s->end_ns;
	if (!timer_armed(&s->timer) || s->deadline_ns < s->timer_ns)
		session_arm(s, s->deadline_ns);
}

static uint64_t command_time(const struct session *s)
{
	if (s->waits == WAITS_TLS || s->waits == WAITS_PROXY)
		return HANDSHAKE_NS;
	return s->waits == WAITS_BANNER ? s->banner_delay_ns : s->cfg->set->timeout_command_ns;
}

/* A limit begins with what it is for, and single bytes do not move it (P16): a command has timeouts.command from the end of the one before to its own, and a message may
 * only go on beyond timeouts.data when so much of it came meanwhile as limits.data_rate asks. done: a command came to its end. bytes: that came. */
static void session_deadline(struct session *s, bool done, size_t bytes)
{
	const struct snap_settings *set = s->cfg->set;
	enum server_wait wait = smtp_server_wait(&s->smtp), before = s->wait;

	s->wait = (uint8_t)wait;
	s->body_bytes += bytes;
	switch (wait) {
	case SRV_WAIT_BODY:
		if (before != SRV_WAIT_BODY || (bytes && (double)s->body_bytes >= (double)set->data_rate * ((double)set->timeout_body_ns / 1e9)))
			deadline_set(s, set->timeout_body_ns);
		break;
	case SRV_WAIT_COMMAND:
		if (before != SRV_WAIT_COMMAND || done)
			deadline_set(s, command_time(s));
		break;
	case SRV_WAIT_DECISION:
		s->deadline_ns = UINT64_MAX; /* it is us who are slow; the decision has its own limit */
		break;
	}
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

void inbound_close(struct session *s)
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
	if (s->waits == WAITS_ROOM && w->now_ns < s->end_ns) /* it is us who are slow */
		s->deadline_ns = w->now_ns + s->cfg->set->timeout_body_ns;
	if (s->deadline_ns > w->now_ns) {
		session_arm(s, s->deadline_ns == UINT64_MAX ? w->now_ns + s->cfg->set->timeout_command_ns : s->deadline_ns);
		return;
	}
	if (s->waits == WAITS_BANNER) {
		admit_greet(s);
		session_run(s, NULL);
		return;
	}
	counter_add(C_SESSIONS_TIMEOUT, 1);
	if (s->waits == WAITS_TLS || s->waits == WAITS_DRAIN || s->waits == WAITS_PROXY) {
		net_abort(s->conn);
		return;
	}
	reply_set(&r, 421, "4.4.2", "%s: time limit reached, closing", snap_cstr(&s->cfg->snap, s->cfg->set->hostname));
	smtp_server_shutdown(&s->smtp, &r);
	inbound_close(s);
}

/* ---- begin and end ---- */

/* Under implicit TLS a refusal would cost a handshake first: the connection just ends. */
static void session_refuse(struct session *s, const struct reply *r)
{
	if (s->tls_implicit) {
		s->waits = WAITS_CLOSE;
		net_abort(s->conn);
		return;
	}
	smtp_server_refuse(&s->smtp, r);
	inbound_close(s);
}

static bool tls_allowed(struct session *s)
{
	bool ok = handshakes_allow(s->w->handshakes, s->facts.client_ip, s->cfg->set->tls_handshakes, s->w->now_ns);

	counter_add(C_TLS_IN_LIMITED, !ok);
	return ok;
}

/* With the newest certificate, whatever the session's own configuration has. */
static void begin_tls(struct session *s)
{
	s->waits = WAITS_TLS;
	if (s->w->cfg->tls_server)
		net_start_tls(s->conn, s->w->cfg->tls_server, NULL);
	else
		net_abort(s->conn); /* the certificate was taken out of the configuration since the start */
}

/* The client is known. */
static void session_begin(struct session *s)
{
	struct reply r;

	s->facts.net = snap_find_net(s->facts.snap, s->facts.client_ip);
	s->smtp.xclient_allowed = snap_may_xclient(s->facts.snap, s->facts.client_ip);
	admit_count(s, 1);
	if (admit_refusal(s, &r)) {
		counter_add(C_SESSIONS_REFUSED, 1);
		session_refuse(s, &r);
		return;
	}
	if (s->tls_implicit && !tls_allowed(s)) {
		s->waits = WAITS_CLOSE;
		net_abort(s->conn);
		return;
	}
	if (s->tls_implicit)
		begin_tls(s);
	else if (!admit_waits(s))
		session_flush(s);
	session_deadline(s, true, 0);
}

static void session_accept(struct worker *w, struct net_event *ev)
{
	const struct snap_listener *l = &w->listener[ev->listener];
	struct session *s = calloc(1, sizeof(*s));

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
	s->facts.tables = &w->tables;
	TAILQ_INSERT_TAIL(&w->inbound->sessions, s, entry);
	w->inbound->nsessions++;
	counter_add(C_SESSIONS, 1);
	counter_add(C_SESSIONS_OPEN, 1);
	smtp_server_init(&s->smtp, &s->cfg->smtp[l->role]);
	s->smtp.wire.normalise = l->bare_lf == BARE_LF_NORMALISE;
	s->tls_implicit = l->tls_implicit;
	s->banner_delay_ns = l->banner_delay_ns;
	if (!l->proxy)
		session_begin(s);
	else if (admit_balancer(s))
		session_deadline(s, true, 0);
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
	auth_cancel(s);
	body_end(s);
	recipient_cancel(s);
	recipient_reset(s);
	wheel_cancel(w->wheel, &s->timer);
	admit_count(s, -1);
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

/* For weirctl trace: the envelope as far as it came. */
static void refuse_note(struct session *s, const struct decision *d, struct span to)
{
	struct envelope e = s->smtp.env;

	e.helo = s->smtp.helo;
	memcpy(e.client_ip, s->facts.client_ip, 16);
	store_note_refused(s->w->store[0], 0, &e, to, s->body ? body_len(s->body) : 0, &d->reply);
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
	if (s->facts.auth_user.n)
		log_span(&l, "user", s->facts.auth_user);
	log_span(&l, "from", s->smtp.env.sender);
	if (to.n)
		log_span(&l, "to", to);
	log_span(&l, "reply", out_span(&t));
	log_emit(&l);
	refuse_note(s, d, to);
}

static void rate_over_log(const struct session *s, double rate)
{
	char ip[48];
	struct out o = out_of(ip, sizeof(ip));
	struct logline l;

	ip_write(s->facts.client_ip, &o);
	log_begin(&l, LOG_LVL_INFO, "rate-over");
	log_str(&l, "rule", "A8");
	log_span(&l, "client", out_span(&o));
	if (s->facts.auth_user.n)
		log_span(&l, "user", s->facts.auth_user);
	log_f(&l, "rate", "%.1f", rate);
	log_f(&l, "limit", "%.1f", policy_rate_limit(&s->facts));
	log_str(&l, "mode", s->w->cfg->set->rate_mode == MODE_DEFER ? "defer" : "monitor");
	log_emit(&l);
}

/* What the counter said about this session's client, and what follows from it for MAIL. */
static void rate_decide(struct session *s, const struct rate_answer *a)
{
	struct decision d = policy_rate(&s->facts, a->over, a->rate);
	struct reply r;

	if (a->over) {
		counter_add(C_RATE_OVER, 1);
		rate_over_log(s, a->rate);
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

/* Room for the message that was announced, in the partition that it will go to. */
static enum status spool_room(const struct session *s)
{
	struct store *st = worker_store(s->w);

	return st ? store_room(st, s->smtp.size_declared) : ST_IO;
}

static void spool_refusal(enum status st, struct reply *r)
{
	counter_add(C_TEMPFAIL_SPOOL_FULL, st == ST_FULL);
	if (st == ST_IO)
		reply_set(r, 421, "4.3.0", "The spool of this node is out of order, try another one");
	else if (st == ST_NOMEM)
		reply_set(r, 452, "4.3.1", "Out of memory, try again later");
	else
		reply_set(r, 452, "4.3.1", "The spool is full, try again later");
}

/* Reasons to refuse a sender that need nobody to be asked; false when there is none. */
static bool mail_refused(struct session *s)
{
	struct decision d = policy_sender(&s->facts, &s->smtp.sender);
	struct reply r;
	enum status st = spool_room(s);

	recipient_reset(s);
	if (st != ST_OK) {
		spool_refusal(st, &r);
		answer(s, &r);
		return true;
	}
	if (d.accept)
		return false;
	counter_add(C_SENDER_DENIED, 1);
	refuse_log(s, &d, SPAN_NONE);
	answer(s, &d.reply);
	return true;
}

/* Whose messages are counted: the user's, else the client host's. */
static void rate_key(const struct session *s, struct out *o)
{
	if (s->facts.auth_user.n) {
		out_str(o, "user/");
		out_add(o, s->facts.auth_user);
		return;
	}
	out_str(o, "client/");
	ip_write(s->facts.client_ip, o);
}

static void decide_mail(struct session *s)
{
	const struct snap_settings *set = s->cfg->set;
	double limit = policy_rate_limit(&s->facts);
	char key[PASSLINE_USER_MAX + 64];
	struct out o = out_of(key, sizeof(key));
	struct rate_answer a = { 0 };
	struct reply r;
	enum status st;

	if (mail_refused(s))
		return;
	if (limit <= 0) {
		reply_set(&r, 250, "2.1.0", "Ok");
		answer(s, &r);
		return;
	}
	rate_key(s, &o);
	st = shared_rate(s->w->shared, out_span(&o), 1, limit, set->rate_period_ns, set->rate_mode == MODE_DEFER, on_rate, s, &a,
		&s->rate_query);
	if (st == ST_AGAIN)
		s->waits = WAITS_RATE;
	else
		rate_decide(s, &a);
}

static void answer_rcpt(struct session *s, const struct decision *d)
{
	struct reply r;

	if (d->accept) {
		reply_set(&r, 250, "2.1.5", "Ok");
		answer(s, &r);
		return;
	}
	counter_add(C_RCPT_REFUSED, 1);
	refuse_log(s, d, s->smtp.rcpt.full);
	answer(s, &d->reply);
}

static void decide_rcpt(struct session *s)
{
	struct decision d;

	if (recipient_decide(s, &d))
		answer_rcpt(s, &d);
	else
		s->waits = WAITS_RCPT;
}

void inbound_rcpt(struct session *s, const struct decision *d)
{
	answer_rcpt(s, d);
	session_run(s, NULL);
}

static void decide_data(struct session *s)
{
	enum status st = spool_room(s); /* others may have taken what there was at MAIL */
	struct reply r;

	if (st == ST_OK)
		st = body_new(worker_store(s->w), s->smtp.size_declared, &s->body);
	if (st == ST_OK)
		reply_set(&r, 354, NULL, "End data with <CR><LF>.<CR><LF>");
	else
		spool_refusal(st, &r);
	answer(s, &r);
}

static void take_body(struct session *s)
{
	enum status st = s->body ? body_append(s->body, s->smtp.body) : ST_OK;
	struct reply r;

	if (st == ST_OK)
		return;
	body_end(s);
	spool_refusal(st, &r);
	smtp_server_abort_body(&s->smtp, &r);
}

/* The facts of the session that go into the envelope beside what MAIL and RCPT said. */
static void complete_envelope(struct session *s, struct span head)
{
	struct envelope *e = &s->smtp.env;

	e->arrived_ns = clock_steady_ns();
	e->helo = s->smtp.helo;
	e->auth_user = s->facts.auth_user;
	memcpy(e->client_ip, s->facts.client_ip, 16);
	e->client_port = s->client_port;
	if (s->smtp.tls)
		e->flags |= ENV_TLS;
	if (s->smtp.esmtp)
		e->flags |= ENV_ESMTP;
	if (s->smtp.cfg->lmtp)
		e->flags |= ENV_LMTP;
	e->flags |= header_flags(head, e);
}

static void decide_message(struct session *s)
{
	struct decision d = policy_hops(&s->facts, header_count_received(body_head(s->body)));
	struct body *b = s->body;
	struct reply r;

	if (d.accept && !terms_envelope_takes(s->facts.snap, s->facts.tables, &s->smtp.env, body_len(b), &d.reply))
		d = (struct decision){ .rule = "A7", .reply = d.reply };
	s->body = NULL;
	recipient_reset(s);
	if (s->smtp.wire.dot_line)
		body_mark_dot_lines(b);
	if (!d.accept) {
		body_drop(b);
		counter_add(C_MSG_REFUSED, 1);
		refuse_log(s, &d, SPAN_NONE);
		answer(s, &d.reply);
		return;
	}
	counter_add(C_MSG_NORMALISED, s->smtp.wire.normalised);
	complete_envelope(s, body_head(b));
	if (mail_seal(s->w, &s->smtp.env, b, s, &s->mail, &r) != ST_OK) {
		s->mail = NULL;
		counter_add(C_MSG_REFUSED, 1);
		answer(s, &r);
		return;
	}
	s->mail->scan_down = policy_class(&s->facts) == CLASS_FRAGILE ? SCAN_DOWN_HOLD : (uint8_t)s->cfg->set->scan_down;
	s->waits = WAITS_ANSWER;
}

void inbound_go_on(struct session *s)
{
	if (s->waits == WAITS_NOTHING)
		session_run(s, NULL);
}

void inbound_answer(struct session *s, const struct reply *r)
{
	s->mail = NULL;
	answer(s, r);
	session_run(s, NULL);
}

/* ---- the session's turn ---- */

/* Before its 220 goes out: a client that begins too many handshakes is told so (P23). */
static void limit_starttls(struct session *s)
{
	struct reply r;

	if (s->tls_counted || !smtp_server_starts_tls(&s->smtp))
		return;
	s->tls_counted = true;
	if (tls_allowed(s))
		return;
	reply_set(&r, 421, "4.7.0", "%s: too many TLS handshakes from your host, try later", snap_cstr(&s->cfg->snap, s->cfg->set->hostname));
	smtp_server_starttls_refuse(&s->smtp, &r);
}

/* Does what the protocol engine asks for. False when the session cannot go on now. */
static bool session_act(struct session *s, enum server_action act)
{
	switch (act) {
	case SRV_MORE:
		break;
	case SRV_STEP:
		limit_starttls(s);
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
		recipient_reset(s);
		auth_cancel(s);
		break;
	case SRV_AUTH:
		auth_decide(s);
		break;
	case SRV_XCLIENT:
		admit_xclient(s);
		break;
	case SRV_STARTTLS:
		begin_tls(s);
		break;
	case SRV_CLOSE:
		counter_add(C_BARE_LINE_ENDS, s->smtp.bad_line_end);
		body_end(s);
		inbound_close(s);
		break;
	}
	return s->waits == WAITS_NOTHING;
}

/* Room for the next piece of input is made sure before the engine sees it, so that a body piece can always be taken. */
static bool session_has_room(struct session *s, size_t n)
{
	if (s->smtp.wire.normalise)
		n *= 2; /* LF becomes CRLF */
	if (!s->body || body_room(s->body, n) != ST_AGAIN) { /* full shows at body_append */
		s->room_since_ns = 0;
		return true;
	}
	if (!s->room_since_ns)
		s->room_since_ns = s->w->now_ns;
	return s->w->now_ns - s->room_since_ns >= ROOM_WAIT_NS; /* and it shows there, too, when room does not come */
}

/* The worker stops: between messages a session is told to go. */
static void session_go(struct session *s)
{
	struct reply r;

	if (!s->w->stopping || (s->waits != WAITS_NOTHING && s->waits != WAITS_BANNER) || smtp_server_wait(&s->smtp) != SRV_WAIT_COMMAND)
		return;
	reply_set(&r, 421, "4.3.2", "%s: shutting down, try another node", snap_cstr(&s->cfg->snap, s->cfg->set->hostname));
	if (s->waits == WAITS_BANNER)
		smtp_server_refuse(&s->smtp, &r); /* in the place of the greeting */
	else
		smtp_server_shutdown(&s->smtp, &r);
	inbound_close(s);
}

/* Feeds the engine with what came (ev) or lets it go on after an answer (ev NULL). */
static void session_run(struct session *s, struct net_event *ev)
{
	struct span in = ev ? ev->data : SPAN_NONE;
	size_t used = 0, n;
	bool go = s->waits == WAITS_NOTHING, done = !ev;

	while (go) {
		enum server_action act;

		if (!session_has_room(s, in.n)) {
			room_wait(s, true);
			break;
		}
		act = smtp_server_step(&s->smtp, in, &n);
		used += n;
		in = span_skip(in, n);
		done = done || act != SRV_MORE;
		go = session_act(s, act);
		if (go && act == SRV_MORE) {
			bool said = smtp_server_output(&s->smtp).n > 0;

			if (!session_flush(s)) {
				s->waits = WAITS_DRAIN;
				go = false;
			}
			if (in.n == 0 && !said)
				break;
		}
	}
	if (s->waits != WAITS_CLOSE) {
		if (s->waits != WAITS_DRAIN && s->waits != WAITS_TLS && !session_flush(s))
			s->waits = s->waits == WAITS_NOTHING ? WAITS_DRAIN : s->waits;
		session_deadline(s, done, used);
		session_go(s);
	}
	if (ev)
		ev->used = s->waits == WAITS_CLOSE ? ev->data.n : used;
	else if (s->waits == WAITS_NOTHING && s->eof)
		inbound_close(s);
	else if (s->waits == WAITS_NOTHING)
		net_resume(s->conn);
}

static void on_tls(struct session *s)
{
	s->waits = WAITS_NOTHING;
	counter_add(C_TLS_IN, 1);
	counter_add(C_TLS_IN_RESUMED, net_tls_resumed(s->conn));
	smtp_server_tls_started(&s->smtp);
	s->facts.auth_user = SPAN_NONE;
	auth_offer(s);
	if (admit_waits(s)) {
		session_deadline(s, true, 0);
		net_resume(s->conn);
	} else {
		session_run(s, NULL);
	}
}

static void on_data(struct session *s, struct net_event *ev)
{
	struct net_event rest = *ev;

	if (s->waits == WAITS_BANNER) {
		admit_early(s, ev);
	} else if (s->waits != WAITS_PROXY) {
		session_run(s, ev);
	} else if (admit_proxy(s, ev)) {
		session_begin(s);
		rest.data = span_skip(ev->data, ev->used);
		if (rest.data.n && s->waits != WAITS_TLS) {
			on_data(s, &rest);
			ev->used += rest.used;
		}
	}
}

/* The client will send no more: what it has not finished is nothing (P2); what it waits for it still gets. */
static void on_eof(struct session *s)
{
	s->eof = true;
	if (s->waits == WAITS_ANSWER || s->waits == WAITS_RATE || s->waits == WAITS_RCPT || s->waits == WAITS_AUTH || s->waits == WAITS_DRAIN || s->waits == WAITS_CLOSE)
		return;
	body_end(s);
	if (s->waits == WAITS_PROXY)
		net_abort(s->conn); /* it was nobody's */
	else
		inbound_close(s);
}

void inbound_net_event(struct worker *w, struct net_event *ev)
{
	struct session *s = ev->type == NET_ACCEPTED ? NULL : ev->user;

	switch (ev->type) {
	case NET_ACCEPTED:
		session_accept(w, ev);
		break;
	case NET_DATA:
		on_data(s, ev);
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

void inbound_shutdown(struct worker *w, bool hurry)
{
	struct session *s, *next;
	struct reply r;

	reply_set(&r, 421, "4.3.2", "%s: shutting down, try another node", snap_cstr(&w->cfg->snap, w->cfg->set->hostname));
	for (s = TAILQ_FIRST(&w->inbound->sessions); s; s = next) {
		next = TAILQ_NEXT(s, entry);
		session_go(s);
		if (!hurry || s->waits == WAITS_CLOSE || s->waits == WAITS_ANSWER)
			continue; /* an answer that is due comes, or never will */
		if (s->waits == WAITS_TLS || s->waits == WAITS_DRAIN || s->waits == WAITS_PROXY) {
			net_abort(s->conn);
			continue;
		}
		body_end(s);
		smtp_server_shutdown(&s->smtp, &r);
		inbound_close(s);
	}
}

uint32_t inbound_sessions(const struct worker *w)
{
	return w->inbound->nsessions;
}
