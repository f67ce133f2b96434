#include "control/compile.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
#include "control/compiler.h"
#include "control/progress.h"
#include "spool/base/clock.h"
#include "spool/base/counters.h"

enum { LINE_MAX_BYTES = 8192 };

static struct {
	pid_t pid; /* 0: none runs */
	int fd;
	uint64_t began_ns, generation, changes;
	bool made;
	size_t n;  /* of a line that is not whole yet */
	char line[LINE_MAX_BYTES];
} child;

/* ---- the process ---- */

static int spawn(const char *run_dir, int in, int out, enum publish_tables how, const char *by)
{
	char *argv[] = { (char *)"weir-control", (char *)"--run", (char *)(uintptr_t)run_dir, (char *)"--compile",
		(char *)(uintptr_t)(how == TABLES_BY_COMMAND ? "command" : "start"), (char *)"--by", (char *)(uintptr_t)by, NULL };
	posix_spawn_file_actions_t files;
	posix_spawnattr_t attr;
	sigset_t defaults;
	int err;

	sigemptyset(&defaults);
	sigaddset(&defaults, SIGPIPE);
	posix_spawnattr_init(&attr);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGDEF);
	posix_spawnattr_setsigdefault(&attr, &defaults);
	posix_spawn_file_actions_init(&files);
	posix_spawn_file_actions_adddup2(&files, in, STDIN_FILENO);
	posix_spawn_file_actions_adddup2(&files, out, STDOUT_FILENO);
	err = posix_spawn(&child.pid, "/proc/self/exe", &files, &attr, argv, environ);
	posix_spawn_file_actions_destroy(&files);
	posix_spawnattr_destroy(&attr);
	return err;
}

enum status compile_begin(const char *run_dir, int snapshot, enum publish_tables how, const char *by)
{
	int p[2], err;

	CHECK(!child.pid);
	if (pipe2(p, O_CLOEXEC) < 0) {
		close(snapshot);
		return trail_errno(errno, "a pipe for the compiler");
	}
	fcntl(p[0], F_SETFL, O_NONBLOCK);
	err = spawn(run_dir, snapshot, p[1], how, by);
	close(p[1]);
	close(snapshot);
	if (err) {
		close(p[0]);
		child.pid = 0;
		return trail_errno(err, "the compiler cannot be started");
	}
	child.fd = p[0];
	child.n = 0;
	child.made = false;
	child.changes = 0;
	child.began_ns = clock_mono_ns();
	counter_set(C_TABLES_COMPILING, PROGRESS_READING);
	return ST_OK;
}

bool compile_runs(void)
{
	return child.pid != 0;
}

int compile_fd(void)
{
	return child.pid ? child.fd : -1;
}

uint64_t compile_generation(void)
{
	return child.generation;
}

uint64_t compile_changes(void)
{
	return child.changes;
}

static int bury(void)
{
	int status = 0;

	waitpid(child.pid, &status, 0);
	close(child.fd);
	child.pid = 0;
	counter_set(C_TABLES_COMPILING, 0);
	counter_set(C_TABLES_COMPILE_DONE, 0);
	counter_set(C_TABLES_COMPILE_OF, 0);
	return status;
}

void compile_kill(void)
{
	if (!child.pid)
		return;
	kill(child.pid, SIGKILL);
	bury();
}

void compile_leave(void)
{
	if (child.pid)
		kill(child.pid, SIGKILL);
	child.pid = 0;
}

/* ---- what it says ---- */

static void take_progress(struct span rest)
{
	uint64_t phase, done, of;

	if (span_u64(span_cut(&rest, ' '), PROGRESS_NPHASE - 1, &phase) && span_u64(span_cut(&rest, ' '), UINT64_MAX, &done) &&
		span_u64(rest, UINT64_MAX, &of)) {
		counter_set(C_TABLES_COMPILING, phase);
		counter_set(C_TABLES_COMPILE_DONE, done);
		counter_set(C_TABLES_COMPILE_OF, of);
	}
}

/* True: the tables are in use since this line. */
static bool take_line(struct span line, FILE *errors)
{
	struct span word = span_cut(&line, ' ');

	if (span_eq(word, SPAN("progress")))
		take_progress(line);
	else if (span_eq(word, SPAN("error")))
		fprintf(errors, "%.*s\n", SPAN_FMT(line));
	else if (span_eq(word, SPAN("changes")))
		span_u64(line, UINT64_MAX, &child.changes);
	else if (span_eq(word, SPAN("generation")) && span_u64(line, UINT64_MAX, &child.generation))
		return child.made = true;
	return false;
}

/* True: the tables are in use since now. */
static bool take_lines(FILE *errors)
{
	bool made = false;
	size_t from = 0;
	const char *end;

	while ((end = memchr(child.line + from, '\n', child.n - from))) {
		made = take_line(span_of(child.line + from, (size_t)(end - child.line) - from), errors) || made;
		from = (size_t)(end - child.line) + 1;
	}
	child.n -= from;
	memmove(child.line, child.line + from, child.n);
	if (child.n == sizeof(child.line)) /* no path is as long: the rest of it is a line of its own */
		child.n = 0;
	return made;
}

static enum compile_event end(FILE *errors)
{
	int status = bury();

	counter_set(C_TABLES_COMPILE_MS, (clock_mono_ns() - child.began_ns) / NS_PER_MS);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0 && child.made)
		return COMPILE_DONE;
	if (WIFEXITED(status) && WEXITSTATUS(status) == COMPILER_ERRORS)
		return COMPILE_WRONG;
	fprintf(errors, "the compiler of tables ended before its time (%s %d)\n", WIFSIGNALED(status) ? "signal" : "exit code",
		WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
	return COMPILE_DIED;
}

enum compile_event compile_turn(FILE *errors)
{
	ssize_t n;

	if (!child.pid)
		return COMPILE_GOES_ON;
	while ((n = read(child.fd, child.line + child.n, sizeof(child.line) - child.n)) > 0) {
		child.n += (size_t)n;
		if (take_lines(errors))
			return COMPILE_MADE;
	}
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return COMPILE_GOES_ON;
	return end(errors);
}
