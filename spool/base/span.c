#include "spool/base/span.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

bool span_eq(struct span a, struct span b)
{
	return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

static char lower(char c)
{
	return c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
}

bool span_eq_nocase(struct span a, struct span b)
{
	if (a.n != b.n)
		return false;
	for (size_t i = 0; i < a.n; i++)
		if (lower(a.p[i]) != lower(b.p[i]))
			return false;
	return true;
}

bool span_starts_nocase(struct span s, struct span prefix)
{
	return s.n >= prefix.n && span_eq_nocase(span_of(s.p, prefix.n), prefix);
}

bool span_ends_nocase(struct span s, struct span suffix)
{
	return s.n >= suffix.n && span_eq_nocase(span_of(s.p + (s.n - suffix.n), suffix.n), suffix);
}

struct span span_trim(struct span s)
{
	while (s.n && (s.p[0] == ' ' || s.p[0] == '\t'))
		s = span_skip(s, 1);
	while (s.n && (s.p[s.n - 1] == ' ' || s.p[s.n - 1] == '\t'))
		s.n--;
	return s;
}

struct span span_cut(struct span *s, char sep)
{
	const char *at = s->n ? memchr(s->p, sep, s->n) : NULL;
	struct span head = *s;

	if (!at) {
		*s = SPAN_NONE;
		return head;
	}
	head.n = (size_t)(at - s->p);
	*s = span_skip(*s, head.n + 1);
	return head;
}

bool span_u64(struct span s, uint64_t max, uint64_t *ret)
{
	uint64_t v = 0;

	if (s.n == 0)
		return false;
	for (size_t i = 0; i < s.n; i++) {
		unsigned d = (unsigned char)s.p[i] - (unsigned)'0';

		if (d > 9 || __builtin_mul_overflow(v, 10u, &v) || __builtin_add_overflow(v, d, &v))
			return false;
	}
	if (v > max)
		return false;
	*ret = v;
	return true;
}

void out_add(struct out *o, struct span s)
{
	if (s.n > o->cap - o->n) {
		o->over = true;
		return;
	}
	if (s.n)
		memcpy(o->p + o->n, s.p, s.n);
	o->n += s.n;
}

void out_str(struct out *o, const char *z)
{
	out_add(o, span_str(z));
}

void out_char(struct out *o, char c)
{
	if (o->n == o->cap) {
		o->over = true;
		return;
	}
	o->p[o->n++] = c;
}

void out_u64(struct out *o, uint64_t v)
{
	char buf[20];
	size_t i = sizeof(buf);

	do
		buf[--i] = (char)('0' + v % 10);
	while (v /= 10);
	out_add(o, span_of(buf + i, sizeof(buf) - i));
}

void out_fmt(struct out *o, const char *fmt, ...)
{
	char *text = NULL;
	size_t room = o->cap - o->n;
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(o->p + o->n, room, fmt, ap);
	va_end(ap);
	if (n >= 0 && (size_t)n < room) {
		o->n += (size_t)n;
		return;
	}
	/* vsnprintf wants a byte more, for its NUL, than a text that just fits */
	va_start(ap, fmt);
	n = (size_t)n == room ? vasprintf(&text, fmt, ap) : -1;
	va_end(ap);
	if (n >= 0) {
		out_add(o, span_of(text, (size_t)n));
		free(text);
	} else {
		o->over = true;
	}
}

static void out_le(struct out *o, uint64_t v, unsigned bytes)
{
	char b[8];

	for (unsigned i = 0; i < bytes; i++)
		b[i] = (char)(v >> (8 * i));
	out_add(o, span_of(b, bytes));
}

void out_le16(struct out *o, uint16_t v)
{
	out_le(o, v, 2);
}

void out_le32(struct out *o, uint32_t v)
{
	out_le(o, v, 4);
}

void out_le64(struct out *o, uint64_t v)
{
	out_le(o, v, 8);
}

void out_field(struct out *o, struct span s)
{
	if (s.n > UINT32_MAX) {
		o->over = true;
		return;
	}
	out_le32(o, (uint32_t)s.n);
	out_add(o, s);
}

struct span in_bytes(struct in *i, size_t n)
{
	struct span s;

	if (i->bad || n > i->rest.n) {
		i->bad = true;
		i->rest.n = 0;
		return SPAN_NONE;
	}
	s = span_of(i->rest.p, n);
	i->rest = span_skip(i->rest, n);
	return s;
}

static uint64_t in_le(struct in *i, unsigned bytes)
{
	struct span s = in_bytes(i, bytes);
	uint64_t v = 0;

	for (unsigned k = 0; k < s.n; k++)
		v |= (uint64_t)(unsigned char)s.p[k] << (8 * k);
	return v;
}

uint8_t in_u8(struct in *i)
{
	return (uint8_t)in_le(i, 1);
}

uint16_t in_le16(struct in *i)
{
	return (uint16_t)in_le(i, 2);
}

uint32_t in_le32(struct in *i)
{
	return (uint32_t)in_le(i, 4);
}

uint64_t in_le64(struct in *i)
{
	return in_le(i, 8);
}

struct span in_field(struct in *i)
{
	return in_bytes(i, in_le32(i));
}
