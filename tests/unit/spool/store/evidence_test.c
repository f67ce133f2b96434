/* Evidence about clients: kept over restarts and other sizes, read while it is written, and never taken from a file that is none (A3). */
#include "tests/support/unit.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "spool/store/evidence.h"

static char dir[64], path[80], copy[80];

static int begin(void **state)
{
	strcpy(dir, "/tmp/evidence.XXXXXX");
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/evidence-0", dir);
	snprintf(copy, sizeof(copy), "%s/copy", dir);
	return 0;
}

static int end(void **state)
{
	unlink(path);
	unlink(copy);
	return rmdir(dir);
}

static void note(struct evidence_table *t, uint32_t i, uint64_t last_s)
{
	struct evidence *e = &t->row[i];

	evidence_begin(e);
	e->ip[15] = (uint8_t)last_s;
	e->first_s = 1;
	e->last_s = last_s;
	e->messages = last_s;
	e->hits[RULE_RATE] = (uint32_t)last_s;
	evidence_end(e);
}

static void the_newest_stay_in_a_smaller_table(void **state)
{
	struct evidence_table t;
	struct evidence e;

	assert_ok(evidence_open(dir, "", 0, 16, &t));
	for (uint32_t i = 0; i < 10; i++)
		note(&t, i, i + 1);
	evidence_listener(&t, "devices")->sessions = 3;
	evidence_close(&t);
	assert_ok(evidence_open(dir, "", 0, 4, &t));
	for (uint32_t i = 0; i < 4; i++) {
		assert_true(evidence_read(&t, i, &e));
		assert_int_equal(e.last_s, 10 - i);
		assert_int_equal(e.hits[RULE_RATE], 10 - i);
	}
	assert_int_equal(evidence_listener(&t, "devices")->sessions, 3);
	evidence_close(&t);
}

static void rules_that_moved_keep_their_hits(void **state)
{
	struct evidence_table t;
	struct evidence e;
	char name[32] = "", *at = NULL;
	int fd;

	assert_ok(evidence_open(dir, "", 0, 4, &t));
	note(&t, 0, 5);
	/* another program numbered them otherwise: its names stand in the file */
	for (size_t i = 0; i < 4096 && !at; i++)
		if (strcmp((char *)t.file + i, "rate") == 0)
			at = (char *)t.file + i;
	assert_non_null(at);
	strcpy(name, "mail-loop");
	memcpy(at, name, sizeof(name));
	assert_true(evidence_read(&t, 0, &e));
	assert_int_equal(e.hits[RULE_MAIL_LOOP], 5);
	assert_int_equal(e.hits[RULE_RATE], 0);
	strcpy(at, "a-rule-that-went");
	assert_true(evidence_read(&t, 0, &e));
	assert_int_equal(e.hits[RULE_MAIL_LOOP] + e.hits[RULE_RATE], 0);
	evidence_close(&t);
	fd = open(path, O_WRONLY | O_TRUNC);
	close(fd);
}

static void what_is_no_evidence_is_not_read(void **state)
{
	struct evidence_table t;
	struct evidence e;

	assert_int_equal(evidence_map(copy, &t), ST_NOT_FOUND);
	assert_ok(evidence_open(dir, "", 0, 4, &t));
	note(&t, 0, 5);
	evidence_close(&t);
	assert_ok(evidence_save(path, copy));
	assert_int_equal(truncate(path, 1000), 0);
	assert_int_equal(evidence_map(path, &t), ST_CORRUPT);
	assert_ok(evidence_map(copy, &t));
	assert_true(evidence_read(&t, 0, &e));
	evidence_close(&t);
	assert_int_equal(truncate(copy, 12000), 0);
	assert_int_equal(evidence_map(copy, &t), ST_UNSUPPORTED);
	assert_ok(evidence_open(dir, dir, 0, 4, &t)); /* a damaged one is begun anew */
	assert_false(evidence_read(&t, 0, &e));
	evidence_close(&t);
}

static void *write_pairs(void *arg)
{
	struct evidence *e = arg;

	for (uint64_t i = 1; i <= 50000; i++) {
		evidence_begin(e);
		*(volatile uint64_t *)&e->messages = i;
		*(volatile uint64_t *)&e->recipients = i;
		e->first_s = 1;
		evidence_end(e);
		sched_yield(); /* a reader needs a moment between two */
	}
	return NULL;
}

static void a_row_is_read_as_a_whole(void **state)
{
	struct evidence_table t;
	struct evidence e = { 0 };
	pthread_t thread;

	assert_ok(evidence_open(dir, "", 0, 4, &t));
	assert_int_equal(pthread_create(&thread, NULL, write_pairs, &t.row[0]), 0);
	while (e.messages < 50000) {
		evidence_read(&t, 0, &e);
		assert_int_equal(e.messages, e.recipients);
	}
	pthread_join(thread, NULL);
	evidence_close(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(the_newest_stay_in_a_smaller_table, begin, end),
		cmocka_unit_test_setup_teardown(rules_that_moved_keep_their_hits, begin, end),
		cmocka_unit_test_setup_teardown(what_is_no_evidence_is_not_read, begin, end),
		cmocka_unit_test_setup_teardown(a_row_is_read_as_a_whole, begin, end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
