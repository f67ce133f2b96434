/* Lists of addresses that have moved: what is a local part, and what is said of everything else. */
#include "tests/support/unit.h"

#include "control/movedfile.h"

/* All lines, each "LINE:KEY" or "LINE!". */
static const char *read_all(const char *text)
{
	static char all[400];
	struct out o = out_of(all, sizeof(all) - 1);
	struct movedfile f = movedfile_of(span_str(text));

	while (movedfile_next(&f)) {
		out_u64(&o, f.line);
		out_char(&o, f.wrong ? '!' : ':');
		if (!f.wrong)
			out_add(&o, out_span(&f.key));
		out_char(&o, ' ');
	}
	all[o.n] = '\0';
	return all;
}

static void local_parts_are_keys(void **state)
{
	assert_string_equal(read_all("Ann\nb#b # two\r\n\r\n# none\n  carl\t\r\n\"odd one\"\n\"a@b\""), "1:ann 2:b#b 5:carl 6:odd one 7:a@b ");
	assert_string_equal(read_all(""), "");
	assert_string_equal(read_all("\n\n"), "");
}

static void what_is_none_is_said_and_reading_goes_on(void **state)
{
	assert_string_equal(read_all("ann@cam.example\nbob\nann smith\n.x\nann:bob\ncarl"), "1! 2:bob 3! 4! 5! 6:carl ");
	assert_string_equal(read_all("a\x01" "b\n\xff\xfe\nd"), "1! 2! 3:d ");
}

static void long_lines_are_wrong(void **state)
{
	char text[3000];

	memset(text, 'x', sizeof(text));
	text[sizeof(text) - 3] = '\n';
	text[sizeof(text) - 2] = 'y';
	text[sizeof(text) - 1] = '\0';
	assert_string_equal(read_all(text), "1! 2:y ");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(local_parts_are_keys),
		cmocka_unit_test(what_is_none_is_said_and_reading_goes_on),
		cmocka_unit_test(long_lines_are_wrong),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
