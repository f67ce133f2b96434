/* The entries of a managed domain: errors with their lines, the guards, what changed (C3, C4, C9). */
#include "tests/support/unit.h"

#include <stdio.h>
#include <stdlib.h>
#include "control/entries.h"

#define REQUIRED "postmaster: p@x.example\nwebmaster: w@x.example\nabuse: a@x.example\n"

static char *errors;
static size_t errors_len;

static char *many(unsigned n)
{
	char *text = malloc(64 + 40 * (size_t)n), *p = text;

	p += sprintf(p, REQUIRED);
	for (unsigned i = 3; i < n; i++)
		p += sprintf(p, "user%u: u%u@x.example\n", i, i);
	return text;
}

static enum guard judge(const char *text, const char *live, unsigned shrink)
{
	struct entries e, old = { 0 };
	enum guard g;
	FILE *f;

	free(errors);
	errors = NULL;
	f = open_memstream(&errors, &errors_len);
	entries_read(&e, span_str(text), "x", f);
	if (live)
		entries_read(&old, span_str(live), "live", f);
	g = entries_guard(&e, live ? &old : NULL, shrink, f);
	entries_free(&e);
	entries_free(&old);
	fclose(f);
	return g;
}

static void three_names_must_be_there(void **state)
{
	assert_int_equal(judge(REQUIRED, NULL, 25), GUARD_PASSED);
	assert_int_equal(judge("Postmaster: p@x.example\r\n# x\r\n\r\n\"webmaster\": w@x.example\r\nABUSE : a@x.example", NULL, 25), GUARD_PASSED);
	assert_int_equal(judge("postmaster: p@x.example\nabuse: a@x.example\n", NULL, 25), GUARD_WRONG);
	assert_non_null(strstr(errors, "webmaster is missing"));
	assert_null(strstr(errors, "abuse is missing"));
}

static void errors_have_their_lines(void **state)
{
	assert_int_equal(judge(REQUIRED "\nAbuse: b@x.example\nno\nx: y\n", NULL, 25), GUARD_WRONG);
	assert_non_null(strstr(errors, "x:5: \"abuse\" is there already (line 3)"));
	assert_non_null(strstr(errors, "x:6: \"no\" has no colon"));
	assert_non_null(strstr(errors, "x:7: \"y\" has no domain"));
}

static void a_quarter_may_go_and_no_more(void **state)
{
	static const struct {
		unsigned live, now, shrink;
		enum guard g;
	} cases[] = { { 100, 75, 25, GUARD_PASSED }, { 100, 74, 25, GUARD_SHRUNK }, { 4, 3, 25, GUARD_PASSED }, { 5, 3, 25, GUARD_SHRUNK },
		{ 100, 99, 0, GUARD_SHRUNK }, { 100, 100, 0, GUARD_PASSED }, { 100, 3, 100, GUARD_PASSED }, { 3, 1000, 25, GUARD_PASSED } };

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char *live = many(cases[i].live), *now = many(cases[i].now);

		if (judge(now, live, cases[i].shrink) != cases[i].g)
			fail_msg("%u of %u at %u", cases[i].now, cases[i].live, cases[i].shrink);
		free(live);
		free(now);
	}
}

static void what_changed(void **state)
{
	struct entries a, b;
	struct entries_diff d;
	char *all;

	entries_read(&a, SPAN("a: x@x.example\nb: x@x.example, y@x.example\nc: x@x.example\n"), "", stderr);
	entries_read(&b, SPAN("C: y@x.example\nB:x@x.example,y@x.example\nd: x@x.example\n"), "", stderr);
	entries_compare(&a, &b, &d);
	assert_string_equal(d.text, "-a ~c +d");
	assert_true(d.added == 1 && d.removed == 1 && d.changed == 1);
	entries_compare(NULL, &a, &d);
	assert_string_equal(d.text, "+a +b +c");
	entries_free(&b);
	all = many(5000);
	entries_read(&b, span_str(all), "", stderr);
	entries_compare(&a, &b, &d);
	assert_int_equal(d.added, 5000);
	assert_true(strlen(d.text) < sizeof(d.text) && strcmp(d.text + strlen(d.text) - 4, " ...") == 0);
	free(all);
	entries_free(&a);
	entries_free(&b);
}

static int clean(void **state)
{
	free(errors);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(three_names_must_be_there),
		cmocka_unit_test(errors_have_their_lines),
		cmocka_unit_test(a_quarter_may_go_and_no_more),
		cmocka_unit_test(what_changed),
	};

	return cmocka_run_group_tests(tests, NULL, clean);
}
