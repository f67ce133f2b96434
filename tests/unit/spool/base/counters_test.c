/* Counter files outlive their processes: totals go on, gauges begin anew, and what is not such a file is not taken for one. */
#include "tests/support/unit.h"

#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "spool/base/counters.h"

static char dir[64], path[80];

static void one_life(void)
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		CHECK(counters_open(dir, "role", 3) == ST_OK);
		counter_add(C_MSG_ACCEPTED, 7);
		counter_set(C_SCANNERS, 5);
		_exit(0); /* without counters_close: as if killed */
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

static uint64_t value(const struct counters_page *p, enum counter c)
{
	return atomic_load(&p->v[c]);
}

static void totals_go_on_and_gauges_begin_anew(void **state)
{
	const struct counters_page *p;

	one_life();
	assert_ok(counters_map(path, &p));
	assert_int_equal(value(p, C_MSG_ACCEPTED), 7);
	assert_int_equal(value(p, C_SCANNERS), 5);
	assert_ok(counters_open(dir, "role", 3));
	assert_int_equal(value(p, C_MSG_ACCEPTED), 7); /* a reader's mapping lives on */
	assert_int_equal(value(p, C_SCANNERS), 0);
	assert_int_equal(atomic_load(&p->restarts), 2);
	assert_int_equal(atomic_load(&p->pid), getpid());
	counters_close();
	assert_int_equal(atomic_load(&p->pid), 0);
	one_life();
	assert_int_equal(value(p, C_MSG_ACCEPTED), 14);
	counters_unmap(p);
}

static void spoil(off_t at, const char *with, size_t n)
{
	int fd = open(path, O_RDWR);

	assert_int_equal(pwrite(fd, with, n, at), (ssize_t)n);
	close(fd);
}

static void a_table_of_another_version(void **state)
{
	const struct counters_page *p;

	one_life();
	spoil(offsetof(struct counters_page, layout), "other", 5);
	assert_int_equal(counters_map(path, &p), ST_UNSUPPORTED);
	one_life(); /* begins it anew */
	assert_ok(counters_map(path, &p));
	assert_int_equal(value(p, C_MSG_ACCEPTED), 7);
	counters_unmap(p);
	assert_int_equal(truncate(path, 100), 0);
	assert_int_equal(counters_map(path, &p), ST_UNSUPPORTED);
}

/* A reader of a longer table must not be cut off below its feet: that would be a SIGBUS. */
static void a_longer_file_stays_long(void **state)
{
	struct stat st;

	assert_int_equal(truncate(path, 1 << 16), 0);
	one_life();
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_size, 1 << 16);
}

static int begin(void **state)
{
	strcpy(dir, "/tmp/weir-counters-XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	snprintf(path, sizeof(path), "%s/role-3", dir);
	return close(open(path, O_RDWR | O_CREAT, 0600));
}

static int end(void **state)
{
	unlink(path);
	return rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test_setup_teardown(totals_go_on_and_gauges_begin_anew, begin, end),
		cmocka_unit_test_setup_teardown(a_table_of_another_version, begin, end),
		cmocka_unit_test_setup_teardown(a_longer_file_stays_long, begin, end) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
