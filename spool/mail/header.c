#include "spool/mail/header.h"

#include <time.h>
#include "spool/base/clock.h"
#include "spool/mail/address.h"

bool header_next(struct span *rest, struct span *ret_name, struct span *ret_value)
{
	struct span s = *rest;
	size_t name = 0, end, n;

	while (name < s.n && s.p[name] > ' ' && s.p[name] < 0x7f && s.p[name] != ':')
		name++;
	n = name;
	while (n < s.n && (s.p[n] == ' ' || s.p[n] == '\t'))
		n++;
	if (name == 0 || n == s.n || s.p[n] != ':')
		return false;
	/* the value ends at a line end that no white space follows */
	for (end = n + 1; end < s.n;) {
		const char *nl = memchr(s.p + end, '\n', s.n - end);

		end = nl ? (size_t)(nl - s.p) + 1 : s.n;
		if (end == s.n || (s.p[end] != ' ' && s.p[end] != '\t'))
			break;
	}
	*ret_name = span_of(s.p, name);
	*ret_value = span_of(s.p + n + 1, end - n - 1);
	*rest = span_skip(s, end);
	return true;
}

struct span header_fields(struct span head)
{
	struct span line = head;

	while (line.n && line.p[0] == '>')
		line = span_skip(line, 1);
	if (!span_starts_nocase(line, SPAN("From ")))
		return head;
	span_cut(&line, '\n');
	return line.p ? line : span_skip(head, head.n);
}

unsigned header_count_received(struct span head)
{
	struct span name, value;
	unsigned n = 0;

	head = header_fields(head);
	while (header_next(&head, &name, &value))
		if (span_eq_nocase(name, SPAN("Received")))
			n++;
	return n;
}

static bool has_8bit(struct span s)
{
	for (size_t i = 0; i < s.n; i++)
		if (s.p[i] & 0x80)
			return true;
	return false;
}

uint32_t header_flags(struct span head, const struct envelope *e)
{
	struct span rest = header_fields(head), name, value;
	uint32_t flags = 0;

	if (rest.n && rest.p[0] != '\r' && !header_next(&(struct span){ rest.p, rest.n }, &name, &value))
		flags |= ENV_NO_HEADER;
	while (header_next(&rest, &name, &value))
		if (span_eq_nocase(name, SPAN("TLS-Required")) && span_eq_nocase(span_trim(span_cut(&value, '\r')), SPAN("No")))
			flags |= e->flags & ENV_REQUIRETLS ? 0 : ENV_TLS_OPTIONAL;
	if (e->body != BODY_7BIT && has_8bit(span_of(head.p, head.n - rest.n)))
		flags |= ENV_8BIT_HEADER;
	return flags;
}

struct span header_message_id(struct span head)
{
	struct span name, value;

	while (header_next(&head, &name, &value)) {
		size_t n = 0;

		if (!span_eq_nocase(name, SPAN("Message-ID")))
			continue;
		while (value.n && value.p[0] && strchr(" \t\r\n", value.p[0]))
			value = span_skip(value, 1);
		while (n < value.n && value.p[n] > ' ' && value.p[n] < 0x7f)
			n++;
		for (size_t i = n; i < value.n; i++)
			if (!strchr(" \t\r\n", value.p[i]) || !value.p[i])
				return SPAN_NONE;
		return n <= MESSAGE_ID_MAX ? span_of(value.p, n) : SPAN_NONE;
	}
	return SPAN_NONE;
}

/* A word of a stranger in a header: letters, digits and a few signs only, cut. */
static void add_word(struct out *o, struct span s)
{
	if (s.n == 0)
		out_str(o, "unknown");
	for (size_t i = 0; i < s.n && i < 255; i++) {
		char c = s.p[i];
		bool ok = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c && strchr(".-:[]_", c));

		out_char(o, ok ? c : '?');
	}
}

void received_write(const struct envelope *e, const struct received_facts *f, struct out *o)
{
	out_str(o, "Received: from ");
	add_word(o, e->helo);
	out_str(o, " (");
	if (e->client_name.n) {
		add_word(o, e->client_name);
		out_char(o, ' ');
	}
	ip_literal_write(e->client_ip, o);
	out_str(o, ")\r\n\tby ");
	out_add(o, f->hostname);
	out_str(o, " (Weir) with ");
	/* RFC 3848, RFC 6531 4.3 */
	if (e->flags & ENV_SMTPUTF8)
		out_str(o, "UTF8");
	if (e->flags & ENV_LMTP)
		out_str(o, "LMTP");
	else
		out_str(o, (e->flags & (ENV_ESMTP | ENV_SMTPUTF8)) == ENV_ESMTP ? "ESMTP" : "SMTP");
	if (e->flags & ENV_TLS)
		out_char(o, 'S');
	if (e->auth_user.n)
		out_char(o, 'A');
	if (f->tls.n) {
		out_str(o, " (");
		out_add(o, f->tls);
		out_char(o, ')');
	}
	out_str(o, "\r\n\tid ");
	out_add(o, f->id);
	if (f->rcpt.n && f->rcpt.n <= ADDRESS_MAX) {
		out_str(o, "\r\n\tfor <");
		out_add(o, f->rcpt);
		out_char(o, '>');
	}
	out_str(o, ";\r\n\t");
	date_write(e->arrived_ns, o);
	out_str(o, "\r\n");
}

void date_write(uint64_t wall_ns, struct out *o)
{
	static const char *const day[] = { "Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat" };
	static const char *const month[] = { "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec" };
	time_t s = (time_t)(wall_ns / NS_PER_S);
	struct tm tm;

	gmtime_r(&s, &tm); /* names from our own tables: never the locale's */
	out_fmt(o, "%s, %02d %s %04d %02d:%02d:%02d +0000", day[tm.tm_wday], tm.tm_mday, month[tm.tm_mon], tm.tm_year + 1900, tm.tm_hour,
		tm.tm_min, tm.tm_sec);
}
