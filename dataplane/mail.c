#include "dataplane/mail.h"

#include <stdlib.h>
#include "dataplane/bounce.h"
#include "dataplane/clients.h"
#include "dataplane/holds.h"
#include "dataplane/inbound.h"
#include "dataplane/outbound.h"
#include "dataplane/policy/policy.h"
#include "dataplane/scan.h"
#include "spool/base/clock.h"
#include "spool/base/counters.h"
#include "spool/mail/rule_counts.h"
#include "spool/store/ledger.h"

enum { HOLD_REASON_MAX = 300 };

void mail_log_begin(struct logline *l, enum log_level level, const char *event, const struct mail *mail)
{
	char id[MSG_ID_TEXT + 1];

	msg_id_text(mail->m->id, id);
	log_begin(l, level, event);
	log_str(l, "id", id);
}

static struct mail *mail_new(struct worker *w)
{
	struct mail *mail = calloc(1, sizeof(*mail));

	if (!mail)
		return NULL;
	mail->w = w;
	mail->retry.kind = TIMER_MAIL;
	return mail;
}

/* The gauges follow the state: in the queue from acceptance until the last recipient is final. */
static void mail_count(struct mail *mail)
{
	if (mail->counted)
		return;
	mail->counted = true;
	counter_add(C_QUEUE_MSGS, 1);
	counter_add(C_QUEUE_RCPTS, mail->m->open_rcpts);
	if (mail->m->state == MSG_HELD)
		counter_add(C_HELD_MSGS, 1);
}

static void mail_drop(struct mail *mail)
{
	struct store_msg *m = mail->m;

	CHECK(mail->deliveries == 0 && mail->bounces == 0 && mail->nfailed == 0);
	if (mail->counted) {
		counter_sub(C_QUEUE_MSGS, 1);
		if (m->state == MSG_HELD)
			counter_sub(C_HELD_MSGS, 1);
	}
	scan_cancel(mail->w->scan, mail);
	wheel_cancel(mail->w->wheel, &mail->retry);
	free(mail);
}

static void set_state(struct mail *mail, enum msg_state state, struct span reason)
{
	bool was = mail->m->state == MSG_HELD, is = state == MSG_HELD;

	store_set_state(mail->m, state, reason);
	if (mail->counted && was && !is)
		counter_sub(C_HELD_MSGS, 1);
	if (mail->counted && !was && is)
		counter_add(C_HELD_MSGS, 1);
}

enum status mail_seal(struct worker *w, const struct envelope *env, struct body *b, struct session *session, struct mail **ret,
	struct reply *ret_reply)
{
	struct mail *mail = mail_new(w);
	enum status st;

	if (!mail) {
		body_drop(b);
		reply_set(ret_reply, 452, "4.3.1", "Out of memory, try again later");
		return ST_NOMEM;
	}
	mail->session = session;
	mail->accepted = session == NULL;
	st = store_put(body_store(b), env, b, session == NULL, mail, &mail->m);
	if (st != ST_OK)
		goto fail;
	if (session && (st = scan_post(w->scan, mail, false)) != ST_OK) {
		for (uint32_t i = 0; i < env->nrcpt; i++)
			store_rcpt(mail->m, i, RCPT_DROPPED, NULL, 0);
		store_forget(mail->m);
		goto fail;
	}
	if (!session)
		mail->verdict = VERDICT_CLEAN;
	*ret = mail;
	return ST_OK;
fail:
	free(mail);
	if (st == ST_IO)
		reply_set(ret_reply, 421, "4.3.0", "The spool of this node is out of order, try another one");
	else
		reply_set(ret_reply, 452, "4.3.1", "The spool is full, try again later");
	return st;
}

static void drop_all(struct mail *mail)
{
	struct store_msg *m = mail->m;

	for (uint32_t i = 0; i < m->env.nrcpt; i++)
		store_rcpt(m, i, RCPT_DROPPED, NULL, 0);
	mail_drop(mail);
	store_forget(m);
}

static void log_accepted(const struct mail *mail)
{
	const struct store_msg *m = mail->m;
	struct logline l;
	char ip[48];
	struct out o = out_of(ip, sizeof(ip));

	ip_write(m->env.client_ip, &o);
	mail_log_begin(&l, LOG_LVL_INFO, "accepted", mail);
	log_span(&l, "client", out_span(&o));
	log_span(&l, "helo", m->env.helo);
	if (m->env.auth_user.n)
		log_span(&l, "user", m->env.auth_user);
	log_span(&l, "from", m->env.sender);
	if (m->env.message_id.n)
		log_span(&l, "message_id", m->env.message_id);
	log_u64(&l, "nrcpt", m->env.nrcpt);
	log_u64(&l, "size", m->body_len);
	if (m->state == MSG_HELD)
		log_span(&l, "held", m->hold_reason);
	log_emit(&l);
}

/* Says 250 to whoever waits, and begins delivery. */
static void mail_accept(struct mail *mail, enum msg_state state, struct span reason)
{
	char id[MSG_ID_TEXT + 1];
	struct reply r;

	set_state(mail, state, reason);
	mail->accepted = true;
	counter_add(C_MSG_ACCEPTED, 1);
	counter_add(C_RCPT_ACCEPTED, mail->m->env.nrcpt);
	counter_add(C_MSG_BYTES, mail->m->body_len);
	log_accepted(mail);
	if (mail->session) {
		msg_id_text(mail->m->id, id);
		reply_set(&r, 250, "2.0.0", "Ok: queued as %s", id);
		inbound_answer(mail->session, &r);
		mail->session = NULL;
	}
	mail_count(mail);
	if (state == MSG_QUEUED)
		outbound_put(mail);
	else
		outbound_rest(mail);
}

static void mail_refuse(struct mail *mail, const struct reply *r)
{
	struct logline l;
	char text[REPLY_TEXT_MAX + 32];
	struct out o = out_of(text, sizeof(text));

	counter_add(C_MSG_REFUSED, 1);
	reply_line(r, &o);
	mail_log_begin(&l, LOG_LVL_INFO, "refused", mail);
	log_span(&l, "from", mail->m->env.sender);
	log_span(&l, "reply", out_span(&o));
	log_emit(&l);
	store_note_refused(mail->m->store, mail->m->id, &mail->m->env, SPAN_NONE, mail->m->body_len, r);
	if (mail->session) {
		inbound_answer(mail->session, r);
		mail->session = NULL;
	}
	drop_all(mail);
}

/* Nobody waits for the answer any more and perhaps somebody was told 250 before a crash: what may not be delivered is kept for the postmaster. */
static void mail_decide_recovered(struct mail *mail)
{
	char buf[HOLD_REASON_MAX];
	struct out o = out_of(buf, sizeof(buf));
	struct logline l;

	if (mail->verdict == VERDICT_CLEAN && !mail->m->env.hold.n) {
		set_state(mail, MSG_QUEUED, SPAN_NONE);
		outbound_put(mail);
		return;
	}
	if (mail->verdict == VERDICT_CLEAN) {
		out_add(&o, mail->m->env.hold);
	} else {
		out_str(&o, mail->verdict == VERDICT_INFECTED ? "infected: " : "could not be scanned: ");
		out_str(&o, mail->verdict_name);
	}
	set_state(mail, MSG_HELD, out_span(&o));
	mail_log_begin(&l, LOG_LVL_WARN, "held", mail);
	log_span(&l, "reason", out_span(&o));
	log_emit(&l);
	outbound_rest(mail);
}

static void mail_hold_found(struct mail *mail, const char *what)
{
	char buf[HOLD_REASON_MAX];
	struct out o = out_of(buf, sizeof(buf));

	out_str(&o, what);
	out_str(&o, mail->verdict_name);
	mail_accept(mail, MSG_HELD, out_span(&o));
}

static void content_found(const struct mail *mail, enum rule r, enum policy_mode done)
{
	clients_content(mail->w, mail->m->env.client_ip, r);
	rule_count(r, (enum snap_class)mail->class_, done);
}

/* Committed and judged: the only place that can lead to a 250. */
static void mail_decide(struct mail *mail)
{
	struct reply r;
	char id[MSG_ID_TEXT + 1];

	if (!mail->durable || mail->verdict == VERDICT_NONE)
		return;
	if (mail->m->env.flags & ENV_INTERNAL) {
		mail_count(mail);
		outbound_put(mail);
		return;
	}
	if (mail->accepted) {
		mail_decide_recovered(mail);
		return;
	}
	switch ((enum mail_verdict)mail->verdict) {
	case VERDICT_CLEAN:
		mail_accept(mail, mail->m->env.hold.n ? MSG_HELD : MSG_QUEUED, mail->m->env.hold);
		break;
	case VERDICT_INFECTED:
		counter_add(C_MSG_INFECTED, 1);
		content_found(mail, RULE_MALWARE, mail->hold_infected ? POLICY_HOLD : POLICY_REJECT);
		if (mail->hold_infected) {
			mail_hold_found(mail, "infected: ");
			break;
		}
		msg_id_text(mail->m->id, id);
		reply_set(&r, 550, "5.7.1", "Message refused: it contains malware (%s); reference %s", mail->verdict_name, id);
		policy_help(&mail->w->cfg->snap, RULE_MALWARE, &r);
		mail_refuse(mail, &r);
		break;
	case VERDICT_SUSPECT:
		mail_accept(mail, MSG_HELD, SPAN("suspect: scanners died on it"));
		break;
	case VERDICT_UNSCANNED:
	case VERDICT_NONE:
		content_found(mail, RULE_UNSCANNED, mail->hold_unscanned ? POLICY_HOLD : POLICY_DEFER);
		if (mail->hold_unscanned) {
			mail_accept(mail, MSG_HELD, SPAN("could not be scanned"));
			break;
		}
		reply_set(&r, 451, "4.7.0", "Message could not be scanned (%s), try again later", mail->verdict_name);
		policy_help(&mail->w->cfg->snap, RULE_UNSCANNED, &r);
		mail_refuse(mail, &r);
		break;
	}
}

void mail_durable(struct mail *mail)
{
	mail->durable = true;
	mail_decide(mail);
}

void mail_failed(struct mail *mail, const char *reason)
{
	struct store_msg *m = mail->m;
	struct logline l;
	struct reply r;

	mail_log_begin(&l, LOG_LVL_ERROR, "spool-failed", mail);
	log_str(&l, "reason", reason);
	log_emit(&l);
	if (mail->session) {
		reply_set(&r, 451, "4.3.0", "Message could not be stored, try again later");
		inbound_answer(mail->session, &r);
	}
	counter_add(C_MSG_REFUSED, 1);
	mail_drop(mail);
	store_forget(m);
}

void mail_verdict(struct mail *mail, enum mail_verdict v, struct span name)
{
	struct out o = out_of(mail->verdict_name, sizeof(mail->verdict_name) - 1);

	out_add(&o, name);
	mail->verdict_name[o.n] = '\0';
	mail->verdict = (uint8_t)v;
	mail_decide(mail);
}

void mail_count_recovered(const struct store_row *row)
{
	counter_add(C_QUEUE_MSGS, 1);
	counter_add(C_QUEUE_RCPTS, row->open);
	if (row->state == MSG_HELD)
		counter_add(C_HELD_MSGS, 1);
}

struct mail *mail_woken(struct worker *w, struct store_msg *m)
{
	struct mail *mail = mail_new(w);
	struct store_row row;

	if (!mail) {
		if (store_park(m, w->now_ns + NS_PER_S, 0) != ST_OK)
			log_msg(LOG_LVL_ERROR, "out-of-memory", "a message stays in memory without anybody to deliver it until the next start");
		return NULL;
	}
	mail->on_hold = store_row(m->store, m->id, &row) && (row.tag & HOLD_TAG);
	if (mail->on_hold)
		holds_woken(w->holds, row.tag, m->body_len);
	mail->m = m;
	m->user = mail;
	mail->durable = true;
	mail->accepted = true;
	mail->counted = true;
	return mail;
}

void mail_go_on(struct mail *mail)
{
	struct worker *w = mail->w;

	if (mail->m->state != MSG_PENDING) {
		mail->verdict = VERDICT_CLEAN;
		if (mail->m->state == MSG_QUEUED)
			outbound_put(mail);
		else
			outbound_rest(mail);
	} else if (!mail->scan_slot && scan_post(w->scan, mail, true) != ST_OK) {
		mail_park(mail, w->now_ns + NS_PER_S, 0); /* there are scanners for so many only */
	}
}

/* What waits for a hold is counted. */
static bool park(struct mail *mail, uint64_t due_ns, uint32_t tag)
{
	uint64_t bytes = mail->m->body_len, arrived = mail->m->env.arrived_ns;
	bool ok = store_park(mail->m, due_ns, tag) == ST_OK;

	if (ok && (tag & HOLD_TAG))
		holds_parked(mail->w->holds, tag, bytes, arrived);
	return ok;
}

bool mail_park(struct mail *mail, uint64_t due_ns, uint32_t tag)
{
	if (mail->deliveries || mail->bounces || mail->nfailed || mail->scan_slot || !mail->durable || !park(mail, due_ns, tag))
		return false;
	wheel_cancel(mail->w->wheel, &mail->retry);
	free(mail);
	return true;
}

void mail_settle(struct mail *mail, uint32_t i, enum rcpt_state state, const struct reply *reply, uint64_t next_ns, struct remote remote)
{
	static const char *const event[] = { [RCPT_QUEUED] = "deferred", [RCPT_DELIVERED] = "delivered", [RCPT_BOUNCED] = "bounced",
		[RCPT_DELETED] = "deleted", [RCPT_DROPPED] = "dropped" };
	static const enum counter counter[] = { [RCPT_QUEUED] = C_RCPT_DEFERRED, [RCPT_DELIVERED] = C_RCPT_DELIVERED,
		[RCPT_BOUNCED] = C_RCPT_BOUNCED, [RCPT_DELETED] = C_RCPT_DELETED, [RCPT_DROPPED] = C_RCPT_DELETED };
	char text[REPLY_TEXT_MAX + 32];
	struct out o = out_of(text, sizeof(text));
	struct logline l;

	store_rcpt_at(mail->m, i, state, reply, next_ns, remote.host);
	counter_add(counter[state], 1);
	if (state != RCPT_QUEUED && mail->counted)
		counter_sub(C_QUEUE_RCPTS, 1);
	mail_log_begin(&l, LOG_LVL_INFO, event[state], mail);
	log_span(&l, "to", mail->m->env.rcpt[i].addr);
	if (remote.host.n)
		log_span(&l, "remote", remote.host);
	if (remote.policy.n) {
		log_span(&l, "tls_policy", remote.policy);
		log_span(&l, "tls", remote.tls);
	}
	if (reply) {
		reply_line(reply, &o);
		log_span(&l, "reply", out_span(&o));
	}
	if (state == RCPT_QUEUED)
		log_u64(&l, "attempts", mail->m->rcpt[i].attempts);
	else
		log_f(&l, "delay", "%.3f", (double)(clock_steady_ns() - mail->m->env.arrived_ns) / 1e9);
	log_emit(&l);
}

void mail_finish(struct mail *mail)
{
	struct store_msg *m = mail->m;

	if (m->open_rcpts || mail->deliveries || mail->bounces || mail->nfailed)
		return;
	mail_drop(mail);
	store_forget(m);
}

void mail_hold(struct mail *mail, struct span reason)
{
	if (mail->m->state != MSG_QUEUED)
		return;
	set_state(mail, MSG_HELD, reason);
	outbound_withdraw(mail);
	outbound_rest(mail);
}

void mail_release(struct mail *mail, struct span who)
{
	struct logline l;
	char why[LEDGER_TEXT_MAX];
	struct out o = out_of(why, sizeof(why));

	if (mail->m->state != MSG_HELD)
		return;
	out_str(&o, "released by ");
	out_add(&o, who);
	set_state(mail, MSG_QUEUED, out_span(&o));
	mail_log_begin(&l, LOG_LVL_INFO, "released", mail);
	log_span(&l, "by", who);
	log_emit(&l);
	outbound_put(mail);
}

uint32_t mail_delete(struct mail *mail, struct span who)
{
	struct store_msg *m = mail->m;
	struct reply r;
	uint32_t n = 0;

	outbound_withdraw(mail);
	reply_set(&r, 554, "5.7.0", "deleted by %.*s", SPAN_FMT(who));
	for (uint32_t i = 0; i < m->env.nrcpt; i++)
		if (m->rcpt[i].state == RCPT_QUEUED && !m->rcpt[i].busy) {
			mail_settle(mail, i, RCPT_DELETED, &r, 0, REMOTE_NONE);
			n++;
		}
	mail_finish(mail);
	return n;
}
