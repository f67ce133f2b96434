#include "dataplane/bounce.h"

#include <stdlib.h>
#include "dataplane/outbound.h"
#include "dataplane/recipient.h"
#include "dataplane/report_limits.h"
#include "spool/base/clock.h"
#include "spool/base/counters.h"
#include "spool/mail/address.h"
#include "spool/mail/header.h"

enum { HEAD_MAX = 64 * 1024, BODY_MAX = 64 * 1024, DSN_ROOM = 64 * 1024, RCPT_ROOM = 2 * REPLY_TEXT_MAX + 4096 /* its reply and its addresses, twice */ };

struct bounce {
	struct mail *mail;
	enum dsn_action action;
	struct bounce_rcpt *rcpt;
	uint32_t nrcpt;
	struct body_reader *reader;
	size_t got;              /* bytes of the original in text */
	char text[HEAD_MAX + BODY_MAX];
};

void bounce_rcpt_set(struct bounce_rcpt *r, uint32_t index, const struct reply *reply, struct remote remote)
{
	struct out host = out_of(r->remote, sizeof(r->remote) - 1), tls = out_of(r->tls, sizeof(r->tls) - 1);

	r->index = index;
	r->reply = *reply;
	r->policy = remote.policy;
	r->expired_ns = 0;
	out_add(&host, remote.host);
	out_add(&tls, remote.tls);
	r->remote[host.n] = r->tls[tls.n] = '\0';
}

/* What the log and the ledger say of it. */
static void expired(const struct reply *last, struct reply *ret)
{
	char text[REPLY_TEXT_MAX];
	struct out o = out_of(text, sizeof(text));

	reply_line(last, &o);
	reply_set(ret, 554, "5.4.7", "Delivery time expired; last: %.*s", SPAN_FMT(out_span(&o)));
}

static void settle_all(struct bounce *b, enum rcpt_state state)
{
	struct mail *mail = b->mail;
	uint64_t next = clock_steady_ns() + mail->w->cfg->set->retry_first_ns;

	for (uint32_t k = 0; k < b->nrcpt; k++) {
		const struct bounce_rcpt *r = &b->rcpt[k];

		struct reply final = r->reply;

		if (r->expired_ns && state == RCPT_BOUNCED)
			expired(&r->reply, &final);
		mail->m->rcpt[r->index].busy = 0;
		mail_settle(mail, r->index, state, &final, state == RCPT_QUEUED ? next : 0,
			(struct remote){ .host = span_str(r->remote), .policy = r->policy, .tls = span_str(r->tls) });
	}
}

static void bounce_free(struct bounce *b)
{
	struct mail *mail = b->mail;

	if (b->reader)
		store_read_close(b->reader);
	free(b->rcpt);
	free(b);
	mail->bounces--;
	outbound_count_report(mail->w, -1);
	outbound_rest(mail);
}

/* Who hears of it: the sender; of the failure of a message without one the postmaster (double bounce, A10); nobody for a failed double bounce. */
static struct span addressee(const struct bounce *b)
{
	const struct mail *mail = b->mail;
	const struct worker *w = mail->w;

	if (mail->m->env.sender.n)
		return mail->m->env.sender;
	if (b->action != DSN_FAILED || (mail->m->env.flags & ENV_DOUBLE_BOUNCE))
		return SPAN_NONE;
	return snap_span(&w->cfg->snap, w->cfg->set->postmaster);
}

static bool wants(const struct bounce *b, const struct env_rcpt *r)
{
	if (b->action != DSN_FAILED || !b->mail->m->env.sender.n)
		return true; /* who asks for the others is looked at when they arise (outcome.c); the postmaster is not asked */
	return r->notify == 0 || (r->notify & NOTIFY_FAILURE);
}

/* The recipients to report on. Gives their number. */
static size_t report_rows(const struct bounce *b, struct dsn_rcpt *rcpt)
{
	const struct store_msg *m = b->mail->m;
	size_t n = 0;

	for (uint32_t k = 0; k < b->nrcpt; k++) {
		const struct env_rcpt *r = &m->env.rcpt[b->rcpt[k].index];

		if (!wants(b, r))
			continue;
		rcpt[n++] = (struct dsn_rcpt){ .rcpt = r, .action = b->action, .reply = &b->rcpt[k].reply, .remote = span_str(b->rcpt[k].remote),
			.expired_ns = b->rcpt[k].expired_ns, .last_attempt_wall_ns = clock_wall_ns(),
			.will_retry_until_wall_ns = b->action == DSN_DELAYED ? m->env.arrived_ns + b->mail->w->cfg->set->queue_life_ns : 0 };
	}
	return n;
}

/* The message failed because it is 8-bit (RFC 3463 X.6.3): a notification that is 8-bit as well may fail by the same hop. */
static bool failed_by_8_bit(const struct bounce *b)
{
	for (uint32_t k = 0; k < b->nrcpt; k++)
		if (b->rcpt[k].reply.enhanced[1] == 6 && b->rcpt[k].reply.enhanced[2] == 3)
			return true;
	return false;
}

/* RET=HDRS is obeyed; without RET a failure returns the message when it is small. With REQUIRETLS always as with RET=HDRS (RFC 8689 5). */
static bool is_returned_whole(const struct bounce *b)
{
	const struct store_msg *m = b->mail->m;

	return b->action == DSN_FAILED && m->env.ret != RET_HDRS && !(m->env.flags & ENV_REQUIRETLS) && m->body_len == b->got && !failed_by_8_bit(b);
}

static enum status write_dsn(struct bounce *b, const struct dsn_rcpt *rcpt, size_t n, struct out *o, struct span to)
{
	struct worker *w = b->mail->w;
	const struct store_msg *m = b->mail->m;
	struct span host = snap_span(&w->cfg->snap, w->cfg->set->hostname), all = span_of(b->text, b->got);
	const char *end = all.n ? memmem(all.p, all.n, "\r\n\r\n", 4) : NULL;
	size_t head = end ? (size_t)(end - all.p) + 2 : all.n;
	char from[320], id[MSG_ID_TEXT + 1], own_id[48];
	struct out f = out_of(from, sizeof(from)), oid = out_of(own_id, sizeof(own_id));
	struct dsn d;

	msg_id_text(m->id, id);
	out_fmt(&oid, "%s.%u.%llx", id, (unsigned)b->action, (unsigned long long)clock_wall_ns());
	out_str(&f, "MAILER-DAEMON@");
	out_add(&f, host);
	d = (struct dsn){ .hostname = host, .id = out_span(&oid), .original_id = span_str(id), .to = to, .from = out_span(&f),
		.now_wall_ns = clock_wall_ns(), .original = &m->env, .rcpt = rcpt, .nrcpt = n,
		.original_head = span_of(all.p, head), .whole = is_returned_whole(b) };
	d.original_body = d.whole ? span_skip(all, head) : SPAN_NONE;
	dsn_write(&d, o);
	return o->over ? trail(ST_TOO_BIG, "the notification does not fit") : ST_OK;
}

static bool is_ascii(struct span s)
{
	for (size_t i = 0; i < s.n; i++)
		if (s.p[i] & 0x80)
			return false;
	return true;
}

/* It carries on where the original came from, and what the original demands of its way. */
static void dsn_envelope(const struct envelope *original, struct span text, struct envelope *env)
{
	env->arrived_ns = clock_steady_ns();
	memcpy(env->client_ip, original->client_ip, sizeof(env->client_ip));
	env->body = is_ascii(text) ? BODY_7BIT : BODY_8BITMIME;
	env->flags = ENV_INTERNAL | ENV_ESMTP | (original->flags & (ENV_SMTPUTF8 | ENV_REQUIRETLS));
	env->flags |= header_flags(text, env);
	env->message_id = header_message_id(text);
	if (!original->sender.n)
		env->flags |= ENV_DOUBLE_BOUNCE;
}

/* Puts it into the spool: into the partition of the outcomes that follow, so that they are one commit. */
static enum status seal_dsn(const struct mail *mail, struct span text, const struct envelope *env, struct mail **ret)
{
	struct body *body;
	struct reply r;
	enum status st = body_new(mail->m->store, text.n, &body);

	if (st != ST_OK)
		return st;
	st = body_append(body, text);
	if (st != ST_OK) {
		body_drop(body);
		return st;
	}
	if (memmem(text.p, text.n, "\n.", 2))
		body_mark_dot_lines(body);
	return mail_seal(mail->w, env, body, NULL, ret, &r);
}

static enum status store_dsn(struct bounce *b, struct span text, struct span to)
{
	struct worker *w = b->mail->w;
	struct envelope env = { 0 };
	struct mail *dsn;
	struct pool work;
	struct logline l;
	char id[MSG_ID_TEXT + 1];
	enum status st;

	pool_init(&work, w->cfg->set->transaction_max);
	dsn_envelope(&b->mail->m->env, text, &env);
	st = recipient_of_ours(w, to, &work, &env);
	if (st == ST_OK)
		st = seal_dsn(b->mail, text, &env, &dsn);
	pool_reset(&work);
	if (st != ST_OK)
		return st;
	counter_add(C_DSN_SENT, 1);
	counter_add(C_DSN_DOUBLE, (env.flags & ENV_DOUBLE_BOUNCE) != 0);
	mail_log_begin(&l, LOG_LVL_INFO, b->action == DSN_DELAYED ? "delay-notice" : "dsn", dsn);
	msg_id_text(b->mail->m->id, id);
	log_str(&l, "for", id);
	log_span(&l, "to", to);
	log_emit(&l);
	return ST_OK;
}

/* Whether the limits allow it; if not, that is counted and logged. */
static bool is_allowed(struct bounce *b, const struct dsn_rcpt *first, struct span to)
{
	struct worker *w = b->mail->w;
	const struct envelope *env = &b->mail->m->env;
	bool twice = !env->sender.n;
	const char *limit = report_limit(w->report_limits, &(struct report_ask){ .set = w->cfg->set, .now_ns = w->now_ns, .to = to, .host = env->client_ip,
		.double_bounce = twice, .failed_rcpt = first->rcpt->addr });
	struct logline l;
	char ip[48];
	struct out o = out_of(ip, sizeof(ip));

	if (!limit)
		return true;
	counter_add(twice ? C_DSN_DOUBLE_SUPPRESSED : C_DSN_SUPPRESSED, 1);
	ip_write(env->client_ip, &o);
	mail_log_begin(&l, LOG_LVL_INFO, "dsn-suppressed", b->mail);
	log_span(&l, "to", to);
	log_span(&l, "client", out_span(&o));
	log_str(&l, "limit", limit);
	log_emit(&l);
	return false;
}

/* ST_NOT_FOUND: nobody is to be told. */
static enum status put_dsn(struct bounce *b, struct span to)
{
	struct dsn_rcpt *rcpt = calloc(b->nrcpt, sizeof(*rcpt));
	size_t room = b->got + DSN_ROOM + (size_t)b->nrcpt * RCPT_ROOM, n;
	char *text = malloc(room);
	struct out o = out_of(text, room);
	enum status st = ST_NOMEM;

	if (!text || !rcpt)
		goto out;
	n = report_rows(b, rcpt);
	st = ST_NOT_FOUND;
	if (!n || !is_allowed(b, rcpt, to))
		goto out;
	st = write_dsn(b, rcpt, n, &o, to);
	if (st == ST_OK)
		st = store_dsn(b, out_span(&o), to);
out:
	free(text);
	free(rcpt);
	return st;
}

static void bounce_finish(struct bounce *b)
{
	struct span to = addressee(b);
	enum status st = to.n ? put_dsn(b, to) : ST_NOT_FOUND;
	bool stored = st == ST_OK || st == ST_NOT_FOUND;

	if (!stored)
		log_msg(LOG_LVL_WARN, "dsn-failed", "a notification could not be stored%s: %s",
			b->action == DSN_FAILED ? ", the recipients stay queued" : "", trail_text());
	switch (b->action) {
	case DSN_FAILED:
		settle_all(b, stored ? RCPT_BOUNCED : RCPT_QUEUED);
		break;
	case DSN_DELIVERED:
	case DSN_RELAYED:
	case DSN_EXPANDED:
		settle_all(b, RCPT_DELIVERED); /* it was: whatever becomes of the report */
		break;
	case DSN_DELAYED:
		break;
	}
	bounce_free(b);
}

/* Collects the original as far as it fits; what is read decides nothing, so that an unreadable original is reported without its header. */
static void bounce_go(struct bounce *b)
{
	struct span piece;
	enum status st = ST_OK;

	while (b->reader && b->got < sizeof(b->text) && (st = store_read(b->reader, &piece)) == ST_OK) {
		size_t n = piece.n < sizeof(b->text) - b->got ? piece.n : sizeof(b->text) - b->got;

		memcpy(b->text + b->got, piece.p, n);
		b->got += n;
	}
	if (st != ST_AGAIN)
		bounce_finish(b);
}

void bounce_begin(struct mail *mail, enum dsn_action action, struct bounce_rcpt *rcpt, uint32_t n)
{
	struct bounce *b = malloc(sizeof(*b));

	CHECK(b);
	b->mail = mail;
	b->action = action;
	b->nrcpt = n;
	b->rcpt = rcpt;
	b->reader = NULL;
	b->got = 0;
	mail->bounces++;
	outbound_count_report(mail->w, 1);
	if (store_read_open(mail->m, (uint64_t)(uintptr_t)b | 1, &b->reader) != ST_OK)
		b->reader = NULL;
	bounce_go(b);
}

void bounce_read(struct worker *w, uint64_t cookie)
{
	(void)w;
	bounce_go((struct bounce *)(uintptr_t)(cookie & ~1ull));
}
