#include "spool/mail/dsn.h"

#include "spool/mail/address.h"
#include "spool/mail/header.h"

static const char *const action_name[] = { [DSN_FAILED] = "failed", [DSN_DELAYED] = "delayed", [DSN_DELIVERED] = "delivered",
	[DSN_RELAYED] = "relayed", [DSN_EXPANDED] = "expanded" };

static bool has_high(struct span s)
{
	for (size_t i = 0; i < s.n; i++)
		if ((unsigned char)s.p[i] >= 0x80)
			return true;
	return false;
}

enum { TEXT_MOST = 900 }; /* so that no line of ours is over 998 octets (RFC 5322 2.1.1) */

/* Text of a stranger in a field or a line: no controls, cut. */
static void add_some(struct out *o, struct span s, size_t most)
{
	for (size_t i = 0; i < s.n && i < most; i++)
		out_char(o, (unsigned char)s.p[i] < ' ' || s.p[i] == 0x7f ? '?' : s.p[i]);
}

static void add_text(struct out *o, struct span s)
{
	add_some(o, s, TEXT_MOST);
}

static void field(struct out *o, const char *name, struct span value)
{
	out_str(o, name);
	out_str(o, ": ");
	add_text(o, value);
	out_str(o, "\r\n");
}

static void field_date(struct out *o, const char *name, uint64_t wall_ns)
{
	out_str(o, name);
	out_str(o, ": ");
	date_write(wall_ns, o);
	out_str(o, "\r\n");
}

static bool is_global(const struct dsn *d)
{
	bool high = has_high(d->to) || has_high(d->original->sender);

	for (size_t i = 0; i < d->nrcpt; i++)
		high = high || has_high(d->rcpt[i].rcpt->addr) || has_high(d->rcpt[i].rcpt->orcpt);
	return high;
}

/* A line that no line of the returned part equals or begins with; made from the report's id, longer when that does occur. */
static void make_boundary(const struct dsn *d, struct out *b)
{
	out_str(b, "=_weir_");
	add_text(b, span_of(d->id.p, d->id.n > 40 ? 40 : d->id.n));
	while (!b->over && ((d->original_head.n && memmem(d->original_head.p, d->original_head.n, b->p, b->n)) ||
		(d->original_body.n && memmem(d->original_body.p, d->original_body.n, b->p, b->n))))
		out_char(b, 'x');
}

/* RFC 2045 6.4: what a part is, the whole is too. */
static void write_encoding(struct out *o, bool eight_bit)
{
	if (eight_bit)
		out_str(o, "\r\nContent-Transfer-Encoding: 8bit");
}

static void write_head(const struct dsn *d, struct span boundary, bool eight_bit, struct out *o)
{
	field_date(o, "Date", d->now_wall_ns);
	out_str(o, "From: Mail Delivery System <");
	add_text(o, d->from);
	out_str(o, ">\r\nTo: <");
	add_text(o, d->to);
	out_str(o, ">\r\n");
	out_str(o, d->rcpt[0].action == DSN_FAILED ? "Subject: Undelivered mail returned to sender\r\n" :
		d->rcpt[0].action == DSN_DELAYED ? "Subject: Delivery of your message is delayed\r\n" :
		"Subject: Delivery report\r\n");
	out_str(o, "Message-ID: <");
	add_text(o, d->id);
	out_char(o, '@');
	add_text(o, d->hostname);
	out_str(o, ">\r\nAuto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\nContent-Type: multipart/report; report-type=delivery-status;\r\n\tboundary=\"");
	out_add(o, boundary);
	out_char(o, '"');
	write_encoding(o, eight_bit);
	out_str(o, "\r\n\r\n");
}

/* Two of a unit at least, so that little is lost by leaving the rest out. */
static void add_duration(struct out *o, uint64_t ns)
{
	static const struct {
		uint64_t s;
		const char *name;
	} unit[] = { { 86400, "days" }, { 3600, "hours" }, { 60, "minutes" } };
	uint64_t s = ns / 1000000000;

	for (size_t i = 0; i < sizeof(unit) / sizeof(unit[0]); i++)
		if (s >= 2 * unit[i].s) {
			out_fmt(o, "%llu %s", (unsigned long long)(s / unit[i].s), unit[i].name);
			return;
		}
	out_fmt(o, "%llu seconds", (unsigned long long)s);
}

static void write_who_said(const struct dsn_rcpt *r, struct out *o)
{
	if (r->expired_ns) {
		out_str(o, "It could not be delivered for ");
		add_duration(o, r->expired_ns);
		out_str(o, "; the last ");
		out_str(o, r->remote.n ? "answer of " : "reason was:");
		add_text(o, r->remote);
		out_str(o, r->remote.n ? " was:\r\n    " : "\r\n    ");
	} else if (r->remote.n) {
		add_text(o, r->remote);
		out_str(o, " said: ");
	}
}

static void write_explanation(const struct dsn *d, struct out *o)
{
	static const char *const said[] = {
		[DSN_FAILED] = "your message could not be delivered to the recipients below. It will not be tried again.",
		[DSN_DELAYED] = "your message could not be delivered yet to the recipients below. You need not send it again:\r\ndelivery is still being tried.",
		[DSN_DELIVERED] = "your message was delivered to the recipients below.",
		[DSN_RELAYED] = "your message was handed on to a mail system that sends no further reports.",
		[DSN_EXPANDED] = "your message was handed on to the members of the list below.",
	};

	out_str(o, "This is the mail system at ");
	add_text(o, d->hostname);
	out_str(o, ":\r\n");
	out_str(o, said[d->rcpt[0].action]);
	out_str(o, "\r\n");
	for (size_t i = 0; i < d->nrcpt; i++) {
		char text[REPLY_TEXT_MAX + 32];
		struct out t = out_of(text, sizeof(text));

		out_str(o, "\r\n  <");
		add_text(o, d->rcpt[i].rcpt->addr);
		out_str(o, ">\r\n    ");
		write_who_said(&d->rcpt[i], o);
		reply_line(d->rcpt[i].reply, &t);
		add_some(o, out_span(&t), TEXT_MOST - d->rcpt[i].remote.n);
		out_str(o, "\r\n");
	}
	out_str(o, "\r\nFor help, give your postmaster this reference: ");
	add_text(o, d->original_id);
	out_str(o, "\r\n");
}

static void address_field(struct out *o, const char *name, struct span addr)
{
	out_str(o, name);
	out_str(o, has_high(addr) ? ": utf-8;" : ": rfc822;");
	add_text(o, addr);
	out_str(o, "\r\n");
}

static void write_status_rcpt(const struct dsn_rcpt *r, struct out *o)
{
	char buf[12], text[REPLY_TEXT_MAX + 32];
	struct out t = out_of(text, sizeof(text));

	out_str(o, "\r\n");
	if (r->rcpt->orcpt.n)
		field(o, "Original-Recipient", r->rcpt->orcpt);
	address_field(o, "Final-Recipient", r->rcpt->addr);
	field(o, "Action", span_str(action_name[r->action]));
	/* RFC 3463 X.4.7: the time is over for good; what the remote said of the last attempt is the diagnosis (RFC 3464 2.3.6) */
	field(o, "Status", span_str(r->expired_ns ? "5.4.7" : reply_status(r->reply, buf)));
	if (r->remote.n) {
		out_str(o, "Remote-MTA: dns;");
		add_text(o, r->remote);
		out_str(o, "\r\n");
		out_str(o, "Diagnostic-Code: smtp;");
		reply_line(r->reply, &t);
		add_text(o, out_span(&t));
		out_str(o, "\r\n");
	}
	if (r->last_attempt_wall_ns)
		field_date(o, "Last-Attempt-Date", r->last_attempt_wall_ns);
	if (r->will_retry_until_wall_ns)
		field_date(o, "Will-Retry-Until", r->will_retry_until_wall_ns);
}

static void write_status(const struct dsn *d, struct out *o)
{
	char id[128];
	struct out envid = out_of(id, sizeof(id));

	out_str(o, "Reporting-MTA: dns;");
	add_text(o, d->hostname);
	out_str(o, "\r\n");
	if (d->original->envid.n && xtext_decode(d->original->envid, &envid) == ST_OK)
		field(o, "Original-Envelope-Id", out_span(&envid));
	field_date(o, "Arrival-Date", d->original->arrived_ns);
	for (size_t i = 0; i < d->nrcpt; i++)
		write_status_rcpt(&d->rcpt[i], o);
}

static void begin_part(struct out *o, struct span boundary, const char *type, bool eight_bit)
{
	out_str(o, "--");
	out_add(o, boundary);
	out_str(o, "\r\nContent-Type: ");
	out_str(o, type);
	write_encoding(o, eight_bit);
	out_str(o, "\r\n\r\n");
}

void dsn_write(const struct dsn *d, struct out *o)
{
	char buf[128];
	struct out b = out_of(buf, 70); /* RFC 2046 5.1.1: at most 70 characters */
	bool global = is_global(d), eight = has_high(d->original_head) || has_high(d->original_body);
	struct span boundary, head = d->original_head;

	make_boundary(d, &b);
	boundary = out_span(&b);
	write_head(d, boundary, global || eight, o);
	begin_part(o, boundary, global ? "text/plain; charset=utf-8" : "text/plain; charset=us-ascii", global);
	write_explanation(d, o);
	out_str(o, "\r\n");
	begin_part(o, boundary, global ? "message/global-delivery-status" : "message/delivery-status", global);
	write_status(d, o);
	out_str(o, "\r\n");
	if (d->whole)
		begin_part(o, boundary, global ? "message/global" : "message/rfc822", eight);
	else
		begin_part(o, boundary, global ? "message/global-headers" : "text/rfc822-headers", eight);
	if (head.n && head.p[head.n - 1] == '\r')
		head.n--; /* it was cut within a line end */
	out_add(o, head);
	if (d->whole)
		out_add(o, d->original_body);
	out_str(o, "\r\n--");
	out_add(o, boundary);
	out_str(o, "--\r\n");
}
