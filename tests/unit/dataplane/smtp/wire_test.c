#include "tests/support/unit.h"

#include <stdio.h>
#include <stdlib.h>
#include "dataplane/smtp/wire.h"

/* Reads DATA content in pieces of `cut`; gives the content and the last event. */
static enum wire_event read_data(const char *in, size_t n, size_t cut, struct out *o)
{
	struct wire w;
	enum wire_event ev = WIRE_MORE;
	size_t used;

	wire_init(&w);
	wire_mode(&w, WIRE_DATA, 0, true);
	for (size_t at = 0; at < n;) {
		size_t len = n - at < cut ? n - at : cut;
		struct span s = span_of(in + at, len);

		while (s.n) {
			ev = wire_next(&w, s, &used);
			s = span_skip(s, used);
			if (ev == WIRE_BODY)
				out_add(o, w.body);
			if (ev == WIRE_BODY_END || ev == WIRE_BAD_LINE_END)
				return ev;
		}
		at += len;
	}
	return ev;
}

static void the_same_however_it_is_split(void **state)
{
	static const struct {
		const char *in, *content;
		enum wire_event end;
	} row[] = {
		{ "a\r\n.\r\n", "a\r\n", WIRE_BODY_END },
		{ ".\r\n", "", WIRE_BODY_END },
		{ "..\r\n.\r\n", ".\r\n", WIRE_BODY_END },
		{ ".a\r\n...\r\n.\r\n", "a\r\n..\r\n", WIRE_BODY_END },
		{ "a\r\n\r\n.\r\n", "a\r\n\r\n", WIRE_BODY_END },
		{ "a\n.\r\n", NULL, WIRE_BAD_LINE_END },
		{ "a\r\n.\n", NULL, WIRE_BAD_LINE_END },
		{ "a\r.\r\n", NULL, WIRE_BAD_LINE_END },
		{ "a\r\n.\r.\r\n", NULL, WIRE_BAD_LINE_END },
		{ "a\r\r\n.\r\n", NULL, WIRE_BAD_LINE_END },
		{ "a\r\n.\r", "a\r\n", WIRE_MORE },
	};

	for (size_t i = 0; i < sizeof(row) / sizeof(row[0]); i++)
		for (size_t cut = 1; cut <= strlen(row[i].in); cut++) {
			char buf[256];
			struct out o = out_of(buf, sizeof(buf));
			enum wire_event ev = read_data(row[i].in, strlen(row[i].in), cut, &o);

			if (row[i].end != WIRE_MORE)
				assert_int_equal(ev, row[i].end);
			else
				assert_int_not_equal(ev, WIRE_BODY_END);
			if (row[i].content)
				assert_span(out_span(&o), row[i].content);
		}
}

static void unstuffing_undoes_stuffing(void **state)
{
	srandom(3);
	for (int round = 0; round < 3000; round++) {
		char in[200], wire[600], back[400];
		struct out i = out_of(in, sizeof(in)), w = out_of(wire, sizeof(wire)), b = out_of(back, sizeof(back));
		struct wire_stuff st = { 0 };
		struct span rest, slice;
		bool dot;

		while (i.n < 150 && random() % 20)
			out_str(&i, (const char *const[]){ ".", "a", "\r\n", "..", "\r\n." }[random() % 5]);
		out_str(&i, "\r\n");
		rest = out_span(&i);
		while (wire_stuff(&st, &rest, &slice, &dot)) {
			if (dot)
				out_char(&w, '.');
			out_add(&w, slice);
		}
		out_add(&w, wire_stuff_end(&st));
		assert_int_equal(read_data(wire, w.n, 1 + (size_t)random() % w.n, &b), WIRE_BODY_END);
		assert_int_equal(b.n, i.n);
		assert_memory_equal(back, in, i.n);
	}
}

static void lines(void **state)
{
	struct wire w;
	size_t used;
	char big[5000];
	struct span s = SPAN("one\r\ntwo\r\n");

	wire_init(&w);
	wire_mode(&w, WIRE_LINES, 0, true);
	assert_int_equal(wire_next(&w, s, &used), WIRE_LINE);
	assert_span(w.line, "one");
	assert_int_equal(wire_next(&w, span_of(s.p + used, 3), &used), WIRE_MORE);
	assert_int_equal(wire_next(&w, SPAN("\r"), &used), WIRE_MORE);
	assert_int_equal(wire_next(&w, SPAN("\nthree"), &used), WIRE_LINE);
	assert_span(w.line, "two");
	assert_int_equal(used, 1);
	memset(big, 'x', sizeof(big));
	memcpy(big + sizeof(big) - 2, "\r\n", 2);
	assert_int_equal(wire_next(&w, span_of(big, sizeof(big)), &used), WIRE_LINE_LONG);
	assert_int_equal(used, sizeof(big));
	assert_int_equal(wire_next(&w, SPAN("four\r\n"), &used), WIRE_LINE);
	assert_null(w.line_buf); /* an idle connection has none */
	assert_int_equal(wire_next(&w, SPAN("half"), &used), WIRE_MORE);
	assert_int_equal(wire_next(&w, span_of(big, sizeof(big)), &used), WIRE_LINE_LONG);
	assert_int_equal(wire_next(&w, SPAN("a\nb\r\n"), &used), WIRE_BAD_LINE_END);
	wire_forget(&w);
	assert_null(w.line_buf);
}

static void chunks_end_exactly(void **state)
{
	struct wire w;
	size_t used;

	wire_init(&w);
	wire_mode(&w, WIRE_CHUNK, 5, true);
	assert_int_equal(wire_next(&w, SPAN(".\r\nabNOOP\r\n"), &used), WIRE_BODY);
	assert_int_equal(used, 5);
	assert_span(w.body, ".\r\nab");
	assert_true(w.dot_line);
	assert_int_equal(wire_next(&w, SPAN("NOOP\r\n"), &used), WIRE_BODY_END);
	assert_int_equal(used, 0);
	assert_int_equal(wire_next(&w, SPAN("NOOP\r\n"), &used), WIRE_LINE);
}

/* What decides about 8BITMIME: octets of the content, wherever they are in it, and none behind its end. */
static void octets_above_127_are_noticed(void **state)
{
	for (size_t at = 0; at < 80; at++)
		for (size_t cut = 1; cut < 90; cut += 7) {
			char in[128];
			struct wire w;
			size_t used, end = 0;

			memset(in, 'x', sizeof(in));
			memcpy(in + 40, "\r\n", 2);
			memcpy(in + 60, "\r\n.\r\n", 5);
			if (at == 40 || at == 41 || (at >= 60 && at < 65))
				continue;
			in[at] = (char)0xe4;
			wire_init(&w);
			wire_mode(&w, WIRE_DATA, 0, true);
			for (size_t pos = 0; !end; pos += cut) {
				struct span s = span_of(in + pos, pos + cut > sizeof(in) ? sizeof(in) - pos : cut);

				while (s.n && !end) {
					end = wire_next(&w, s, &used) == WIRE_BODY_END;
					s = span_skip(s, used);
				}
			}
			assert_int_equal(w.eight_bit, at < 60);
		}
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(the_same_however_it_is_split), cmocka_unit_test(unstuffing_undoes_stuffing),
		cmocka_unit_test(lines), cmocka_unit_test(chunks_end_exactly), cmocka_unit_test(octets_above_127_are_noticed) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
