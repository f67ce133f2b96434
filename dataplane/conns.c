#include "dataplane/conn_internal.h"

#include <stdlib.h>
#include "spool/base/clock.h"
#include "spool/base/counters.h"

enum { NO_BDAT_S = 3600 };

void conn_deadline(struct out_conn *c, uint64_t after_ns)
{
	c->deadline_ns = c->w->now_ns + after_ns;
	/* a timer that ends too early is set again when it does: most deadlines only ever move on */
	if (timer_armed(&c->timer) && c->timer_ns <= c->deadline_ns)
		return;
	c->timer_ns = c->deadline_ns;
	wheel_set(c->w->wheel, &c->timer, c->deadline_ns);
}

/* ---- begin and end ---- */

/* Whether it counts as connecting. Until a server is ready for mail it does: greetings and handshakes that hang are no sign that the destination works. */
static void conn_unproved(struct out_conn *c, bool yes)
{
	if (c->unproved == yes)
		return;
	c->unproved = yes;
	c->dest->nconnecting += yes ? 1 : -1u;
}

void conn_open(struct dest *d, bool for_probe)
{
	struct out_conn *c = calloc(1, sizeof(*c));
	struct reply r;

	if (!c) {
		reply_set(&r, 451, "4.3.0", "Out of memory");
		outbound_dest_failed(d, &r);
		return;
	}
	c->owner.kind = OWNER_CONN;
	c->w = outbound_worker(d);
	c->cfg = config_hold(c->w->cfg);
	c->dest = d;
	c->timer.kind = TIMER_CONN;
	conn_unproved(c, true);
	c->for_probe = for_probe;
	d->nprobe_opening += for_probe;
	outbound_count_conn(d, 1);
	peer_init(&c->peer, c->w, c->cfg, d, conn_on_peer, c);
	reply_set(&c->failure, 451, "4.4.1", "No host of %s answers", d->key);
	conn_next_host(c);
}

void conn_free(struct out_conn *c)
{
	struct dest *d = c->dest;

	conn_probe_opened(c);
	conn_release_answers(c);
	peer_done(&c->peer);
	if (c->mx)
		dns_answer_release(c->mx);
	conn_unproved(c, false);
	if (c->phase == CONN_IDLE)
		TAILQ_REMOVE(&d->idle, c, entry);
	wheel_cancel(c->w->wheel, &c->timer);
	outbound_count_conn(d, -1);
	conn_login_release(c);
	config_release(c->cfg);
	free(c->result);
	free(c);
	outbound_wake(d);
}

/* ---- talking ---- */

void conn_lost_reply(const struct out_conn *c, struct reply *ret)
{
	const struct reply *said = &c->client.failure;

	if (said->code >= 400 && said->code < 500)
		*ret = *said;
	else if (said->code)
		reply_set(ret, 451, "4.4.2", "%s ended the session: %.*s", c->host, SPAN_FMT(reply_text(said)));
	else
		reply_set(ret, 451, "4.4.2", "Connection to %s was lost", c->host);
}

/* Hands the delivery's end to outbound. */
static void delivery_end(struct out_conn *c)
{
	struct delivery *dl = c->dl;
	struct reply lost;
	struct remote remote = peer_remote(&c->peer, c->conn);
	bool unheard = true;

	if (c->reader)
		store_read_close(c->reader);
	c->reader = NULL;
	c->sending = SEND_NOTHING;
	c->dl = NULL;
	remote.dsn = (c->client.ext & EXT_DSN) != 0;
	counter_add(C_OUT_BDAT, c->client.use_bdat && !c->client.bdat_unknown);
	if (c->client.bdat_unknown) {
		counter_add(C_OUT_BDAT_UNKNOWN, 1);
		c->dest->no_bdat_until_ns = c->w->now_ns + NO_BDAT_S * NS_PER_S;
		outbound_unpick(dl); /* again, with DATA */
		return;
	}
	for (uint32_t i = 0; i < dl->nrcpt; i++)
		unheard = unheard && c->result[i].code == 0;
	/* an idle connection that the server had given up: nothing was lost, nothing was said */
	if (unheard && c->client.transactions > 1 && !dl->again && !c->client.accepted_any) {
		dl->again = true;
		outbound_unpick(dl);
		return;
	}
	conn_lost_reply(c, &lost);
	outbound_result(dl, c->result, &lost, remote);
}

/* Room for the results of n recipients. */
static bool result_room(struct out_conn *c, uint32_t n)
{
	if (n > c->result_cap) {
		free(c->result);
		c->result = malloc(n * sizeof(*c->result));
		c->result_cap = c->result ? n : 0;
	}
	return c->result || !n;
}

static struct span domain_of(const struct delivery *dl, uint32_t k)
{
	struct span rest = dl->mail->m->env.rcpt[dl->rcpt[k]].addr;
	const char *at = memrchr(rest.p, '@', rest.n);

	return at ? span_skip(rest, (size_t)(at - rest.p) + 1) : SPAN_NONE;
}

/* RFC 9422: no more recipients, and no more domains, than the server takes in one transaction. */
static uint32_t rcpts_allowed(const struct out_conn *c, const struct delivery *dl)
{
	const struct ehlo_values *v = &c->client.ehlo;
	uint32_t n = v->rcpt_max && v->rcpt_max < dl->nrcpt ? v->rcpt_max : dl->nrcpt, domains = 1;

	for (uint32_t k = 1; v->rcpt_domain_max && k < n; k++)
		if (!span_eq_nocase(domain_of(dl, k), domain_of(dl, k - 1)) && ++domains > v->rcpt_domain_max)
			return k;
	return n;
}

static bool take_delivery(struct out_conn *c)
{
	struct delivery *dl = outbound_pick(c->dest);
	uint32_t n;

	if (!dl)
		return false;
	if (!result_room(c, dl->nrcpt)) {
		outbound_unpick(dl);
		return false;
	}
	n = rcpts_allowed(c, dl);
	if (n < dl->nrcpt)
		outbound_split(dl, n);
	for (uint32_t i = 0; i < dl->nrcpt; i++)
		c->result[i].code = 0;
	c->dl = dl;
	c->went_on = true;
	conn_trace_header(c);
	if (c->client.transactions)
		counter_add(C_OUT_REUSED, 1);
	c->txn = (struct smtp_txn){ .env = &dl->mail->m->env, .rcpt = dl->rcpt, .result = c->result, .nrcpt = dl->nrcpt,
		.size = c->trace_len + dl->mail->m->body_len };
	smtp_client_begin(&c->client, &c->txn);
	return true;
}

/* Somebody waits at RCPT for a probe: it comes first. */
static bool take_work(struct out_conn *c)
{
	return conn_take_probe(c) || take_delivery(c);
}

static void work_end(struct out_conn *c)
{
	if (c->probe)
		conn_probe_end(c);
	else
		delivery_end(c);
}

/* Without work: waits a little for more, or says goodbye. True when there is something to step for. */
static bool conn_ready(struct out_conn *c)
{
	const struct snap_settings *set = c->cfg->set;
	uint32_t theirs = c->client.ehlo.mail_max, max = theirs && theirs < set->conn_msgs_max ? theirs : set->conn_msgs_max;

	if (c->client.transactions < max && !c->w->stopping && take_work(c))
		return true;
	if (c->client.transactions >= max || c->w->stopping || !set->idle_reuse_ns) {
		smtp_client_quit(&c->client);
		return true;
	}
	c->phase = CONN_IDLE;
	TAILQ_INSERT_HEAD(&c->dest->idle, c, entry);
	conn_deadline(c, set->idle_reuse_ns);
	return false;
}

static bool conn_flush(struct out_conn *c)
{
	struct span o;

	while ((o = smtp_client_output(&c->client)).n) {
		if (net_write(c->conn, o) != ST_OK) {
			c->out_waits = true;
			return false;
		}
		smtp_client_sent(&c->client, o.n);
	}
	c->out_waits = false;
	return true;
}

void conn_progress(struct out_conn *c)
{
	const struct snap_settings *set = c->cfg->set;

	if (c->phase != CONN_TALKING)
		return;
	if (c->starting_tls) { /* a handshake that hangs ends as a connection does: what follows is the policy's */
		conn_deadline(c, set->connect_timeout_ns);
		return;
	}
	switch (smtp_client_wait(&c->client)) {
	case CLI_WAIT_GREETING:
		conn_deadline(c, set->greeting_timeout_ns);
		break;
	case CLI_WAIT_FINAL:
		conn_deadline(c, set->final_timeout_ns);
		break;
	case CLI_WAIT_REPLY:
	case CLI_WAIT_DATA_REPLY:
	case CLI_WAIT_BODY:
	case CLI_WAIT_IDLE:
		conn_deadline(c, set->reply_timeout_ns);
		break;
	}
}

static bool in_content(const struct out_conn *c)
{
	return c->sending != SEND_NOTHING || c->net_busy;
}

/* The session is over: QUIT was answered, or the server is of no use. */
static void conn_close(struct out_conn *c)
{
	c->phase = CONN_CLOSING;
	if (in_content(c)) {
		c->sending = SEND_NOTHING;
		net_abort(c->conn); /* what is not out yet must not go out any more */
	} else {
		conn_flush(c);
		net_close(c->conn);
	}
	conn_deadline(c, 10 * NS_PER_S);
}

/* Does what the protocol engine asks for. False when there is nothing to step for now. */
static bool conn_act(struct out_conn *c, enum client_action act)
{
	switch (act) {
	case CLI_MORE:
		return conn_flush(c);
	case CLI_STARTTLS:
		conn_flush(c);
		c->starting_tls = true;
		peer_start_tls(&c->peer, c->conn);
		return false;
	case CLI_READY:
		counter_add(C_OUT_LOGINS, c->unproved && c->client.logged_in);
		conn_unproved(c, false);
		if (c->client.tls_missing)
			peer_tls_missing(&c->peer, c->conn);
		if (c->dest->tls_demand == HOP_TLS_REQUIRED && !(c->client.ext & EXT_REQUIRETLS)) {
			c->no_requiretls = true; /* another host of the destination may have it */
			conn_close(c);
			return false;
		}
		conn_probe_opened(c);
		return conn_ready(c);
	case CLI_BODY:
		c->body_waits = !conn_flush(c);
		if (!c->body_waits)
			conn_send_begin(c);
		return false;
	case CLI_RESULT:
		work_end(c);
		return true;
	case CLI_CLOSE:
		if (c->probe || (c->dl && !in_content(c))) /* else at NET_CLOSED: until then the slices must stay */
			work_end(c);
		conn_close(c);
		return false;
	}
	return false;
}

void conn_talk(struct out_conn *c, struct net_event *ev)
{
	struct span in = ev ? ev->data : SPAN_NONE;
	size_t used = 0, n;
	bool go = c->phase == CONN_TALKING;

	while (go) {
		enum client_action act = smtp_client_step(&c->client, in, &n);

		used += n;
		in = span_skip(in, n);
		go = conn_act(c, act);
		if (act == CLI_MORE && !in.n && (!smtp_client_output(&c->client).n || c->out_waits))
			break;
	}
	if (c->went_on || c->client.replies != c->seen_replies)
		conn_progress(c);
	c->went_on = false;
	c->seen_replies = c->client.replies;
	if (ev)
		ev->used = c->phase == CONN_CLOSING ? ev->data.n : used;
}

void conn_go(struct out_conn *c)
{
	CHECK(c->phase == CONN_IDLE);
	TAILQ_REMOVE(&c->dest->idle, c, entry);
	c->phase = CONN_TALKING;
	c->went_on = true;
	if (!take_work(c))
		smtp_client_quit(&c->client);
	conn_talk(c, NULL);
}

void conn_quit(struct out_conn *c)
{
	CHECK(c->phase == CONN_IDLE);
	TAILQ_REMOVE(&c->dest->idle, c, entry);
	c->phase = CONN_TALKING;
	c->went_on = true;
	smtp_client_quit(&c->client);
	conn_talk(c, NULL);
}

/* ---- events ---- */

static void on_connected(struct out_conn *c)
{
	c->phase = CONN_TALKING;
	counter_add(C_OUT_CONNS, 1);
	c->client_cfg = (struct smtp_client_config){
		.hostname = snap_span(&c->cfg->snap, c->cfg->set->hostname),
		.tls = peer_connected(&c->peer, c->ip, c->no_tls),
		.lmtp = c->dest->kind == ROUTE_LMTP,
		.chunking = c->cfg->set->chunking && c->dest->no_bdat_until_ns <= c->w->now_ns,
		.final = c->dest->final,
		.login = conn_login(c),
	};
	smtp_client_init(&c->client, &c->client_cfg);
	conn_progress(c);
}

/* The connection is gone before it was of use: the same address without TLS, or the next one. */
static void try_next(struct out_conn *c)
{
	c->conn = NULL;
	conn_unproved(c, true);
	if (c->tls_failed && c->peer.decision.level == TLS_LEVEL_MAY && !c->no_tls) {
		c->no_tls = true;
		log_msg(LOG_LVL_INFO, "tls-fallback", "%.*s: it goes on without TLS", SPAN_FMT(reply_text(&c->failure)));
		conn_again(c);
		return;
	}
	conn_next_addr(c);
}

/* Why a session that carried nothing ended. */
static void useless(struct out_conn *c, const struct net_event *ev, struct reply *r)
{
	const struct reply *said = &c->client.failure;

	if (c->starting_tls) {
		c->tls_failed = true;
		peer_tls_failed(&c->peer, ev->conn, r);
	} else if (c->no_requiretls) {
		reply_set(r, 550, "5.7.30", "%s does not offer REQUIRETLS, which the sender demands", c->host);
	} else if (c->client.tls_missing && !reply_is_ok(said)) {
		peer_tls_missing(&c->peer, ev->conn);
		*r = *said;
		if (c->dest->tls_demand == HOP_TLS_REQUIRED && !c->client.tls_later)
			reply_set(r, 550, "5.7.30", "%s does not offer TLS, which the sender demands", c->host);
	} else if (c->client.auth_fault) {
		conn_login_failed(c, r);
	} else if (said->code) {
		reply_set(r, 451, "4.4.2", "%s refused the session: %u %.*s", c->host, said->code, SPAN_FMT(reply_text(said)));
	} else {
		reply_set(r, 451, "4.4.2", "%s closed the connection: %s", c->host, ev->reason);
	}
}

static void on_closed(struct out_conn *c, const struct net_event *ev)
{
	bool useful;

	if (c->phase == CONN_CONNECTING) {
		c->have_failure = true;
		reply_set(&c->failure, 451, "4.4.1", "Connection to %s: %s", c->host, ev->reason);
		try_next(c);
		return;
	}
	useful = c->client.transactions > 0;
	smtp_client_done(&c->client);
	if (c->dl || c->probe)
		work_end(c);
	if (!useful && (c->phase == CONN_TALKING || c->client.failure.code || c->no_requiretls)) {
		struct reply r;

		useless(c, ev, &r);
		conn_host_failed(c, &r);
		if (c->phase == CONN_CLOSING)
			c->phase = CONN_TALKING;
		try_next(c);
		return;
	}
	conn_free(c);
}

void conn_net_event(struct worker *w, struct net_event *ev)
{
	struct out_conn *c = ev->user;

	(void)w;
	switch (ev->type) {
	case NET_CONNECTED:
		on_connected(c);
		break;
	case NET_DATA:
		if (c->phase == CONN_IDLE) { /* a server that speaks unasked is saying goodbye */
			TAILQ_REMOVE(&c->dest->idle, c, entry);
			c->phase = CONN_TALKING;
		}
		conn_talk(c, ev);
		break;
	case NET_SENT:
		c->net_busy = false;
		conn_progress(c);
		if (c->sending != SEND_NOTHING)
			conn_send_more(c);
		break;
	case NET_DRAINED:
		if (c->body_waits && conn_flush(c)) {
			c->body_waits = false;
			conn_send_begin(c);
		}
		conn_talk(c, NULL);
		break;
	case NET_TLS_ON:
		c->starting_tls = false;
		c->went_on = true;
		peer_tls_on(&c->peer, c->conn);
		smtp_client_tls_done(&c->client, true);
		conn_talk(c, NULL);
		net_resume(c->conn);
		break;
	case NET_EOF:
		if (c->phase == CONN_IDLE) {
			TAILQ_REMOVE(&c->dest->idle, c, entry);
			c->phase = CONN_CLOSING;
		}
		net_abort(c->conn);
		break;
	case NET_CLOSED:
		on_closed(c, ev);
		break;
	case NET_ACCEPTED:
		break;
	}
}

void conn_timer(struct worker *w, struct timer *t)
{
	struct out_conn *c = container_of(t, struct out_conn, timer);

	if (c->deadline_ns > w->now_ns) {
		c->timer_ns = c->deadline_ns;
		wheel_set(w->wheel, t, c->deadline_ns);
		return;
	}
	if (c->phase == CONN_IDLE) {
		conn_quit(c);
		conn_deadline(c, 10 * NS_PER_S);
	} else if (c->conn) {
		if (c->phase == CONN_TALKING)
			reply_set(&c->client.failure, 451, "4.4.2", "%s did not answer in time", c->host);
		net_abort(c->conn);
		conn_deadline(c, 10 * NS_PER_S);
	}
}
