#include "dataplane/decide.h"

#include "dataplane/clients.h"
#include "dataplane/decide_sender.h"
#include "dataplane/finding.h"
#include "dataplane/inbound.h"
#include "dataplane/recipient.h"
#include "dataplane/terms.h"
#include "spool/base/clock.h"
#include "spool/base/counters.h"
#include "spool/mail/header.h"
#include "spool/mail/rule_counts.h"

void decide_body_end(struct session *s)
{
	if (s->body)
		body_drop(s->body);
	s->body = NULL;
}

void decide_answer(struct session *s, const struct reply *r)
{
	s->waits = WAITS_NOTHING;
	smtp_server_reply(&s->smtp, r);
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
	log_str(&l, "mode", policy_mode_words[policy_mode(&s->facts, RULE_RATE)]);
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
	if (!finding_accept(s, &d, SPAN_NONE)) {
		counter_add(C_RATE_DEFERRED, 1);
		decide_answer(s, &d.reply);
		return;
	}
	reply_set(&r, 250, "2.1.0", "Ok");
	decide_answer(s, &r);
}

static void on_rate(void *ctx, const struct rate_answer *a)
{
	struct session *s = ctx;

	s->rate_query = NULL;
	rate_decide(s, a);
	inbound_go_on(s);
}

/* Room for the message that was announced, in the partition that it will go to. */
static enum status spool_room(const struct session *s)
{
	struct store *st = worker_store(s->w);

	return st ? store_room(st, s->smtp.size_declared) : ST_IO;
}

static void spool_refusal(struct session *s, enum status st, struct reply *r)
{
	counter_add(C_TEMPFAIL_SPOOL_FULL, st == ST_FULL);
	if (st == ST_IO)
		reply_set(r, 421, "4.3.0", "The spool of this node is out of order, try another one");
	else if (st == ST_NOMEM)
		reply_set(r, 452, "4.3.1", "Out of memory, try again later");
	else
		reply_set(r, 452, "4.3.1", "The spool is full, try again later");
	rule_count(RULE_NO_ROOM, policy_class(&s->facts), POLICY_DEFER);
	policy_help(&s->cfg->snap, RULE_NO_ROOM, r);
}

/* Reasons to refuse a sender that need nobody to be asked; false when there is none. */
static bool mail_refused(struct session *s)
{
	struct decision d = policy_sender(&s->facts, &s->smtp.sender);
	struct reply r;
	enum status st = spool_room(s);

	recipient_reset(s);
	if (st != ST_OK) {
		spool_refusal(s, st, &r);
		decide_answer(s, &r);
		return true;
	}
	if (finding_accept(s, &d, SPAN_NONE))
		return false;
	counter_add(C_SENDER_DENIED, 1);
	decide_answer(s, &d.reply);
	return true;
}

/* The rate of messages is the last question at MAIL: what others refuse is not counted. */
static void ask_rate(struct session *s)
{
	const struct snap_settings *set = s->cfg->set;
	double limit = policy_rate_limit(&s->facts);
	char key[PASSLINE_USER_MAX + 64];
	struct out o = out_of(key, sizeof(key));
	struct rate_answer a = { 0 };
	struct reply r;
	enum status st;

	if (limit <= 0) {
		reply_set(&r, 250, "2.1.0", "Ok");
		decide_answer(s, &r);
		return;
	}
	policy_rate_key(&s->facts, &o);
	st = shared_rate(s->w->shared, out_span(&o), 1, limit, set->rate_period_ns, policy_mode(&s->facts, RULE_RATE) >= POLICY_DEFER, on_rate, s,
		&a, &s->rate_query);
	if (st == ST_AGAIN)
		s->waits = WAITS_RATE;
	else
		rate_decide(s, &a);
}

/* What is to be refused is refused to each recipient, and is no message that counts. */
void decide_mail_known(struct session *s)
{
	struct reply r;

	decide_sender_judge(s);
	if (!s->sender_said.refused) {
		ask_rate(s);
		return;
	}
	reply_set(&r, 250, "2.1.0", "Ok");
	decide_answer(s, &r);
}

void decide_mail(struct session *s)
{
	s->facts.to_postmaster = s->to_others = false;
	if (!mail_refused(s) && decide_sender_ask(s))
		decide_mail_known(s);
}

void decide_begin(struct session *s)
{
	decide_sender_begin(s);
}

void decide_stop(struct session *s)
{
	decide_sender_stop(s);
}

void decide_other_client(struct session *s)
{
	s->rcpt_looked = false;
	decide_sender_forget(s);
	decide_sender_begin(s);
}

void decide_end(struct session *s)
{
	if (s->rate_query)
		shared_cancel(s->rate_query);
	decide_sender_forget(s);
	decide_sender_stop(s);
}

static bool rcpt_accept(struct session *s, struct decision *d)
{
	if (d->accept || !policy_is_of_sender(d->rule))
		return finding_accept(s, d, s->smtp.rcpt.full);
	decide_sender_refuse(s, d);
	return false;
}

static void answer_rcpt(struct session *s, struct decision *d)
{
	struct reply r;

	if (!rcpt_accept(s, d)) {
		counter_add(C_RCPT_REFUSED, 1);
		decide_answer(s, &d->reply);
		return;
	}
	s->to_others = s->to_others || !s->facts.to_postmaster;
	reply_set(&r, 250, "2.1.5", "Ok");
	decide_answer(s, &r);
}

void decide_rcpt(struct session *s)
{
	struct decision d;

	s->facts.to_postmaster = policy_is_our_postmaster(&s->facts, &s->smtp.rcpt);
	if (recipient_decide(s, &d))
		answer_rcpt(s, &d);
	else
		s->waits = WAITS_RCPT;
}

void decide_rcpt_came(struct session *s, struct decision *d)
{
	answer_rcpt(s, d);
	inbound_go_on(s);
}

void decide_data(struct session *s)
{
	enum status st = spool_room(s); /* others may have taken what there was at MAIL */
	struct reply r;

	if (st == ST_OK)
		st = body_new(worker_store(s->w), s->smtp.size_declared, &s->body);
	if (st == ST_OK)
		reply_set(&r, 354, NULL, "End data with <CR><LF>.<CR><LF>");
	else
		spool_refusal(s, st, &r);
	decide_answer(s, &r);
}

void decide_body(struct session *s)
{
	enum status st = s->body ? body_append(s->body, s->smtp.body) : ST_OK;
	struct reply r;

	if (st == ST_OK)
		return;
	decide_body_end(s);
	spool_refusal(s, st, &r);
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
	if (s->facts.client && s->facts.client->is == CLIENT_IS_NAMED)
		e->client_name = span_str(s->facts.client->name);
	e->client_port = s->client_port;
	if (s->smtp.tls)
		e->flags |= ENV_TLS;
	if (s->smtp.esmtp)
		e->flags |= ENV_ESMTP;
	if (s->smtp.cfg->lmtp)
		e->flags |= ENV_LMTP;
	e->flags |= header_flags(head, e);
	e->message_id = header_message_id(head);
}

/* The message is complete, and nothing is to be asked any more. */
static void seal(struct session *s)
{
	struct body *b = s->body;
	struct reply r;

	s->body = NULL;
	counter_add(C_MSG_NORMALISED, s->smtp.wire.normalised);
	complete_envelope(s, body_head(b));
	if (mail_seal(s->w, &s->smtp.env, b, s, &s->mail, &r) != ST_OK) {
		s->mail = NULL;
		counter_add(C_MSG_REFUSED, 1);
		decide_answer(s, &r);
		return;
	}
	clients_message(s);
	s->mail->class_ = (uint8_t)policy_class(&s->facts);
	s->mail->hold_unscanned = policy_mode(&s->facts, RULE_UNSCANNED) == POLICY_HOLD;
	s->mail->hold_infected = policy_mode(&s->facts, RULE_MALWARE) == POLICY_HOLD;
	s->waits = WAITS_ANSWER;
}

/* True: the message is not refused for this. */
static bool message_accept(struct session *s, struct decision d)
{
	if (finding_accept(s, &d, SPAN_NONE))
		return true;
	decide_body_end(s);
	counter_add(C_MSG_REFUSED, 1);
	decide_answer(s, &d.reply);
	return false;
}

static bool is_wanted(const struct session *s, enum rule r)
{
	return policy_mode(&s->facts, r) != POLICY_OFF;
}

/* ---- the end of data: who the header says it is from ---- */

static void decide_header(struct session *s)
{
	struct decision d = policy_header_from(&s->facts);

	s->facts.header = NULL;
	if (message_accept(s, d))
		seal(s);
}

static void on_header(void *ctx)
{
	struct session *s = ctx;

	s->domain_ask = NULL;
	if (s->waits != WAITS_HEADER)
		return;
	s->waits = WAITS_NOTHING;
	decide_header(s);
	inbound_go_on(s);
}

static void ask_header(struct session *s)
{
	struct fact_header *h = is_wanted(s, RULE_HEADER_FROM) ? pool_alloc(&s->smtp.pool, sizeof(*h)) : NULL;

	s->facts.header = h;
	if (!h)
		return; /* without memory the header is not looked at: nothing is known against it */
	facts_header(&s->facts, body_head(s->body), body_len(s->body), &s->smtp.pool, h);
	if (facts_header_ask(s->w, &s->facts, h, s->dns_left_ns, on_header, s, &s->domain_ask) == ST_AGAIN)
		s->waits = WAITS_HEADER;
}

void decide_message(struct session *s)
{
	struct decision size = { .rule = RULE_ROUTE_SIZE };

	recipient_reset(s);
	s->facts.to_postmaster = !s->to_others;
	if (s->smtp.wire.dot_line)
		body_mark_dot_lines(s->body);
	if (!message_accept(s, policy_hops(&s->facts, header_count_received(body_head(s->body)))))
		return;
	if (!terms_envelope_takes(s->facts.snap, s->facts.tables, &s->smtp.env, body_len(s->body), &size.reply) && !message_accept(s, size))
		return;
	ask_header(s);
	if (s->waits != WAITS_HEADER)
		decide_header(s);
}
