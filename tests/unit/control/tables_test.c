/* The compiler and the reader together; generations on disk, and a kill at every system call of their switch. */
#include "tests/support/tables_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include "control/generations.h"
#include "tests/support/kill_at.h"

static const char config[] = "mail_domains:\n"
			     "  - {domain: B.example, aliases: b, forwarding: users}\n"
			     "  - {domain: a.example, aliases: a, unlisted: deliver}\n"
			     "  - {domain: long.example, long_form_of: a.example}\n"
			     "  - {domain: old.example, retired: gone}\n"
			     "  - {domain: fixed.example, forward: X@B.example}\n";

static void write_files(struct fixture *x)
{
	fixture_file(x, "a", "one: x@B.Example, y@elsewhere.example\n\"Two\": z@long.example\n");
	fixture_file(x, "b", "X: one@a.example\n");
	fixture_file(x, "users", "u1: u1@b.example\n");
}

static const struct tables_domain *domain(const struct fixture *x, const char *name)
{
	const struct tables_domain *d = tables_find_domain(&x->tables, span_str(name));

	assert_non_null(d);
	return d;
}

static void what_is_compiled_is_found(void **state)
{
	struct fixture x;
	const struct tables_alias *a;
	const struct tables *t = &x.tables;

	fixture_begin(&x);
	write_files(&x);
	assert_true(fixture_compile(&x, config));
	assert_int_equal(t->h->domains.n, 5);
	assert_int_equal(t->h->aliases.n, 4);
	a = tables_find_alias(t, domain(&x, "a.example"), SPAN("one"));
	assert_non_null(a);
	assert_int_equal(a->ntargets, 2);
	assert_int_equal(a->line, 1);
	assert_span(tables_span(t, t->target[a->first_target].addr), "x@b.example");
	assert_ptr_equal(&t->domain[t->target[a->first_target].domain], domain(&x, "b.example"));
	assert_int_equal(t->target[a->first_target + 1].domain, TABLES_NONE);
	assert_non_null(tables_find_alias(t, domain(&x, "a.example"), SPAN("two")));
	assert_null(tables_find_alias(t, domain(&x, "b.example"), SPAN("one")));
	assert_null(tables_find_domain(t, SPAN("c.example")));
	assert_int_equal(domain(&x, "a.example")->deliver_unlisted, 1);
	assert_ptr_equal(&t->domain[domain(&x, "long.example")->short_form], domain(&x, "a.example"));
	assert_span(tables_span(t, domain(&x, "old.example")->text), "gone");
	a = tables_find_alias(t, domain(&x, "b.example"), SPAN("u1"));
	assert_true(a && a->is_forwarding);
	fixture_end(&x);
}

static void duplicates_and_missing_files_are_errors_with_their_place(void **state)
{
	struct fixture x;

	fixture_begin(&x);
	write_files(&x);
	fixture_file(&x, "a", "one: x@b.example\n\nONE: y@b.example\nbad\n\"one\": z@b.example\n");
	fixture_file(&x, "users", "x: u@b.example\n");
	assert_false(fixture_compile(&x, config));
	assert_non_null(strstr(x.errors, "/a:3: \"one\" is there already"));
	assert_non_null(strstr(x.errors, "/a:5: \"one\" is there already"));
	assert_non_null(strstr(x.errors, "/a:4: \"bad\" has no colon"));
	assert_non_null(strstr(x.errors, "/users:1: \"x\" is there already"));
	fixture_again(&x);
	assert_false(fixture_compile(&x, "mail_domains: [{domain: a.example, aliases: missing}, {domain: b.example, aliases: .}]\n"));
	assert_non_null(strstr(x.errors, "/missing: No such file"));
	assert_non_null(strstr(x.errors, ": not a file"));
	fixture_end(&x);
}

static void no_domains_is_a_table_too(void **state)
{
	struct fixture x;

	fixture_begin(&x);
	assert_true(fixture_compile(&x, "mail_domains: []\n"));
	assert_null(tables_find_domain(&x.tables, SPAN("a.example")));
	fixture_end(&x);
}

static void every_flipped_bit_and_every_cut_is_noticed(void **state)
{
	struct fixture x;
	struct tables t;

	fixture_begin(&x);
	write_files(&x);
	assert_true(fixture_compile(&x, config));
	for (size_t i = 0; i < x.n; i++) {
		x.bytes[i] ^= (char)(1 << i % 8);
		if (tables_check(x.bytes, x.n, "t", &t) == ST_OK)
			fail_msg("byte %zu", i);
		x.bytes[i] ^= (char)(1 << i % 8);
	}
	for (size_t i = 0; i < x.n; i++)
		assert_int_not_equal(tables_check(x.bytes, i, "t", &t), ST_OK);
	assert_ok(tables_check(x.bytes, x.n, "t", &t));
	fixture_end(&x);
}

static void many_aliases_are_all_found_and_no_others(void **state)
{
	enum { DOMAINS = 20, ALIASES = 500 };
	struct fixture x;
	char name[64], *text;
	size_t len;
	FILE *f;

	fixture_begin(&x);
	for (int d = 0; d < DOMAINS; d++) {
		f = open_memstream(&text, &len);
		for (int i = 0; i < ALIASES; i++)
			fprintf(f, "user%d.%d: u%d@d%d.example\n", d, i, i, (d + i) % (DOMAINS + 5));
		fclose(f);
		snprintf(name, sizeof(name), "file%d", d);
		fixture_file(&x, name, text);
		free(text);
	}
	f = open_memstream(&text, &len);
	fputs("mail_domains:\n", f);
	for (int d = 0; d < DOMAINS; d++)
		fprintf(f, "  - {domain: d%d.example, aliases: file%d}\n", d, d);
	fclose(f);
	assert_true(fixture_compile(&x, text));
	free(text);
	for (int d = 0; d < DOMAINS; d++)
		for (int i = 0; i < ALIASES; i++) {
			const struct tables_domain *dom;
			const struct tables_alias *a;

			snprintf(name, sizeof(name), "d%d.example", d);
			dom = domain(&x, name);
			snprintf(name, sizeof(name), "user%d.%d", d, i);
			a = tables_find_alias(&x.tables, dom, span_str(name));
			assert_non_null(a);
			assert_int_equal(a->line, i + 1);
			snprintf(name, sizeof(name), "user%d.%d", d + 1, i);
			assert_null(tables_find_alias(&x.tables, dom, span_str(name)));
		}
	fixture_end(&x);
}

/* ---- generations ---- */

static uint64_t publish(struct fixture *x, const char *text, enum publish_tables how)
{
	uint64_t generation;

	fixture_file(x, "a", text);
	assert_true(tables_publish(&x->snap, x->dir, how, stderr, NULL, &generation));
	return generation;
}

static void generations_come_and_go(void **state)
{
	struct fixture x;
	uint64_t *all, g;
	struct tables t;

	fixture_begin(&x);
	write_files(&x);
	assert_true(fixture_compile(&x, "mail_domains: [{domain: a.example, aliases: a}]\ntables: {keep: 3}\n"));
	assert_int_equal(publish(&x, "one: x@b.example\n", TABLES_AT_START), 1);
	assert_int_equal(publish(&x, "one: x@b.example\n", TABLES_AT_START), 1); /* the same: nothing is made */
	assert_int_equal(publish(&x, "two: x@b.example\n", TABLES_AT_START), 2);
	assert_ok(tables_rollback(x.dir, 0, &g));
	assert_int_equal(g, 1);
	assert_int_equal(publish(&x, "three: x@b.example\n", TABLES_AT_START), 1); /* pinned */
	assert_int_equal(publish(&x, "three: x@b.example\n", TABLES_BY_COMMAND), 3);
	assert_false(generations_pinned(x.dir));
	assert_int_equal(publish(&x, "four: x@b.example\n", TABLES_AT_START), 4);
	assert_int_equal(generations_list(x.dir, &all), 3);
	assert_int_equal(all[0], 2);
	free(all);
	assert_int_equal(tables_rollback(x.dir, 1, &g), ST_NOT_FOUND);
	assert_ok(tables_open_current(x.dir, &t));
	assert_int_equal(t.h->generation, 4);
	tables_close(&t);
	fixture_end(&x);
}

/* Runs the switch in a child that is killed before its k-th system call. True: it came to its end. */
static bool switch_over(void *ctx)
{
	const struct fixture *x = ctx;
	uint64_t generation;

	return tables_publish(&x->snap, x->dir, TABLES_AT_START, stderr, NULL, &generation);
}

static void a_kill_at_any_system_call_leaves_a_good_generation(void **state)
{
	struct fixture x;
	uint64_t before, after;
	unsigned k, old = 0, new = 0;
	char text[64];

	if (!kill_at_works())
		skip();
	fixture_begin(&x);
	write_files(&x);
	assert_true(fixture_compile(&x, "mail_domains: [{domain: a.example, aliases: a}]\ntables: {keep: 2}\n"));
	before = publish(&x, "zero: x@b.example\n", TABLES_AT_START);
	for (k = 1;; k++) {
		struct tables t;
		bool done;

		snprintf(text, sizeof(text), "n%u: x@b.example\n", k);
		fixture_file(&x, "a", text);
		done = kill_at(k, switch_over, &x);
		after = tables_current(x.dir);
		assert_true(after == before || after > before);
		assert_ok(tables_open_current(x.dir, &t));
		assert_int_equal(t.h->generation, after); /* the current one itself is good, not a stand-in */
		if (after > before)
			assert_non_null(tables_find_alias(&t, tables_find_domain(&t, SPAN("a.example")), span_of(text, strcspn(text, ":"))));
		tables_close(&t);
		old += after == before;
		new += after > before;
		before = after;
		if (done)
			break;
	}
	assert_true(old > 10 && new > 1);
	print_message("killed at %u system calls: %u left the old generation, %u the new one\n", k - 1, old, new - 1);
	fixture_end(&x);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_compiled_is_found),
		cmocka_unit_test(duplicates_and_missing_files_are_errors_with_their_place),
		cmocka_unit_test(no_domains_is_a_table_too),
		cmocka_unit_test(every_flipped_bit_and_every_cut_is_noticed),
		cmocka_unit_test(many_aliases_are_all_found_and_no_others),
		cmocka_unit_test(generations_come_and_go),
		cmocka_unit_test(a_kill_at_any_system_call_leaves_a_good_generation),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
