#include "control/children.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include "spool/base/clock.h"
#include "spool/base/daemon.h"

enum { CHILDREN_MAX = 80 };

static struct child children[CHILDREN_MAX];
static unsigned nchildren;

struct child *child_new(const char *name, int stage)
{
	struct child *c = &children[nchildren++];

	CHECK(nchildren <= CHILDREN_MAX);
	c->name = name;
	c->stage = stage;
	return c;
}

void child_arg(struct child *c, const char *fmt, ...)
{
	unsigned n = 0;
	va_list ap;

	while (c->argv[n])
		n++;
	CHECK(n < CHILD_ARGS_MAX - 1);
	va_start(ap, fmt);
	CHECK(vasprintf(&c->argv[n], fmt, ap) >= 0);
	va_end(ap);
}

static _Noreturn void become(const struct child *c, pid_t parent, const char *user, const sigset_t *before)
{
	setpgid(0, 0); /* Ctrl-C comes to the supervisor only, which ends the others in order */
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() != parent || (!c->drops_itself && daemon_drop(user) != ST_OK)) {
		fprintf(stderr, "weir: %s: %s\n", c->name, trail_text());
		_exit(1);
	}
	signal(SIGTERM, SIG_DFL);
	signal(SIGINT, SIG_DFL);
	sigprocmask(SIG_SETMASK, before, NULL);
	execvp(c->argv[0], c->argv);
	fprintf(stderr, "weir: %s: %s\n", c->argv[0], strerror(errno));
	_exit(127);
}

void child_start(struct child *c, const char *user)
{
	sigset_t told, before;
	pid_t parent = getpid();

	/* one that comes while the child still has our handlers would be taken note of in its copy of our memory, and lost */
	sigemptyset(&told);
	sigaddset(&told, SIGTERM);
	sigaddset(&told, SIGINT);
	sigprocmask(SIG_BLOCK, &told, &before);
	c->started_ns = clock_mono_ns();
	c->pid = fork();
	if (c->pid == 0)
		become(c, parent, user, &before);
	sigprocmask(SIG_SETMASK, &before, NULL);
	if (c->pid < 0) {
		fprintf(stderr, "weir: %s: %s\n", c->name, strerror(errno));
		c->pid = 0;
		c->not_before_ns = c->started_ns + NS_PER_S;
	}
}

static struct child *child_of(pid_t pid)
{
	for (unsigned i = 0; i < nchildren; i++)
		if (children[i].pid == pid)
			return &children[i];
	return NULL;
}

void children_reap(bool tell)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		struct child *c = child_of(pid);

		if (!c)
			continue;
		c->pid = 0;
		if (!tell)
			continue;
		fprintf(stderr, "weir: %s ended (%s %d), it is started again\n", c->name, WIFSIGNALED(status) ? "signal" : "exit code",
			WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
		if (clock_mono_ns() - c->started_ns < NS_PER_S)
			c->not_before_ns = clock_mono_ns() + NS_PER_S;
	}
}

bool children_again(const char *user)
{
	bool any = false;

	for (unsigned i = 0; i < nchildren; i++)
		if (!children[i].pid && children[i].not_before_ns <= clock_mono_ns()) {
			child_start(&children[i], user);
			any = true;
		}
	return any;
}

static void end_stage(int stage)
{
	uint64_t until = clock_mono_ns() + 12 * NS_PER_S;
	bool any = true;

	for (unsigned i = 0; i < nchildren; i++)
		if (children[i].stage == stage && children[i].pid)
			kill(children[i].pid, SIGTERM);
	while (any && clock_mono_ns() < until) {
		children_reap(false);
		any = false;
		for (unsigned i = 0; i < nchildren; i++)
			any = any || (children[i].stage == stage && children[i].pid);
		if (any)
			usleep(10 * 1000);
	}
	for (unsigned i = 0; i < nchildren; i++)
		if (children[i].stage == stage && children[i].pid)
			kill(children[i].pid, SIGKILL);
}

void children_end(void)
{
	for (int stage = 0; stage < CHILD_STAGES; stage++)
		end_stage(stage);
}

void children_list(FILE *f)
{
	for (unsigned i = 0; i < nchildren; i++)
		fprintf(f, "%s %d\n", children[i].name, (int)children[i].pid);
}
