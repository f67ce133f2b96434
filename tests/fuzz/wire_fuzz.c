/* The wire gives the same content and the same end however its input is split; what it lets through has no bare CR or LF. */
#include <stdlib.h>
#include "dataplane/smtp/wire.h"
#include "spool/base/status.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static enum wire_event run(const uint8_t *data, size_t n, size_t cut, struct out *o, bool *ret_eight_bit)
{
	struct wire w;
	enum wire_event ev = WIRE_MORE, last = WIRE_MORE;
	size_t used;

	wire_init(&w);
	wire_mode(&w, data[0] & 1 ? WIRE_DATA : WIRE_CHUNK, data[0] / 2, true);
	for (size_t at = 1; at < n;) {
		size_t len = n - at < cut ? n - at : cut;
		struct span s = span_of(data + at, len);

		do {
			ev = wire_next(&w, s, &used);
			CHECK(used <= s.n);
			CHECK(used || ev != WIRE_MORE || !s.n);
			s = span_skip(s, used);
			if (ev == WIRE_BODY)
				out_add(o, w.body);
			if (ev != WIRE_MORE && ev != WIRE_BODY)
				last = ev;
			*ret_eight_bit = w.eight_bit;
			if (ev == WIRE_BODY_END || ev == WIRE_BAD_LINE_END)
				return ev;
		} while (s.n);
		at += len;
	}
	return last;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	char *a = malloc(n + 1), *b = malloc(n + 1);
	struct out whole = out_of(a, n + 1), split = out_of(b, n + 1);
	enum wire_event e1, e2;
	bool high1 = false, high2 = false, high = false;

	if (!n || !a || !b)
		goto out;
	e1 = run(data, n, n, &whole, &high1);
	for (size_t cut = 1; cut < n && cut < 8; cut++) {
		split.n = 0;
		e2 = run(data, n, cut, &split, &high2);
		CHECK(e1 == e2);
		if (e1 != WIRE_BAD_LINE_END)
			CHECK(span_eq(out_span(&whole), out_span(&split)) && high1 == high2);
	}
	for (size_t i = 0; i < whole.n; i++)
		high = high || whole.p[i] & 0x80;
	CHECK(high == high1 || e1 == WIRE_BAD_LINE_END);
	for (size_t i = 0; i + 1 < whole.n; i++) {
		CHECK(whole.p[i] != '\r' || whole.p[i + 1] == '\n');
		CHECK(whole.p[i + 1] != '\n' || whole.p[i] == '\r');
	}
out:
	free(a);
	free(b);
	return 0;
}
