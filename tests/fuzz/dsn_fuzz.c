/* Whatever a client gave as ENVID and ORCPT and whatever a remote said, a report reads back as the report that was meant (F3, P11): its fields, parts and groups are there once and in their
 * order and no others are, the returned part is as it was, no line end is bare, and what is not ASCII is only where the report says so, as UTF-8.
 *
 * Input: bytes of options (see take), then pieces that end with 0xff: sender, ENVID, then for each recipient address, ORCPT, name of the remote and reply; the rest is the message. */
#include <stdio.h>
#include <stdlib.h>
#include "dataplane/smtp/params.h"
#include "spool/mail/address.h"
#include "spool/mail/dsn.h"
#include "spool/mail/header.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { NRCPT = 3, TEXT_MAX = 1 << 16 };

struct world {
	struct smtp_server s; /* reads the parameters */
	struct env_rcpt rcpt[NRCPT];
	struct reply reply[NRCPT];
	struct dsn_rcpt row[NRCPT];
	char message[TEXT_MAX];
	struct dsn d;
};

/* ---- the report's facts, as they can come about ---- */

static struct span piece(struct span *in)
{
	return span_cut(in, (char)0xff);
}

static struct span address_or(struct span s, struct span otherwise)
{
	struct address a;

	return address_parse(s, ADDRESS_UTF8, &a) == ST_OK ? s : otherwise;
}

/* One parameter, if the server takes it. */
static void param(struct world *w, const char *key, struct span value, struct env_rcpt *rcpt)
{
	char text[2048];
	struct out o = out_of(text, sizeof(text));
	struct reply r;

	out_str(&o, key);
	out_add(&o, value);
	if (o.over || memchr(value.p ? value.p : "", ' ', value.n))
		return;
	if (rcpt && rcpt_params(&w->s, out_span(&o), rcpt, &r))
		CHECK(!value.n || rcpt->orcpt.n);
	if (!rcpt && mail_params(&w->s, out_span(&o), &r))
		w->s.env.envid = pool_span(&w->s.pool, value);
}

static void remote_reply(struct reply *r, struct span text, bool derive)
{
	bool first = true;
	struct span code = span_of(text.p, text.n < 3 ? text.n : 3);
	uint64_t v = 0;

	*r = (struct reply){ .code = span_u64(code, 599, &v) && v >= 200 ? (uint16_t)v : 554 };
	text = span_skip(text, 4);
	do {
		reply_add_line(r, span_cut(&text, '\n'), first);
		first = false;
	} while (text.p);
	if (derive)
		reply_derive(r, REPLY_TO_RCPT);
}

/* As the wire lets it through: no NUL, each CR before an LF and each LF behind a CR; then cut anywhere. */
static struct span message(struct world *w, struct span in, bool cut)
{
	struct out o = out_of(w->message, sizeof(w->message));

	for (size_t i = 0; i < in.n; i++)
		if (in.p[i] == '\n')
			out_str(&o, "\r\n");
		else if (in.p[i] && in.p[i] != '\r')
			out_char(&o, in.p[i]);
	return span_of(o.p, cut && o.n ? o.n - 1 : o.n);
}

static void take(struct world *w, const uint8_t *data, struct span in)
{
	struct span all;
	const char *end;

	w->s.env.flags = data[0] & 1 ? ENV_SMTPUTF8 : 0;
	w->d = (struct dsn){ .hostname = SPAN("relay.cam.example"), .id = SPAN("1-2.0.3"), .original_id = SPAN("1-2"), .from = SPAN("MAILER-DAEMON@relay.cam.example"),
		.now_wall_ns = 1763700000000000000, .original = &w->s.env, .rcpt = w->row, .nrcpt = 1 + data[1] % NRCPT, .whole = data[0] & 2 };
	w->d.to = w->s.env.sender = address_or(piece(&in), SPAN("s@x.example"));
	param(w, "ENVID=", piece(&in), NULL);
	w->s.env.rcpt = w->rcpt;
	w->s.env.nrcpt = (uint32_t)w->d.nrcpt;
	for (size_t i = 0; i < w->d.nrcpt; i++) {
		struct span remote;

		w->rcpt[i].addr = address_or(piece(&in), SPAN("r@y.example"));
		param(w, "ORCPT=", piece(&in), &w->rcpt[i]);
		remote = piece(&in);
		remote_reply(&w->reply[i], piece(&in), data[0] & 8);
		w->row[i] = (struct dsn_rcpt){ .rcpt = &w->rcpt[i], .action = data[1] / NRCPT % (DSN_EXPANDED + 1), .reply = &w->reply[i],
			.remote = address_domain_ok(remote, false) ? remote : SPAN(""), .last_attempt_wall_ns = data[0] & 16 ? 1 : 0,
			.will_retry_until_wall_ns = data[0] & 32 ? 2 : 0 };
	}
	all = message(w, in, (data[0] & 6) == 4); /* only what is not whole is cut */
	end = all.n ? memmem(all.p, all.n, "\r\n\r\n", 4) : NULL;
	w->d.original_head = span_of(all.p, end ? (size_t)(end - all.p) + 2 : all.n);
	w->d.original_body = w->d.whole ? span_skip(all, w->d.original_head.n) : SPAN_NONE;
}

/* ---- the report is read ---- */

static bool utf8_ok(struct span s)
{
	while (s.n) {
		size_t n = s.p[0] & 0x80 ? utf8_len(s) : 1;

		if (!n)
			return false;
		s = span_skip(s, n);
	}
	return true;
}

static bool is_ascii(struct span s)
{
	for (size_t i = 0; i < s.n; i++)
		if (s.p[i] & 0x80)
			return false;
	return true;
}

/* Takes what is before the next `end` off. */
static struct span until(struct span *s, const char *end)
{
	const char *at = memmem(s->p, s->n, end, strlen(end));
	struct span before;

	CHECK(at);
	before = span_of(s->p, (size_t)(at - s->p));
	*s = span_skip(*s, before.n + strlen(end));
	return before;
}

/* The next field has this name; its value, without line end. */
static struct span field(struct span *rest, const char *name)
{
	struct span got, value;

	CHECK(header_next(rest, &got, &value));
	CHECK(span_eq(got, span_str(name)) && value.n > 3 && value.p[0] == ' ' && value.p[value.n - 1] == '\n');
	return span_of(value.p + 1, value.n - 3);
}

static void no_more(struct span *rest)
{
	CHECK(rest->n >= 2 && memcmp(rest->p, "\r\n", 2) == 0);
	*rest = span_skip(*rest, 2);
}

static void check_typed(struct span got, struct span address)
{
	struct span rest = got, type = span_cut(&rest, ';');

	CHECK(span_eq(type, is_ascii(address) ? SPAN("rfc822") : SPAN("utf-8")) && span_eq(rest, address));
}

static void check_group(const struct dsn_rcpt *r, struct span *rest)
{
	static const char *const action[] = { "failed", "delayed", "delivered", "relayed", "expanded" };
	char status[12];

	if (r->rcpt->orcpt.n)
		CHECK(span_eq(field(rest, "Original-Recipient"), r->rcpt->orcpt));
	check_typed(field(rest, "Final-Recipient"), r->rcpt->addr);
	CHECK(span_eq(field(rest, "Action"), span_str(action[r->action])));
	CHECK(span_eq(field(rest, "Status"), span_str(reply_status(r->reply, status))));
	if (r->remote.n) {
		field(rest, "Remote-MTA");
		CHECK(span_starts_nocase(field(rest, "Diagnostic-Code"), SPAN("smtp;")));
	}
	if (r->last_attempt_wall_ns)
		field(rest, "Last-Attempt-Date");
	if (r->will_retry_until_wall_ns)
		field(rest, "Will-Retry-Until");
}

static void check_status(const struct dsn *d, struct span part)
{
	char id[256];
	struct out o = out_of(id, sizeof(id));

	field(&part, "Reporting-MTA");
	if (d->original->envid.n) {
		CHECK(xtext_decode(d->original->envid, &o) == ST_OK);
		CHECK(span_eq(field(&part, "Original-Envelope-Id"), out_span(&o)));
	}
	field(&part, "Arrival-Date");
	for (size_t i = 0; i < d->nrcpt; i++) {
		no_more(&part);
		check_group(&d->rcpt[i], &part);
	}
	CHECK(!part.n);
}

/* The header of a part; gives what it holds. */
static struct span part_body(struct span part, bool *ret_8bit)
{
	struct span name, value;

	CHECK(header_next(&part, &name, &value) && span_eq(name, SPAN("Content-Type")));
	*ret_8bit = header_next(&part, &name, &value);
	CHECK(!*ret_8bit || span_eq(name, SPAN("Content-Transfer-Encoding")));
	no_more(&part);
	CHECK(*ret_8bit || is_ascii(part));
	return part;
}

static void check_lines(struct span s)
{
	for (size_t i = 0; i < s.n; i++) {
		CHECK(s.p[i] && (s.p[i] != '\r' || (i + 1 < s.n && s.p[i + 1] == '\n')));
		CHECK(s.p[i] != '\n' || (i && s.p[i - 1] == '\r'));
	}
	CHECK(s.n >= 2 && s.p[s.n - 1] == '\n');
}

/* RFC 5322 2.1.1 */
static size_t longest_line(struct span s)
{
	size_t most = 0;

	while (s.p) {
		size_t n = span_cut(&s, '\n').n;

		most = n > most ? n : most;
	}
	return most - (most > 0); /* the CR */
}

static void check_report(const struct dsn *d, struct span text)
{
	static const char *const first[] = { "Date", "From", "To", "Subject", "Message-ID", "Auto-Submitted", "MIME-Version" };
	struct span type, boundary, part, head = d->original_head;
	char between[100], last[100];
	bool eight, whole;

	check_lines(text);
	for (size_t i = 0; i < sizeof(first) / sizeof(first[0]); i++)
		field(&text, first[i]);
	type = field(&text, "Content-Type");
	until(&type, "boundary=\"");
	boundary = until(&type, "\"");
	whole = span_starts_nocase(text, SPAN("Content-Transfer-Encoding: 8bit\r\n"));
	if (whole)
		field(&text, "Content-Transfer-Encoding");
	no_more(&text);
	CHECK(whole || is_ascii(text)); /* RFC 2045 6.4 */
	CHECK(boundary.n && boundary.n <= 70);
	snprintf(between, sizeof(between), "\r\n--%.*s\r\n", SPAN_FMT(boundary));
	snprintf(last, sizeof(last), "\r\n--%.*s--\r\n", SPAN_FMT(boundary));
	CHECK(text.n && memmem(text.p, text.n, between + 2, strlen(between) - 2) == text.p);
	text = span_skip(text, strlen(between) - 2);
	part = part_body(until(&text, between), &eight);
	CHECK(utf8_ok(part) && longest_line(part) <= 998);
	part = part_body(until(&text, between), &eight);
	CHECK(utf8_ok(part) && longest_line(part) <= 998);
	check_status(d, part);
	part = part_body(until(&text, last), &eight);
	CHECK(!text.n);
	head.n -= head.n && head.p[head.n - 1] == '\r';
	CHECK(part.n == head.n + d->original_body.n && span_eq(span_of(part.p, head.n), head));
	CHECK(span_eq(span_skip(part, head.n), d->original_body));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	static const struct smtp_server_config cfg = { .hostname = { "fuzz.example", 12 } };
	static struct world w;
	static char text[4 * TEXT_MAX];
	struct out o = out_of(text, sizeof(text));

	if (n < 2 || n > 20000)
		return 0;
	memset(&w, 0, sizeof(w));
	smtp_server_init(&w.s, &cfg);
	take(&w, data, span_of(data + 2, n - 2));
	dsn_write(&w.d, &o);
	CHECK(!o.over);
	check_report(&w.d, out_span(&o));
	smtp_server_done(&w.s);
	return 0;
}
