/* Log lines arrive whole or not at all: from several processes at once, and at a reader that sleeps. */
#include "tests/support/unit.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include "spool/base/log.h"

enum { WRITERS = 4, LINES = 3000 };

static char text[1800];

static void write_line(unsigned i)
{
	struct logline l;

	log_begin(&l, LOG_LVL_INFO, "line");
	log_u64(&l, "number", i);
	log_span(&l, "text", span_of(text, 200 + i * 37 % 1500));
	log_str(&l, "end", "yes");
	log_emit(&l);
	if (i % 5 == 0)
		log_flush();
}

/* Every line begins and ends as it was written. Gives how many there are of `event`; the rest must be of "log-lost". */
static unsigned check_lines(FILE *f, const char *event)
{
	char *line = NULL;
	size_t cap = 0;
	unsigned n = 0;
	ssize_t len;

	while ((len = getline(&line, &cap, f)) > 0) {
		struct span rest = span_of(line, (size_t)len - 1), key, value;
		char buf[2048], last[32] = "";
		bool is_event = false;

		assert_int_equal(line[len - 1], '\n');
		assert_memory_equal(line, "ts=20", 5);
		while (row_next(&rest, &key, &value, buf, sizeof(buf))) {
			snprintf(last, sizeof(last), "%.*s", SPAN_FMT(key));
			is_event = is_event || (span_eq(key, SPAN("event")) && span_eq(value, span_str(event)));
		}
		assert_int_equal(rest.n, 0);
		assert_string_equal(last, is_event ? "end" : "lines");
		n += is_event;
	}
	free(line);
	return n;
}

static void processes_do_not_write_into_each_others_lines(void **state)
{
	int fd[2];
	FILE *f;

	assert_int_equal(pipe(fd), 0);
	for (int k = 0; k < WRITERS; k++)
		if (fork() == 0) {
			log_init(fd[1], "writer", k, LOG_LVL_INFO);
			for (unsigned i = 0; i < LINES; i++)
				write_line(i);
			log_flush();
			_exit(0);
		}
	close(fd[1]);
	f = fdopen(fd[0], "r");
	assert_in_range(check_lines(f, "line"), WRITERS * LINES / 2, WRITERS * LINES);
	fclose(f);
	while (wait(NULL) > 0)
		;
}

/* Mail goes on when nobody reads the log; what is read later is whole, and says that something is missing. */
static void asleep_reader(int fd[2])
{
	pid_t pid = fork();
	int status;
	FILE *f;

	if (pid == 0) {
		alarm(20); /* a log that waits ends the test here */
		close(fd[0]);
		log_init(fd[1], "writer", 0, LOG_LVL_INFO);
		for (unsigned i = 0; i < LINES; i++)
			write_line(i);
		log_flush();
		_exit(0);
	}
	close(fd[1]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	f = fdopen(fd[0], "r");
	assert_in_range(check_lines(f, "line"), 10, LINES - 1);
	fclose(f);
}

static void a_pipe_that_nobody_reads(void **state)
{
	int fd[2];

	assert_int_equal(pipe(fd), 0);
	asleep_reader(fd);
}

static void a_socket_that_nobody_reads(void **state)
{
	int fd[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
	asleep_reader(fd);
}

static void what_was_lost_is_counted(void **state)
{
	int fd[2];
	char drain[1 << 16];
	FILE *f;

	assert_int_equal(pipe(fd), 0);
	log_init(fd[1], "writer", 0, LOG_LVL_INFO);
	for (unsigned i = 0; i < 200; i++)
		write_line(i);
	log_flush();
	assert_true(read(fd[0], drain, sizeof(drain)) > 0);
	write_line(1000);
	log_flush();
	log_init(2, "unit", 0, LOG_LVL_INFO);
	close(fd[1]);
	f = fdopen(fd[0], "r");
	assert_true(fread(drain, 1, sizeof(drain) - 1, f) > 0);
	fclose(f);
	assert_non_null(strstr(drain, "event=log-lost lines="));
	assert_non_null(strstr(drain, "number=1000"));
}

/* A line that is too long loses whole fields at its end, never half of one. */
static void a_long_line_is_cut_at_a_field(void **state)
{
	struct logline l;
	struct span rest, key, value;
	char buf[4096], nasty[3000];

	memset(nasty, '\n', sizeof(nasty));
	for (size_t n = 0; n < sizeof(nasty); n += 7) {
		unsigned fields = 0;

		row_begin(&l);
		log_str(&l, "first", "1");
		log_span(&l, "nasty", span_of(nasty, n));
		log_str(&l, "last", "1");
		rest = row_text(&l);
		assert_true(rest.n < sizeof(l.buf));
		assert_null(memchr(rest.p, '\n', rest.n));
		while (row_next(&rest, &key, &value, buf, sizeof(buf)))
			fields++;
		assert_int_equal(rest.n, 0);
		assert_true(fields == 3 || fields == 1 || fields == 2);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(processes_do_not_write_into_each_others_lines),
		cmocka_unit_test(a_pipe_that_nobody_reads), cmocka_unit_test(a_socket_that_nobody_reads),
		cmocka_unit_test(what_was_lost_is_counted), cmocka_unit_test(a_long_line_is_cut_at_a_field) };

	memset(text, 'x', sizeof(text));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
