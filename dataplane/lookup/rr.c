#include "dataplane/lookup/rr.h"

enum { HEADER = 12, QUESTION_FIXED = 4, RR_FIXED = 10, CLASS_IN = 1 };

static uint8_t byte(struct span m, size_t i)
{
	return (uint8_t)m.p[i];
}

static uint16_t be16(struct span m, size_t i)
{
	return (uint16_t)(byte(m, i) << 8 | byte(m, i + 1));
}

/* The place behind the name at `at`; more than the message when it is cut. A pointer ends a name. */
static size_t skip_name(struct span m, size_t at)
{
	while (at < m.n) {
		uint8_t n = byte(m, at);

		if (n == 0)
			return at + 1;
		if ((n & 0xc0) == 0xc0)
			return at + 2;
		if (n & 0xc0)
			break;
		at += 1u + n;
	}
	return m.n + 1;
}

unsigned rr_rcode(struct span m)
{
	return m.n < HEADER ? 2 : byte(m, 3) & 15;
}

bool rr_authentic(struct span m)
{
	return m.n >= HEADER && (byte(m, 3) & 0x20);
}

unsigned rr_count(struct span m)
{
	return m.n < HEADER ? 0 : be16(m, 6);
}

void rr_begin(struct rr_walk *w, struct span message)
{
	*w = (struct rr_walk){ .message = message, .at = HEADER };
	if (message.n < HEADER)
		return;
	for (unsigned n = be16(message, 4); n && w->at <= message.n; n--)
		w->at = skip_name(message, w->at) + QUESTION_FIXED;
	w->left = rr_count(message);
}

bool rr_next(struct rr_walk *w, struct rr *ret)
{
	struct span m = w->message;

	while (w->left) {
		size_t at = skip_name(m, w->at), len;

		w->left = at > m.n || m.n - at < RR_FIXED ? 0 : w->left - 1;
		if (at > m.n || m.n - at < RR_FIXED)
			break;
		len = be16(m, at + 8);
		if (m.n - at - RR_FIXED < len) {
			w->left = 0;
			break;
		}
		w->at = at + RR_FIXED + len;
		if (be16(m, at + 2) != CLASS_IN)
			continue;
		ret->type = be16(m, at);
		ret->ttl_s = (uint32_t)be16(m, at + 4) << 16 | be16(m, at + 6);
		ret->data = span_of(m.p + at + RR_FIXED, len);
		return true;
	}
	return false;
}

void rr_txt(struct span data, struct out *o)
{
	while (data.n) {
		size_t n = byte(data, 0);

		data = span_skip(data, 1);
		n = n < data.n ? n : data.n;
		out_add(o, span_of(data.p, n));
		data = span_skip(data, n);
	}
}
