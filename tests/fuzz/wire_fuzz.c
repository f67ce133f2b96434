/* The wire gives the same content and the same end however its input is split; what it lets through has no bare CR or LF. When it normalises it refuses nothing for its
 * line ends, and DATA ends at the first CRLF.CRLF and nowhere else. */
#include <stdlib.h>
#include "dataplane/smtp/wire.h"
#include "spool/base/status.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

struct result {
	enum wire_event ev; /* the last that is not content */
	size_t end;         /* where it ended */
	bool eight_bit, dot_line, normalised;
};

static struct result run(const uint8_t *data, size_t n, size_t cut, bool normalise, struct out *o)
{
	struct result r = { .ev = WIRE_MORE };
	struct wire w;
	size_t used;

	wire_init(&w);
	w.normalise = normalise;
	wire_mode(&w, data[0] & 1 ? WIRE_DATA : WIRE_CHUNK, data[0] / 2, true);
	o->n = 0;
	for (size_t at = 1; at < n;) {
		size_t len = n - at < cut ? n - at : cut;
		struct span s = span_of(data + at, len);
		unsigned idle = 0;

		do {
			enum wire_event ev = wire_next(&w, s, &used);

			CHECK(used <= s.n);
			CHECK(used || ev != WIRE_MORE || !s.n);
			idle = used ? 0 : idle + 1;
			CHECK(idle < 3);
			s = span_skip(s, used);
			if (ev == WIRE_BODY)
				out_add(o, w.body);
			if (ev != WIRE_MORE && ev != WIRE_BODY)
				r.ev = ev;
			r.eight_bit = w.eight_bit;
			r.dot_line = w.dot_line;
			r.normalised = w.normalised;
			r.end = (size_t)(s.p - (const char *)data);
			if (ev == WIRE_BODY_END || ev == WIRE_BAD_LINE_END)
				return r;
		} while (s.n);
		at += len;
	}
	return r;
}

static bool same(const struct result *a, const struct result *b)
{
	return a->eight_bit == b->eight_bit && a->dot_line == b->dot_line && a->normalised == b->normalised && a->end == b->end;
}

static void check_content(struct span s, const struct result *r)
{
	bool high = false, dot = s.n && s.p[0] == '.';

	for (size_t i = 0; i < s.n; i++)
		high = high || s.p[i] & 0x80;
	for (size_t i = 0; i + 1 < s.n; i++) {
		CHECK(s.p[i] != '\r' || s.p[i + 1] == '\n');
		CHECK(s.p[i + 1] != '\n' || s.p[i] == '\r');
		dot = dot || (s.p[i] == '\n' && s.p[i + 1] == '.');
	}
	CHECK(!s.n || s.p[0] != '\n');
	CHECK(r->ev == WIRE_BAD_LINE_END || (high == r->eight_bit && dot == r->dot_line));
}

/* Where the first CRLF.CRLF is over, the CRLF of the command DATA counting as its beginning; 0: nowhere. */
static size_t true_end(const uint8_t *data, size_t n)
{
	const uint8_t *at;

	if (n >= 4 && memcmp(data + 1, ".\r\n", 3) == 0)
		return 4;
	at = memmem(data + 1, n - 1, "\r\n.\r\n", 5);
	return at ? (size_t)(at - data) + 5 : 0;
}

static void check_both(const uint8_t *data, size_t n, bool normalise, struct out *whole, struct out *split)
{
	struct result r1 = run(data, n, n, normalise, whole), r2;

	for (size_t cut = 1; cut < n && cut < 8; cut++) {
		r2 = run(data, n, cut, normalise, split);
		CHECK(r1.ev == r2.ev);
		if (r1.ev != WIRE_BAD_LINE_END)
			CHECK(span_eq(out_span(whole), out_span(split)) && same(&r1, &r2));
	}
	CHECK(!whole->over && !split->over);
	check_content(out_span(whole), &r1);
	if (!normalise)
		return;
	CHECK(r1.ev != WIRE_BAD_LINE_END);
	CHECK(!whole->n || whole->p[whole->n - 1] != '\r');
	if (data[0] & 1)
		CHECK(r1.ev == WIRE_BODY_END ? r1.end == true_end(data, n) : true_end(data, n) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	char *a = malloc(2 * n + 1), *b = malloc(2 * n + 1);
	struct out whole = out_of(a, 2 * n + 1), split = out_of(b, 2 * n + 1);

	CHECK(a && b);
	if (n) {
		check_both(data, n, false, &whole, &split);
		check_both(data, n, true, &whole, &split);
	}
	free(a);
	free(b);
	return 0;
}
