#include "dataplane/bounce.h"

#include <stdlib.h>
#include "dataplane/outbound.h"
#include "dataplane/recipient.h"
#include "spool/base/clock.h"
#include "spool/base/counters.h"

enum { HEAD_MAX = 64 * 1024, BODY_MAX = 64 * 1024, DSN_ROOM = 64 * 1024 };

struct bounce {
	struct mail *mail;
	enum dsn_action action;
	struct bounce_rcpt *rcpt;
	uint32_t nrcpt;
	struct body_reader *reader;
	char remote[256];
	size_t got;              /* bytes of the original in text */
	char text[HEAD_MAX + BODY_MAX];
};

static void settle_all(struct bounce *b, enum rcpt_state state)
{
	struct mail *mail = b->mail;
	uint64_t next = clock_steady_ns() + mail->w->cfg->set->retry_first_ns;

	for (uint32_t k = 0; k < b->nrcpt; k++) {
		mail->m->rcpt[b->rcpt[k].index].busy = 0;
		mail_settle(mail, b->rcpt[k].index, state, &b->rcpt[k].reply, state == RCPT_QUEUED ? next : 0, (struct remote){ .host = span_str(b->remote) });
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
	outbound_rest(mail);
}

/* Who hears of it: the sender; for a message without one the postmaster (double bounce, A10); nobody for a failed double bounce. */
static struct span addressee(const struct mail *mail)
{
	const struct worker *w = mail->w;

	if (mail->m->env.sender.n)
		return mail->m->env.sender;
	if (mail->m->env.flags & ENV_DOUBLE_BOUNCE)
		return SPAN_NONE;
	return snap_span(&w->cfg->snap, w->cfg->set->postmaster);
}

static bool wants_failure(const struct env_rcpt *r)
{
	return r->notify == 0 || (r->notify & NOTIFY_FAILURE);
}

/* The message failed because it is 8-bit (RFC 3463 X.6.3): a notification that is 8-bit as well may fail by the same hop. */
static bool failed_by_8_bit(const struct bounce *b)
{
	for (uint32_t k = 0; k < b->nrcpt; k++)
		if (b->rcpt[k].reply.enhanced[1] == 6 && b->rcpt[k].reply.enhanced[2] == 3)
			return true;
	return false;
}

static bool is_ascii(struct span s)
{
	for (size_t i = 0; i < s.n; i++)
		if (s.p[i] & 0x80)
			return false;
	return true;
}

/* Writes the notification. ST_NOT_FOUND: nobody is to be told. */
static enum status write_dsn(struct bounce *b, struct out *o, struct span to)
{
	struct mail *mail = b->mail;
	struct worker *w = mail->w;
	const struct store_msg *m = mail->m;
	struct dsn_rcpt *rcpt = calloc(b->nrcpt, sizeof(*rcpt));
	struct span host = snap_span(&w->cfg->snap, w->cfg->set->hostname), all = span_of(b->text, b->got);
	const char *end = all.n ? memmem(all.p, all.n, "\r\n\r\n", 4) : NULL;
	size_t head = end ? (size_t)(end - all.p) + 2 : all.n;
	char from[320], id[MSG_ID_TEXT + 1], own_id[48];
	struct out f = out_of(from, sizeof(from)), oid = out_of(own_id, sizeof(own_id));
	bool double_bounce = !m->env.sender.n;
	size_t n = 0;

	if (!rcpt)
		return ST_NOMEM;
	for (uint32_t k = 0; k < b->nrcpt; k++) {
		const struct env_rcpt *r = &m->env.rcpt[b->rcpt[k].index];

		if (b->action == DSN_FAILED && !double_bounce && !wants_failure(r))
			continue;
		rcpt[n++] = (struct dsn_rcpt){ .rcpt = r, .action = b->action, .reply = &b->rcpt[k].reply, .remote = span_str(b->remote),
			.last_attempt_wall_ns = clock_wall_ns(),
			.will_retry_until_wall_ns = b->action == DSN_DELAYED ? m->env.arrived_ns + w->cfg->set->queue_life_ns : 0 };
	}
	msg_id_text(m->id, id);
	out_fmt(&oid, "%s.%u.%llx", id, (unsigned)b->action, (unsigned long long)clock_wall_ns());
	out_str(&f, "MAILER-DAEMON@");
	out_add(&f, host);
	if (n) {
		struct dsn d = { .hostname = host, .id = out_span(&oid), .original_id = span_str(id), .to = to, .from = out_span(&f),
			.now_wall_ns = clock_wall_ns(), .original = &m->env, .rcpt = rcpt, .nrcpt = n,
			.original_head = span_of(all.p, head),
			.whole = m->env.ret != RET_HDRS && b->action == DSN_FAILED && m->body_len == b->got && !failed_by_8_bit(b) };

		d.original_body = d.whole ? span_skip(all, head) : SPAN_NONE;
		dsn_write(&d, o);
	}
	free(rcpt);
	return !n ? ST_NOT_FOUND : o->over ? trail(ST_TOO_BIG, "the notification does not fit") : ST_OK;
}

/* Puts the notification into the spool, in the same commit as the outcomes that follow. */
static enum status put_dsn(struct bounce *b, struct span to)
{
	struct mail *mail = b->mail, *dsn;
	struct worker *w = mail->w;
	size_t room = b->got + DSN_ROOM + (size_t)b->nrcpt * (REPLY_TEXT_MAX * 2 + 2048);
	char *text = malloc(room);
	struct out o = out_of(text, room);
	struct envelope env = { .arrived_ns = clock_steady_ns(), .flags = ENV_INTERNAL | ENV_ESMTP };
	struct pool work;
	struct body *body;
	struct reply r;
	struct logline l;
	char id[MSG_ID_TEXT + 1];
	enum status st;

	if (!text)
		return ST_NOMEM;
	pool_init(&work, w->cfg->set->transaction_max);
	st = recipient_of_ours(w, to, &work, &env);
	if (st == ST_OK)
		st = write_dsn(b, &o, to);
	if (st != ST_OK)
		goto out;
	if (!mail->m->env.sender.n)
		env.flags |= ENV_DOUBLE_BOUNCE;
	env.body = is_ascii(out_span(&o)) ? BODY_7BIT : BODY_8BITMIME;
	env.flags |= mail->m->env.flags & ENV_SMTPUTF8;
	st = body_new(mail->m->store, o.n, &body); /* the partition of the outcomes, so that they are one batch */
	if (st != ST_OK)
		goto out;
	st = body_append(body, out_span(&o));
	if (st != ST_OK) {
		body_drop(body);
		goto out;
	}
	if (memmem(o.p, o.n, "\n.", 2))
		body_mark_dot_lines(body);
	st = mail_seal(w, &env, body, NULL, &dsn, &r);
	if (st != ST_OK)
		goto out;
	counter_add(C_DSN_SENT, 1);
	counter_add(C_DSN_DOUBLE, (env.flags & ENV_DOUBLE_BOUNCE) != 0);
	mail_log_begin(&l, LOG_LVL_INFO, b->action == DSN_DELAYED ? "delay-notice" : "dsn", dsn);
	msg_id_text(mail->m->id, id);
	log_str(&l, "for", id);
	log_span(&l, "to", to);
	log_emit(&l);
out:
	pool_reset(&work);
	free(text);
	return st;
}

static void bounce_finish(struct bounce *b)
{
	struct span to = addressee(b->mail);
	enum status st = to.n ? put_dsn(b, to) : ST_NOT_FOUND;

	if (b->action == DSN_FAILED) {
		if (st == ST_OK || st == ST_NOT_FOUND) {
			settle_all(b, RCPT_BOUNCED);
		} else {
			log_msg(LOG_LVL_WARN, "dsn-failed", "a notification could not be stored, the recipients stay queued: %s", trail_text());
			settle_all(b, RCPT_QUEUED);
		}
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

void bounce_begin(struct mail *mail, enum dsn_action action, const struct bounce_rcpt *rcpt, uint32_t n, struct span remote)
{
	struct bounce *b = malloc(sizeof(*b));
	struct out o;

	CHECK(b);
	b->mail = mail;
	b->action = action;
	b->nrcpt = n;
	b->reader = NULL;
	b->got = 0;
	b->rcpt = malloc(n * sizeof(*rcpt));
	CHECK(b->rcpt);
	memcpy(b->rcpt, rcpt, n * sizeof(*rcpt));
	o = out_of(b->remote, sizeof(b->remote) - 1);
	out_add(&o, remote);
	b->remote[o.n] = '\0';
	mail->bounces++;
	if (store_read_open(mail->m, (uint64_t)(uintptr_t)b | 1, &b->reader) != ST_OK)
		b->reader = NULL;
	bounce_go(b);
}

void bounce_read(struct worker *w, uint64_t cookie)
{
	(void)w;
	bounce_go((struct bounce *)(uintptr_t)(cookie & ~1ull));
}
