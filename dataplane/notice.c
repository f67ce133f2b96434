#include "dataplane/notice.h"

#include <stdlib.h>
#include "dataplane/mail.h"
#include "dataplane/recipient.h"
#include "spool/base/clock.h"
#include "spool/mail/address.h"
#include "spool/mail/header.h"

enum { HEAD_ROOM = 4096, LINE_MAX = 900 };

static void add_text(struct out *o, struct span s)
{
	for (size_t i = 0; i < s.n; i++)
		out_char(o, (s.p[i] >= ' ' && s.p[i] <= '~') || s.p[i] == '\t' ? s.p[i] : '?');
}

static void write_notice(const struct worker *w, const char *to, const char *subject, struct span text, struct out *o)
{
	struct span host = snap_span(&w->cfg->snap, w->cfg->set->hostname);

	out_str(o, "From: MAILER-DAEMON@");
	out_add(o, host);
	out_str(o, "\r\nTo: ");
	add_text(o, span_str(to));
	out_str(o, "\r\nSubject: ");
	add_text(o, span_str(subject));
	out_str(o, "\r\nDate: ");
	date_write(clock_wall_ns(), o);
	out_fmt(o, "\r\nMessage-ID: <notice.%llx.%llx@", (unsigned long long)clock_wall_ns(), (unsigned long long)clock_mono_ns());
	out_add(o, host);
	out_str(o, ">\r\nAuto-Submitted: auto-generated\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\n");
	while (text.n) {
		struct span line = span_cut(&text, '\n');

		add_text(o, span_of(line.p, line.n > LINE_MAX ? LINE_MAX : line.n));
		out_str(o, "\r\n");
	}
}

static enum status put(struct worker *w, const struct envelope *env, struct span message, struct mail **ret)
{
	struct store *s = worker_store(w);
	struct reply r;
	struct body *body;
	enum status st = s ? body_new(s, message.n, &body) : ST_IO;

	if (st != ST_OK)
		return st;
	st = body_append(body, message);
	if (st != ST_OK) {
		body_drop(body);
		return st;
	}
	if (memmem(message.p, message.n, "\n.", 2))
		body_mark_dot_lines(body);
	return mail_seal(w, env, body, NULL, ret, &r);
}

const char *notice_send(struct worker *w, const char *to, const char *subject, struct span text)
{
	struct envelope env = { .arrived_ns = clock_steady_ns(), .flags = ENV_INTERNAL | ENV_ESMTP, .body = BODY_7BIT };
	size_t room = HEAD_ROOM + text.n * 2;
	char *message;
	struct address a;
	struct logline l;
	struct mail *mail;
	struct pool work;
	struct out o;
	enum status st;

	if (!to || address_parse(span_str(to), 0, &a) != ST_OK)
		return "to is an address";
	message = malloc(room);
	if (!message)
		return "out of memory";
	o = out_of(message, room);
	pool_init(&work, w->cfg->set->transaction_max);
	st = recipient_of_ours(w, span_str(to), &work, &env);
	write_notice(w, to, subject ? subject : "", text, &o);
	if (st == ST_OK)
		st = o.over ? ST_TOO_BIG : put(w, &env, out_span(&o), &mail);
	if (st == ST_OK) {
		mail_log_begin(&l, LOG_LVL_INFO, "notice", mail);
		log_str(&l, "to", to);
		log_str(&l, "subject", subject ? subject : "");
		log_emit(&l);
	}
	pool_reset(&work);
	free(message);
	return st == ST_OK ? NULL : "the spool does not take it";
}
