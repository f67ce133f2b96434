#include "spool/mail/reply.h"

#include <stdarg.h>
#include <stdio.h>
#include "spool/base/status.h"

enum { LINE_TEXT_MAX = 490 }; /* so that code, enhanced code and CRLF stay within 512 octets (RFC 5321 4.5.3.1.5) */

static char printable(char c)
{
	return c >= ' ' && c < 0x7f ? c : '?';
}

/* "5.7.1" at the start of s; its length, or 0. Digits are bounded by RFC 3463: 1, 3, 3. */
static size_t enhanced_parse(struct span s, uint8_t ret[3])
{
	size_t i = 0;

	for (unsigned part = 0; part < 3; part++) {
		unsigned v = 0, digits = 0;

		while (i < s.n && s.p[i] >= '0' && s.p[i] <= '9' && digits < 3) {
			v = v * 10 + (unsigned)(s.p[i++] - '0');
			digits++;
		}
		if (!digits || v > 255 || (part == 0 && v != 2 && v != 4 && v != 5))
			return 0;
		if (part < 2 && (i == s.n || s.p[i++] != '.'))
			return 0;
		ret[part] = (uint8_t)v;
	}
	return i;
}

void reply_set(struct reply *r, unsigned code, const char *enhanced, const char *fmt, ...)
{
	va_list ap;
	int n;

	r->code = (uint16_t)code;
	memset(r->enhanced, 0, sizeof(r->enhanced));
	r->derived = 0;
	if (enhanced)
		CHECK(enhanced_parse(span_str(enhanced), r->enhanced) > 0);
	if (!strchr(fmt, '%')) { /* most are: printf would be a good part of what a command costs */
		n = (int)strnlen(fmt, sizeof(r->text) - 1);
		memcpy(r->text, fmt, (size_t)n);
		r->text[n] = '\0';
	} else {
		va_start(ap, fmt);
		n = vsnprintf(r->text, sizeof(r->text), fmt, ap);
		va_end(ap);
	}
	r->text_len = n < 0 ? 0 : (uint16_t)((size_t)n < sizeof(r->text) ? (size_t)n : sizeof(r->text) - 1);
	for (uint16_t i = 0; i < r->text_len; i++)
		if (r->text[i] != '\n')
			r->text[i] = printable(r->text[i]);
}

static void write_code(const struct reply *r, struct out *o, bool more)
{
	out_u64(o, r->code);
	out_char(o, more ? '-' : ' ');
	if (r->enhanced[0] && !r->derived) {
		for (unsigned part = 0; part < 3; part++) {
			out_u64(o, r->enhanced[part]);
			out_char(o, part < 2 ? '.' : ' ');
		}
	}
}

void reply_write(const struct reply *r, struct out *o)
{
	struct span rest = reply_text(r);
	bool more;

	do {
		struct span line = span_cut(&rest, '\n');

		more = rest.p != NULL;
		write_code(r, o, more);
		out_add(o, span_of(line.p, line.n > LINE_TEXT_MAX ? LINE_TEXT_MAX : line.n));
		out_str(o, "\r\n");
	} while (more);
}

void reply_add_line(struct reply *r, struct span text, bool first)
{
	uint8_t e[3];
	size_t n = enhanced_parse(text, e);

	/* the enhanced code is the first word, and its class is that of the code */
	if (n && (n == text.n || text.p[n] == ' ') && e[0] == r->code / 100) {
		if (first)
			memcpy(r->enhanced, e, sizeof(e));
		if (first || memcmp(e, r->enhanced, sizeof(e)) == 0)
			text = span_skip(text, n == text.n ? n : n + 1);
	}
	if (!first && r->text_len < REPLY_TEXT_MAX)
		r->text[r->text_len++] = '\n';
	for (size_t i = 0; i < text.n && r->text_len < REPLY_TEXT_MAX; i++)
		r->text[r->text_len++] = printable(text.p[i]);
}

/* Subject and detail; the class is that of the code. Stage REPLY_TO_SESSION stands for every stage that has no row of its own. */
static const struct meaning {
	uint16_t code;
	uint8_t stage, subject, detail;
} meaning[] = {
	{ 250, REPLY_TO_MAIL, 1, 0 },
	{ 250, REPLY_TO_RCPT, 1, 5 },
	{ 251, REPLY_TO_RCPT, 1, 5 },
	{ 421, REPLY_TO_SESSION, 3, 2 },    /* not accepting network messages */
	{ 450, REPLY_TO_RCPT, 2, 0 },       /* mailbox busy, or a policy */
	{ 451, REPLY_TO_SESSION, 3, 0 },
	{ 452, REPLY_TO_RCPT, 5, 3 },       /* RFC 5321 4.5.3.1.10: too many recipients */
	{ 452, REPLY_TO_SESSION, 3, 1 },    /* system full */
	{ 454, REPLY_TO_SESSION, 7, 0 },
	{ 500, REPLY_TO_SESSION, 5, 2 },
	{ 501, REPLY_TO_MAIL, 1, 7 },
	{ 501, REPLY_TO_RCPT, 1, 3 },
	{ 501, REPLY_TO_SESSION, 5, 4 },
	{ 502, REPLY_TO_SESSION, 5, 1 },
	{ 503, REPLY_TO_SESSION, 5, 1 },
	{ 504, REPLY_TO_SESSION, 5, 4 },
	{ 521, REPLY_TO_SESSION, 3, 2 },    /* RFC 7504 */
	{ 530, REPLY_TO_SESSION, 7, 0 },
	{ 535, REPLY_TO_SESSION, 7, 8 },
	{ 550, REPLY_TO_MAIL, 7, 1 },
	{ 550, REPLY_TO_RCPT, 1, 1 },
	{ 550, REPLY_TO_CONTENT, 7, 1 },
	{ 551, REPLY_TO_RCPT, 1, 6 },
	{ 552, REPLY_TO_RCPT, 2, 2 },       /* mailbox full */
	{ 552, REPLY_TO_SESSION, 3, 4 },    /* message too big for system */
	{ 553, REPLY_TO_MAIL, 1, 7 },
	{ 553, REPLY_TO_RCPT, 1, 3 },
	{ 555, REPLY_TO_SESSION, 5, 4 },
	{ 556, REPLY_TO_SESSION, 1, 10 },   /* RFC 7504 */
};

void reply_derive(struct reply *r, enum reply_stage stage)
{
	const struct meaning *found = NULL;

	if (r->enhanced[0])
		return;
	for (size_t i = 0; i < sizeof(meaning) / sizeof(meaning[0]); i++)
		if (meaning[i].code == r->code && (meaning[i].stage == stage || (meaning[i].stage == REPLY_TO_SESSION && !found)))
			found = &meaning[i];
	r->enhanced[0] = r->code < 300 ? 2 : r->code < 500 ? 4 : 5;
	r->enhanced[1] = found ? found->subject : 0;
	r->enhanced[2] = found ? found->detail : 0;
	r->derived = 1;
}

void reply_said(const struct reply *r, uint8_t ret[3])
{
	memset(ret, 0, 3);
	if (!r->derived)
		memcpy(ret, r->enhanced, 3);
}

const char *reply_status(const struct reply *r, char buf[12])
{
	if (r->enhanced[0])
		snprintf(buf, 12, "%u.%u.%u", r->enhanced[0], r->enhanced[1], r->enhanced[2]);
	else
		snprintf(buf, 12, "%u.0.0", r->code / 100 == 2 || r->code / 100 == 4 ? r->code / 100 : 5);
	return buf;
}

void reply_line(const struct reply *r, struct out *o)
{
	char buf[12];

	out_u64(o, r->code);
	if (r->enhanced[0] && !r->derived) {
		out_char(o, ' ');
		out_str(o, reply_status(r, buf));
	}
	out_char(o, ' ');
	for (uint16_t i = 0; i < r->text_len; i++)
		out_char(o, r->text[i] == '\n' ? ' ' : r->text[i]);
}
