#include "control/aliasfile.h"

#include <stdarg.h>
#include <stdio.h>
#include "spool/mail/address.h"

/* Editors of some systems put it in front; files joined from several have it in the middle, where it would become part of a name that nobody can see. */
static const struct span byte_order_mark = { "\xef\xbb\xbf", 3 };

struct aliasfile aliasfile_of(struct span text)
{
	if (text.n >= byte_order_mark.n && memcmp(text.p, byte_order_mark.p, byte_order_mark.n) == 0)
		text = span_skip(text, byte_order_mark.n);
	return (struct aliasfile){ .rest = text };
}

/* Where the first `c` outside quoted strings is; s.n: nowhere. */
static size_t find_unquoted(struct span s, char c)
{
	bool quoted = false;

	for (size_t i = 0; i < s.n; i++) {
		if (s.p[i] == c && !quoted)
			return i;
		if (s.p[i] == '\\' && quoted)
			i++;
		else if (s.p[i] == '"')
			quoted = !quoted;
	}
	return s.n;
}

static struct span without_comment(struct span s)
{
	size_t from = 0;

	for (;;) {
		size_t i = from + find_unquoted(span_skip(s, from), '#');

		if (i >= s.n)
			return s;
		if (i == 0 || s.p[i - 1] == ' ' || s.p[i - 1] == '\t')
			return span_of(s.p, i);
		from = i + 1; /* "#" is an ordinary character of a local part (RFC 5322 atext) */
	}
}

static enum aliasfile_event wrong(struct aliasfile *f, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static enum aliasfile_event wrong(struct aliasfile *f, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(f->wrong, sizeof(f->wrong), fmt, ap);
	va_end(ap);
	for (char *p = f->wrong; *p; p++)
		if ((unsigned char)*p < ' ' || *p == 0x7f)
			*p = '?'; /* what it quotes goes to terminals and logs */
	return ALIASFILE_WRONG;
}

/* For messages: at most 80 octets of what was written. */
static struct span shown(struct span s)
{
	return span_of(s.p, s.n > 80 ? 80 : s.n);
}

bool aliasfile_address(struct span *addresses, struct span *ret)
{
	size_t comma = find_unquoted(*addresses, ',');

	if (!addresses->p)
		return false;
	*ret = span_trim(span_of(addresses->p, comma));
	*addresses = comma < addresses->n ? span_skip(*addresses, comma + 1) : SPAN_NONE;
	return true;
}

static enum aliasfile_event check_address(struct aliasfile *f, struct span text)
{
	struct address a;
	char key[ADDRESS_DOMAIN_MAX + 1];
	struct out o = out_of(key, sizeof(key));

	if (!text.n)
		return wrong(f, "an address is empty; write alias:address,address");
	if (find_unquoted(text, '@') == text.n)
		return wrong(f, "\"%.*s\" has no domain; write it as local-part@domain", SPAN_FMT(shown(text)));
	if (address_parse(text, ADDRESS_UTF8, &a) != ST_OK)
		return wrong(f, "\"%.*s\" is not an address", SPAN_FMT(shown(text)));
	if (!address_local_ok(a.local, 0)) /* mail that came without SMTPUTF8 could not be sent on to it */
		return wrong(f, "\"%.*s\" has a local part that is not ASCII", SPAN_FMT(shown(text)));
	if (!a.is_literal && address_domain_key(a.domain, &o) != ST_OK)
		return wrong(f, "\"%.*s\" has a domain without an ASCII form", SPAN_FMT(shown(text)));
	return ALIASFILE_ENTRY;
}

static enum aliasfile_event take_line(struct aliasfile *f, struct span line)
{
	size_t colon = find_unquoted(line, ':');
	struct span rest, one;

	for (size_t i = 0; i < line.n; i++)
		if (((unsigned char)line.p[i] < ' ' && line.p[i] != '\t') || line.p[i] == 0x7f)
			return wrong(f, "the line has a control character (0x%02x)", (unsigned char)line.p[i]);
	if (memmem(line.p, line.n, byte_order_mark.p, byte_order_mark.n))
		return wrong(f, "the line has a byte order mark; at most the file begins with one");
	if (colon == line.n)
		return wrong(f, "\"%.*s\" has no colon; write alias:address[,address...]", SPAN_FMT(shown(line)));
	f->name = span_trim(span_of(line.p, colon));
	if (find_unquoted(f->name, '@') != f->name.n)
		return wrong(f, "\"%.*s\": write the alias without its domain", SPAN_FMT(shown(f->name)));
	if (!address_local_ok(f->name, ADDRESS_UTF8))
		return wrong(f, "\"%.*s\" is not a local part", SPAN_FMT(shown(f->name)));
	f->addresses = rest = span_trim(span_skip(line, colon + 1));
	if (!rest.n)
		return wrong(f, "\"%.*s\" has no address", SPAN_FMT(shown(f->name)));
	while (aliasfile_address(&rest, &one))
		if (check_address(f, one) == ALIASFILE_WRONG)
			return ALIASFILE_WRONG;
	return ALIASFILE_ENTRY;
}

enum aliasfile_event aliasfile_next(struct aliasfile *f)
{
	while (f->rest.n) {
		struct span line = span_cut(&f->rest, '\n');

		f->line++;
		if (line.n && line.p[line.n - 1] == '\r')
			line.n--;
		line = span_trim(without_comment(line));
		if (line.n)
			return take_line(f, line);
	}
	return ALIASFILE_END;
}
