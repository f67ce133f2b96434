#include "tests/support/unit.h"

#include <stdio.h>
#include "control/aliasfile.h"

static void lines_comments_and_line_ends(void **state)
{
	struct aliasfile f = aliasfile_of(SPAN("\xef\xbb\xbf# head\r\n\r\n  fred : Fred@x.example ,b@y.example \t# two\r\n\n\t \na#b:c#d@x.example\n#\nlast:z@x.example"));
	struct span rest, one;

	assert_int_equal(aliasfile_next(&f), ALIASFILE_ENTRY);
	assert_int_equal(f.line, 3);
	assert_span(f.name, "fred");
	rest = f.addresses;
	assert_true(aliasfile_address(&rest, &one));
	assert_span(one, "Fred@x.example");
	assert_true(aliasfile_address(&rest, &one));
	assert_span(one, "b@y.example");
	assert_false(aliasfile_address(&rest, &one));
	assert_int_equal(aliasfile_next(&f), ALIASFILE_ENTRY);
	assert_int_equal(f.line, 6);
	assert_span(f.name, "a#b");
	assert_span(f.addresses, "c#d@x.example");
	assert_int_equal(aliasfile_next(&f), ALIASFILE_ENTRY);
	assert_int_equal(f.line, 8);
	assert_span(f.addresses, "z@x.example");
	assert_int_equal(aliasfile_next(&f), ALIASFILE_END);
	assert_int_equal(aliasfile_next(&f), ALIASFILE_END);
}

static void quoted_local_parts(void **state)
{
	struct aliasfile f = aliasfile_of(SPAN("\"a:b,#c\": \"x, #y\"@z.example, q@z.example\n"));
	struct span rest, one;

	assert_int_equal(aliasfile_next(&f), ALIASFILE_ENTRY);
	assert_span(f.name, "\"a:b,#c\"");
	rest = f.addresses;
	assert_true(aliasfile_address(&rest, &one));
	assert_span(one, "\"x, #y\"@z.example");
	assert_true(aliasfile_address(&rest, &one));
	assert_span(one, "q@z.example");
}

static void every_mistake_has_its_line_and_reading_goes_on(void **state)
{
	static const struct {
		const char *line, *says;
	} bad[] = {
		{ "no colon here", "has no colon" },
		{ ": a@b.example", "is not a local part" },
		{ "a b: a@b.example", "is not a local part" },
		{ "a@b.example: c@d.example", "without its domain" },
		{ "a:", "has no address" },
		{ "a: # nothing", "has no address" },
		{ "a: b", "has no domain" },
		{ "a: b@", "is not an address" },
		{ "a: b@c..example", "is not an address" },
		{ "a: b@c.example,", "an address is empty" },
		{ "a: ,b@c.example", "an address is empty" },
		{ "a: b@c.example d@e.example", "is not an address" },
		{ "a: <b@c.example>", "is not an address" },
		{ "a: \xc3\xa9@c.example", "is not ASCII" },
		{ "a\x01: b@c.example", "control character (0x01)" },
		{ "a: b@c.example\r", "control character (0x0d)" },
		{ "\xef\xbb\xbf" "a: b@c.example", "byte order mark" },
		{ ".a: b@c.example", "is not a local part" },
		{ "\"a: b@c.example", "has no colon" },
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		char text[256];
		struct aliasfile f;

		snprintf(text, sizeof(text), "# one\n%s\r\ngood: a@b.example\n", bad[i].line);
		f = aliasfile_of(span_str(text));
		assert_int_equal(aliasfile_next(&f), ALIASFILE_WRONG);
		assert_int_equal(f.line, 2);
		if (!strstr(f.wrong, bad[i].says))
			fail_msg("\"%s\" gives \"%s\"", bad[i].line, f.wrong);
		assert_int_equal(aliasfile_next(&f), ALIASFILE_ENTRY);
		assert_span(f.name, "good");
		assert_int_equal(aliasfile_next(&f), ALIASFILE_END);
	}
}

static void what_is_good(void **state)
{
	static const char *const good[] = { "a:b@c.example", "A.b+c:b@[192.0.2.1]", "\xc3\xa9:b@c.example", "a:b@b\xc3\xbc" "cher.example", "a:\"b c\"@d.example" };

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		struct aliasfile f = aliasfile_of(span_str(good[i]));

		if (aliasfile_next(&f) != ALIASFILE_ENTRY)
			fail_msg("\"%s\": %s", good[i], f.wrong);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lines_comments_and_line_ends),
		cmocka_unit_test(quoted_local_parts),
		cmocka_unit_test(every_mistake_has_its_line_and_reading_goes_on),
		cmocka_unit_test(what_is_good),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
