/* Borrowed bytes: a pointer and a length, never NUL-terminated, never owned.
 *
 * And struct out, a bounded writer over a caller's buffer that never overruns: what does not fit sets
 * `over` and is left out, so that one check at the end is enough. */
#ifndef WEIR_SPOOL_BASE_SPAN_H
#define WEIR_SPOOL_BASE_SPAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct span {
	const char *p;
	size_t n;
};

#define SPAN(lit) ((struct span){ "" lit "", sizeof(lit) - 1 })
#define SPAN_NONE ((struct span){ NULL, 0 })
/* For printf: printf("%.*s", SPAN_FMT(s)). */
#define SPAN_FMT(s) (int)(s).n, (s).p

static inline struct span span_of(const void *p, size_t n)
{
	return (struct span){ p, n };
}

static inline struct span span_str(const char *z)
{
	return (struct span){ z, z ? strlen(z) : 0 };
}

/* s without its first n bytes (all of it when n is larger). */
static inline struct span span_skip(struct span s, size_t n)
{
	return n >= s.n ? (struct span){ s.p ? s.p + s.n : s.p, 0 } : (struct span){ s.p + n, s.n - n };
}

bool span_eq(struct span a, struct span b);
/* ASCII letters compared without case. */
bool span_eq_nocase(struct span a, struct span b);
bool span_starts_nocase(struct span s, struct span prefix);
bool span_ends_nocase(struct span s, struct span suffix);
/* Without SP and HT at both ends. */
struct span span_trim(struct span s);
/* Cuts s at the first `sep`: returns what is before it, leaves what is after it in *s. When there is no
 * sep, returns all and leaves *s empty with p == NULL. */
struct span span_cut(struct span *s, char sep);
/* Parses a whole span as decimal. False when empty, not only digits, or above max. */
bool span_u64(struct span s, uint64_t max, uint64_t *ret);

struct out {
	char *p;
	size_t n;   /* bytes written */
	size_t cap;
	bool over;  /* something did not fit */
};

static inline struct out out_of(void *p, size_t cap)
{
	return (struct out){ p, 0, cap, false };
}

static inline struct span out_span(const struct out *o)
{
	return (struct span){ o->p, o->n };
}

void out_add(struct out *o, struct span s);
void out_str(struct out *o, const char *z);
void out_char(struct out *o, char c);
void out_u64(struct out *o, uint64_t v);
void out_fmt(struct out *o, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Length-prefixed fields of mapped and stored formats: little endian. */
void out_le16(struct out *o, uint16_t v);
void out_le32(struct out *o, uint32_t v);
void out_le64(struct out *o, uint64_t v);
/* 32-bit length, then the bytes. */
void out_field(struct out *o, struct span s);

/* The reading side of out_le* and out_field: a cursor that only ever moves forward and never past the
 * end; after a short read `bad` is set and all further reads give zero or empty. */
struct in {
	struct span rest;
	bool bad;
};

static inline struct in in_of(struct span s)
{
	return (struct in){ s, false };
}

uint8_t in_u8(struct in *i);
uint16_t in_le16(struct in *i);
uint32_t in_le32(struct in *i);
uint64_t in_le64(struct in *i);
struct span in_bytes(struct in *i, size_t n);
struct span in_field(struct in *i);

#endif
