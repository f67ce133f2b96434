#include "tests/support/unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include "bench/mailbox.h"

static char dir[80], outer[64];

static int make(void **state)
{
	snprintf(outer, sizeof(outer), "/tmp/weir-mailbox-XXXXXX");
	if (!mkdtemp(outer))
		return -1;
	snprintf(dir, sizeof(dir), "%s/mail", outer);
	return mkdir(dir, 0700);
}

static int clean(void **state)
{
	char command[128];

	snprintf(command, sizeof(command), "rm -rf '%s'", outer);
	return system(command);
}

static void box(const char *name)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	assert_int_equal(mkdir(path, 0700), 0);
}

/* What the shell says of the mail directory. */
static void says(const char *what, const char *expected)
{
	char command[256], got[4096];
	FILE *f;
	size_t n;

	snprintf(command, sizeof(command), "cd '%s' && %s", dir, what);
	f = popen(command, "r");
	assert_non_null(f);
	n = fread(got, 1, sizeof(got) - 1, f);
	got[n] = '\0';
	pclose(f);
	assert_string_equal(got, expected);
}

static void who_has_no_directory_does_not_exist(void **state)
{
	box("ann@cam.example");
	assert_true(mailbox_there(dir, SPAN("ann@cam.example")));
	assert_true(mailbox_there(dir, SPAN("Ann@CAM.example")));
	assert_false(mailbox_there(dir, SPAN("bob@cam.example")));
	assert_false(mailbox_there(dir, SPAN("")));
}

static void a_strangers_address_leads_to_no_other_place(void **state)
{
	char long_one[300];

	box("ann@cam.example");
	memset(long_one, 'a', sizeof(long_one));
	assert_false(mailbox_there(dir, SPAN(".")));
	assert_false(mailbox_there(dir, SPAN("..")));
	assert_false(mailbox_there(dir, SPAN("../mail")));
	assert_false(mailbox_there(dir, SPAN("ann@cam.example/")));
	assert_false(mailbox_there(dir, SPAN("ann@cam.example/../ann@cam.example")));
	assert_false(mailbox_there(dir, span_of("ann@cam.example\0x", 17)));
	assert_false(mailbox_there(dir, span_of(long_one, sizeof(long_one))));
}

static void a_letter_is_in_each_mailbox_when_it_is_whole(void **state)
{
	struct env_rcpt rcpt[] = { { .addr = SPAN("ann@cam.example") }, { .addr = SPAN("BOB@cam.example") }, { .addr = SPAN("Ann@cam.example") } };
	struct envelope env = { .nrcpt = 3, .rcpt = rcpt };
	struct letter l = { 0 };

	box("ann@cam.example");
	box("bob@cam.example");
	assert_true(letter_begin(&l, dir, SPAN("me@cam.example")));
	letter_add(&l, SPAN("Subject: one\r\n"));
	says("find . -mindepth 2", "");
	letter_add(&l, SPAN("\r\ntext\r\n"));
	assert_true(letter_end(&l, dir, &env));
	says("cat ann@cam.example/*", "Return-Path: <me@cam.example>\r\nSubject: one\r\n\r\ntext\r\n");
	says("cat bob@cam.example/*", "Return-Path: <me@cam.example>\r\nSubject: one\r\n\r\ntext\r\n");
	says("LC_ALL=C ls -A", "ann@cam.example\nbob@cam.example\n");
}

static void a_letter_that_was_dropped_or_has_nowhere_to_go_leaves_nothing(void **state)
{
	struct env_rcpt rcpt = { .addr = SPAN("gone@cam.example") };
	struct envelope env = { .nrcpt = 1, .rcpt = &rcpt };
	struct letter l = { 0 };

	assert_true(letter_begin(&l, dir, SPAN("")));
	letter_drop(&l);
	letter_drop(&l);
	assert_true(letter_begin(&l, dir, SPAN("")));
	assert_false(letter_end(&l, dir, &env));
	assert_false(letter_end(&l, dir, &env)); /* there is none any more */
	says("ls -A", "");
	assert_false(letter_begin(&l, "/nowhere/at/all", SPAN("")));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(who_has_no_directory_does_not_exist, make, clean),
		cmocka_unit_test_setup_teardown(a_strangers_address_leads_to_no_other_place, make, clean),
		cmocka_unit_test_setup_teardown(a_letter_is_in_each_mailbox_when_it_is_whole, make, clean),
		cmocka_unit_test_setup_teardown(a_letter_that_was_dropped_or_has_nowhere_to_go_leaves_nothing, make, clean),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
