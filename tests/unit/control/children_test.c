/* The supervisor's children: that they end when they are told to, whenever that is. */
#include "tests/support/unit.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>
#include "control/children.h"
#include "spool/base/clock.h"
#include "spool/base/daemon.h"

static volatile sig_atomic_t stops;

static void on_stop(int sig)
{
	(void)sig;
	stops = 1;
}

/* Within ten seconds; -1: it goes on. */
static int status_of(pid_t pid)
{
	uint64_t until = clock_mono_ns() + 10 * NS_PER_S;
	int status;

	while (clock_mono_ns() < until) {
		if (waitpid(pid, &status, WNOHANG) == pid)
			return status;
		usleep(1000);
	}
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	return -1;
}

/* It comes while the child is still a copy of its parent, most of the time. */
static void a_child_that_is_told_to_end_at_once_ends(void **state)
{
	struct child *c = child_new("sleep", 0);

	child_arg(c, "sleep");
	child_arg(c, "60");
	daemon_signals(on_stop);
	for (int i = 0; i < 100; i++) {
		int status;

		child_start(c, "");
		assert_true(c->pid > 0);
		assert_int_equal(kill(c->pid, SIGTERM), 0);
		status = status_of(c->pid);
		assert_true(status >= 0 && WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
	}
	assert_false(stops);
	c->pid = 0;
	c->not_before_ns = UINT64_MAX;
}

/* What the parent must not hear while it forks comes afterwards. */
static void the_parent_hears_on(void **state)
{
	struct child *c = child_new("true", 1);

	child_arg(c, "true");
	child_start(c, "");
	assert_int_equal(status_of(c->pid), 0);
	c->pid = 0;
	kill(getpid(), SIGTERM);
	assert_true(stops);
	assert_true(children_again(""));
	assert_true(c->pid > 0);
	children_end();
	assert_int_equal(c->pid, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_child_that_is_told_to_end_at_once_ends),
		cmocka_unit_test(the_parent_hears_on),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
