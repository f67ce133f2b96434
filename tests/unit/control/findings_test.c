#include "tests/support/tables_fixture.h"

#include "control/findings.h"
#include "dataplane/policy/alias.h"

static void collect(void *ctx, const struct tables *t, const struct tables_alias *a, const char *what, struct span detail)
{
	struct out *o = ctx;

	out_fmt(o, "%u %.*s %s;", a->line, SPAN_FMT(detail), what);
}

static void loops_and_dead_ends(void **state)
{
	struct fixture x;
	char text[1000];
	struct out o = out_of(text, sizeof(text));

	fixture_begin(&x);
	fixture_file(&x, "a",
		"r1: r2@a.example\nr2: r3@long.example\nr3: ok@x.example, r1@fixed.example\nself: self@a.example\n"
		"dead: gone@long.example, postmaster@a.example, x@old.example\ntwo: self@a.example, dead@a.example\n");
	assert_true(fixture_compile(&x, "mail_domains: [{domain: a.example, aliases: a}, {domain: long.example, long_form_of: a.example}, "
					"{domain: old.example, retired: x}, {domain: fixed.example, forward: r1@a.example}]\n"));
	assert_int_equal(tables_findings(&x.tables, collect, &o), 3);
	assert_span(out_span(&o), "5 gone@long.example leads nowhere;5 x@old.example leads nowhere;3 r1@fixed.example closes a loop;");
	fixture_end(&x);
}

/* What is said to be too deep is what the rule refuses, at exactly the same length. */
static void depth_is_that_of_the_rule(void **state)
{
	for (int length = 14; length < 20; length++) {
		struct fixture x;
		struct alias_expansion e;
		struct policy_facts f;
		struct address a;
		struct pool pool;
		char text[1000], found[1000];
		struct out o = out_of(text, sizeof(text)), g = out_of(found, sizeof(found));

		for (int i = 0; i < length; i++)
			out_fmt(&o, "n%d: n%d@%s\n", i, i + 1, i == 7 ? "long.example" : "a.example");
		out_fmt(&o, "n%d: end@x.example%c", length, 0);
		fixture_begin(&x);
		fixture_file(&x, "a", text);
		assert_true(fixture_compile(&x, "mail_domains: [{domain: a.example, aliases: a}, {domain: long.example, long_form_of: a.example}]\n"));
		f = (struct policy_facts){ .snap = &x.snap, .tables = &x.tables };
		pool_init(&pool, 1 << 20);
		assert_ok(address_parse(SPAN("n0@a.example"), 0, &a));
		policy_alias(&f, &a, false, &pool, &e);
		assert_int_equal(e.d.accept, length + 1 <= ALIAS_DEPTH_MAX);
		assert_int_equal(tables_findings(&x.tables, collect, &g), e.d.accept ? 0 : 1);
		pool_reset(&pool);
		fixture_end(&x);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(loops_and_dead_ends),
		cmocka_unit_test(depth_is_that_of_the_rule),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
