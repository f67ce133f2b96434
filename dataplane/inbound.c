#include "dataplane/inbound.h"

#include <stdlib.h>
#include "dataplane/admit.h"
#include "dataplane/auth.h"
#include "dataplane/clients.h"
#include "dataplane/decide.h"
#include "dataplane/handshakes.h"
#include "dataplane/recipient.h"
#include "spool/base/clock.h"
#include "spool/base/counters.h"

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
	decide_stop(s);
	auth_cancel(s); /* who waited for a password gets no answer behind the goodbye */
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

	clients_session(s);
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
	decide_begin(s);
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
	s->listener = (uint16_t)ev->listener;
	s->tls_implicit = l->tls_implicit;
	s->banner_delay_ns = l->banner_delay_ns;
	if (!l->proxy)
		session_begin(s);
	else if (admit_balancer(s))
		session_deadline(s, true, 0);
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
	decide_end(s);
	auth_cancel(s);
	decide_body_end(s);
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

/* ---- going on after an answer ---- */

void inbound_go_on(struct session *s)
{
	if (s->waits == WAITS_NOTHING)
		session_run(s, NULL);
}

void inbound_answer(struct session *s, const struct reply *r)
{
	s->mail = NULL;
	decide_answer(s, r);
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
		decide_body(s);
		break;
	case SRV_BODY_END:
		decide_message(s);
		break;
	case SRV_RESET:
		decide_body_end(s);
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
		decide_body_end(s);
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
	clients_tls(s);
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

/* It is us whom the client waits for: an answer is due. */
static bool waits_for_us(const struct session *s)
{
	switch ((enum session_waits)s->waits) {
	case WAITS_FACTS:
	case WAITS_HEADER:
	case WAITS_RATE:
	case WAITS_RCPT:
	case WAITS_AUTH:
	case WAITS_ANSWER:
		return true;
	case WAITS_NOTHING:
	case WAITS_ROOM:
	case WAITS_DRAIN:
	case WAITS_TLS:
	case WAITS_PROXY:
	case WAITS_BANNER:
	case WAITS_CLOSE:
		break;
	}
	return false;
}

/* The client will send no more: what it has not finished is nothing (P2); what it waits for it still gets. */
static void on_eof(struct session *s)
{
	s->eof = true;
	if (waits_for_us(s) || s->waits == WAITS_DRAIN || s->waits == WAITS_CLOSE)
		return;
	decide_body_end(s);
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
		decide_body_end(s);
		smtp_server_shutdown(&s->smtp, &r);
		inbound_close(s);
	}
}

uint32_t inbound_sessions(const struct worker *w)
{
	return w->inbound->nsessions;
}
