/* The history of a managed domain on the disk: what was added is there, and a kill at any system call leaves the state before or the one after (C1, C9). */
#include "tests/support/unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
#include "control/history.h"
#include "tests/support/kill_at.h"

static char dir[64];

static int set_up(void **state)
{
	snprintf(dir, sizeof(dir), "/tmp/weir-history-XXXXXX");
	return mkdtemp(dir) ? 0 : -1;
}

static int tear_down(void **state)
{
	char cmd[128];

	snprintf(cmd, sizeof(cmd), "rm -r %s", dir);
	return system(cmd);
}

static enum status add(const char *text, uint32_t keep)
{
	struct history_row row = { .how = "set", .by = "a \"b\" c", .source = "command", .entries = 1, .diff = "+x\xc3\xa9 ~y" };

	return history_add(dir, "d.example", &row, span_str(text), keep, HISTORY_NOW);
}

static void expect_live(uint64_t n, const char *text)
{
	struct history_row row;
	char *bytes;
	size_t len;

	assert_ok(history_last(dir, "d.example", &row));
	assert_int_equal(row.n, n);
	assert_ok(history_read(dir, "d.example", &row, &bytes, &len));
	assert_int_equal(len, strlen(text));
	assert_memory_equal(bytes, text, len);
	free(bytes);
}

static void count_row(void *ctx, const struct history_row *row)
{
	assert_int_equal(row->n, ++*(uint64_t *)ctx);
	assert_string_equal(row->by, "a \"b\" c");
	assert_string_equal(row->diff, "+x\xc3\xa9 ~y");
}

static void what_was_added_is_there(void **state)
{
	struct history_row row;
	uint64_t n = 0;
	char *bytes;
	size_t len;

	assert_int_equal(history_last(dir, "d.example", &row), ST_NOT_FOUND);
	for (int i = 0; i < 30; i++) {
		char text[32];

		snprintf(text, sizeof(text), "text %d", i);
		assert_ok(add(text, 5));
		expect_live((uint64_t)i + 1, text);
	}
	assert_ok(history_each(dir, "d.example", count_row, &n));
	assert_int_equal(n, 30);
	/* the newest five copies, and the live one, are kept */
	assert_ok(history_find(dir, "d.example", 26, &row));
	assert_ok(history_read(dir, "d.example", &row, &bytes, &len));
	free(bytes);
	assert_ok(history_find(dir, "d.example", 25, &row));
	assert_int_equal(history_read(dir, "d.example", &row, &bytes, &len), ST_IO);
	assert_int_equal(history_find(dir, "d.example", 31, &row), ST_NOT_FOUND);
}

static void a_copy_that_is_not_what_was_written_is_noticed(void **state)
{
	char path[4500], *bytes;
	struct history_row row;
	size_t len;
	FILE *f;

	assert_ok(add("one", 5));
	f = fopen(history_path(dir, "d.example", "copy-1", path), "w");
	assert_non_null(f);
	fputs("two", f);
	fclose(f);
	assert_ok(history_last(dir, "d.example", &row));
	assert_int_equal(history_read(dir, "d.example", &row, &bytes, &len), ST_CORRUPT);
}

/* Every length that a row can have when its writing was cut. */
static void a_row_that_was_not_finished_never_was(void **state)
{
	char path[4500], text[4096];
	size_t first, both;
	FILE *f;

	assert_ok(add("one", 5));
	f = fopen(history_path(dir, "d.example", "log", path), "r");
	first = fread(text, 1, sizeof(text), f);
	fclose(f);
	assert_ok(add("two", 5));
	f = fopen(path, "r");
	both = fread(text, 1, sizeof(text), f);
	fclose(f);
	for (size_t n = first; n < both; n++) {
		f = fopen(path, "w");
		fwrite(text, 1, n, f);
		fclose(f);
		expect_live(1, "one");
		assert_ok(add("three", 5));
		expect_live(2, "three");
	}
}

/* Two that write: who has compared with a row that is not the last any more adds none. */
static void a_row_comes_only_behind_the_one_that_was_seen(void **state)
{
	struct history_row row = { .how = "file", .by = "b", .source = "f", .n = 1 };

	assert_ok(history_add(dir, "d.example", &row, SPAN("one"), 5, HISTORY_LATER));
	assert_ok(add("two", 5));
	row.n = 2;
	assert_int_equal(history_add(dir, "d.example", &row, SPAN("three"), 5, HISTORY_LATER), ST_AGAIN);
	expect_live(2, "two");
	row.n = 3;
	assert_ok(history_add(dir, "d.example", &row, SPAN("three"), 5, HISTORY_LATER));
	expect_live(3, "three");
}

enum { WRITERS = 4, ROWS_EACH = 50 };

static void rows_of_several_processes_are_all_there(void **state)
{
	uint64_t n = 0;

	for (int w = 0; w < WRITERS; w++) {
		pid_t pid = fork();

		assert_true(pid >= 0);
		for (int i = 0; pid == 0 && i < ROWS_EACH; i++)
			if (add("text", 1000) != ST_OK)
				_exit(1);
		if (pid == 0)
			_exit(0);
	}
	for (int w = 0; w < WRITERS; w++) {
		int status;

		assert_true(wait(&status) > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0);
	}
	assert_ok(history_each(dir, "d.example", count_row, &n)); /* numbered one by one */
	assert_int_equal(n, WRITERS * ROWS_EACH);
}

static bool add_text(void *text)
{
	return add(text, 2) == ST_OK;
}

static void a_kill_at_any_system_call_leaves_one_state_or_the_other(void **state)
{
	unsigned k = 0, before = 0, after = 0;
	struct history_row row;
	char live[32] = "begin", text[32];
	uint64_t n = 1;

	if (!kill_at_works())
		skip();
	assert_ok(add(live, 2));
	for (bool done = false; !done; k++) {
		snprintf(text, sizeof(text), "text %u", k);
		done = kill_at(k, add_text, text);
		assert_ok(history_last(dir, "d.example", &row));
		if (row.n == n) {
			before++;
		} else {
			n++;
			memcpy(live, text, sizeof(live));
			after++;
		}
		expect_live(n, live);
	}
	print_message("%u kills: %u before, %u after\n", k - 1, before, after - 1);
	assert_true(before > 5 && after > 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(what_was_added_is_there, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_copy_that_is_not_what_was_written_is_noticed, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_row_that_was_not_finished_never_was, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_row_comes_only_behind_the_one_that_was_seen, set_up, tear_down),
		cmocka_unit_test_setup_teardown(rows_of_several_processes_are_all_there, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_kill_at_any_system_call_leaves_one_state_or_the_other, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
