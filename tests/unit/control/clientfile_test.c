/* Lines of the registry of clients, and what is wrong with them (A3). */
#include "tests/support/unit.h"

#include <stdlib.h>
#include "control/clientfile.h"
#include "spool/mail/rules.h"

static char *errors;

static void parse(const char *text, struct client_entries *c)
{
	size_t n;
	FILE *f;

	free(errors);
	errors = NULL;
	f = open_memstream(&errors, &n);
	client_entries_read(c, span_str(text), "f", f);
	fclose(f);
}

static void says(const char *text, const char *want)
{
	struct client_entries c;

	parse(text, &c);
	if (!strstr(errors, want))
		fail_msg("%s: \"%s\" is not in: %s", text, want, errors);
	assert_int_equal(c.wrong, 1);
	client_entries_free(&c);
}

static void a_line_says_it_all(void **state)
{
	struct client_entries c;
	const struct client_entry *e;

	parse("# one\n\n \t192.0.2.7 class=Fragile owner=it@x.example rate=100 connections=50 expires=2027-01-31 note=\"an \\\"old\\\" scanner\" \r\n2001:db8::1:2/32\n", &c);
	assert_string_equal(errors, "");
	assert_int_equal(c.n, 2);
	e = &c.row[0];
	assert_int_equal(e->prefix, 128);
	assert_int_equal(e->class_, CLASS_FRAGILE);
	assert_true(e->rate > 99.5 && e->rate < 100.5);
	assert_int_equal(e->conns, 50);
	assert_int_equal(e->expires_s, 1801353600);
	assert_string_equal(e->owner, "it@x.example");
	assert_string_equal(e->note, "an \"old\" scanner");
	assert_int_equal(e->line, 3);
	assert_int_equal(c.row[1].prefix, 32);
	assert_int_equal(c.row[1].ip[5], 0); /* host bits are no part of it */
	assert_true(c.row[1].rate < 0 && c.row[1].expires_s == 0 && c.row[1].class_ == CLASS_ROBUST);
	client_entries_free(&c);
}

static void what_is_written_is_read_back(void **state)
{
	static const char text[] = "192.0.2.7 class=fragile owner=\"a \\\\ \\\"b\\\" #\" rate=none expires=2027-01-31T12:30:00Z note=\"gr\xc3\xbc\xc3\x9f\"\n"
				   "::1\n10.0.0.0/8 rate=5 connections=7\n10.0.0.0/9 connections=none note=n\n0.0.0.0/0\n::/0\n";
	struct client_entries c, again;
	char *once, *twice;
	size_t n;

	parse(text, &c);
	assert_string_equal(errors, "");
	assert_int_equal(c.n, 6);
	once = client_entries_text(&c, &n);
	parse(once, &again);
	assert_string_equal(errors, "");
	twice = client_entries_text(&again, &n);
	assert_string_equal(once, twice);
	assert_string_equal(again.row[1].owner, "a \\ \"b\" #");
	assert_non_null(strstr(once, "0.0.0.0/0 class=robust\n"));
	assert_non_null(strstr(once, "\n::/0 class=robust\n"));
	free(once);
	free(twice);
	client_entries_free(&c);
	client_entries_free(&again);
}

static void errors_name_their_line(void **state)
{
	says("\n192.0.2.256\n", "f:2: \"192.0.2.256\" is not a network; write for example 192.0.2.7");
	says("192.0.2.0/33\n", "f:1: \"192.0.2.0/33\" is not a network");
	says("192.0.2.1\tclass=robust\n", "f:1: \"192.0.2.1\tclass=robust\" is not a network");
	says("192.0.2.1 class=mx\n", "f:1: class \"mx\" is not possible; write robust or fragile");
	says("192.0.2.1 rate=0\n", "f:1: rate \"0\" is not possible; write a number of messages, none or default");
	says("192.0.2.1 expires=90d\n", "f:1: expires \"90d\" is not a day");
	says("192.0.2.1 expires=2027-13-01\n", "f:1: expires \"2027-13-01\" is not a day");
	says("192.0.2.1 Class=robust\n", "f:1: unknown key \"Class\"; there are class, owner, rate, connections, expires and note");
	says("192.0.2.1 connections=0\n", "f:1: connections \"0\" is not possible; write a number of connections, none or default");
	says("192.0.2.1 connections=1 connections=2\n", "f:1: connections is there twice");
	says("192.0.2.1 rate=1 rate=2\n", "f:1: rate is there twice");
	says("192.0.2.1 printer\n", "f:1: \"printer\" is not KEY=VALUE");
	says("192.0.2.1 note=\"no end\n", "f:1: \"note=\"no end\" is not KEY=VALUE");
	says("192.0.2.1 note=\"a\\x0ab\"\n", "f:1: note is one line of text");
	says("10.0.0.0/8\n192.0.2.1\n10.1.2.3/8 rate=1\n", "f:3: 10.0.0.0/8 is there already (line 1)");
}

static void a_long_list_of_errors_ends(void **state)
{
	char text[3000] = "";
	struct client_entries c;

	for (int i = 0; i < 250; i++)
		strcat(text, "x\n");
	parse(text, &c);
	assert_int_equal(c.wrong, 250);
	assert_non_null(strstr(errors, "f:100: "));
	assert_null(strstr(errors, "f:101: "));
	assert_non_null(strstr(errors, "and 150 more errors\n"));
	client_entries_free(&c);
}

static void entries_are_put_and_dropped(void **state)
{
	struct client_entries c = { 0 };
	struct client_entry e;
	char line[64];

	for (int i = 0; i < 300; i++) {
		snprintf(line, sizeof(line), "10.0.%d.%d", i % 7, i % 300 / 7);
		assert_ok(client_parse(span_str(line), &e));
		client_entries_put(&c, &e);
	}
	assert_int_equal(c.n, 300);
	e.rate = 7;
	client_entries_put(&c, &e);
	assert_int_equal(c.n, 300);
	assert_true(client_entries_find(&c, e.ip, e.prefix)->rate > 6);
	while (c.n) {
		e = c.row[c.n / 2];
		client_entries_drop(&c, client_entries_find(&c, e.ip, e.prefix));
		assert_null(client_entries_find(&c, e.ip, e.prefix));
	}
	client_entries_put(&c, &e);
	assert_non_null(client_entries_find(&c, e.ip, e.prefix));
	client_entries_free(&c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_line_says_it_all),
		cmocka_unit_test(what_is_written_is_read_back),
		cmocka_unit_test(errors_name_their_line),
		cmocka_unit_test(a_long_list_of_errors_ends),
		cmocka_unit_test(entries_are_put_and_dropped),
	};
	int failed = cmocka_run_group_tests(tests, NULL, NULL);

	free(errors);
	return failed;
}
