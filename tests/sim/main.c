/* weir-sim: the worker of the data plane over a simulated network. For tests only: tests/support/sim.py gives it its orders (control.h).
 *
 * weir-sim --run DIR: DIR has a published configuration of one worker and one partition. Orders come on standard input, a socket. Each new world is a process of
 * its own, which begins where every other one began. "ended N" says that it has, in order with 0: the answer to its last order, or when its worker died to any. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "spool/base/daemon.h"
#include "tests/sim/control.h"
#include "tests/sim/scanner.h"
#include "tests/sim/world.h"

static struct worker worker;
static struct worker_options opt;

static _Noreturn void live(const struct sim_options *o)
{
	enum status st;

	world_begin(&worker, o);
	scanner_begin(opt.run_dir);
	st = worker_init(&worker, &opt);
	if (st != ST_OK) {
		fprintf(stderr, "weir-sim: %s: %s\n", status_name(st), trail_text());
		_exit(1);
	}
	worker_loop(&worker);
	log_flush();
	_exit(0); /* the rest of its end is for whole-node tests */
}

static void world_of(const struct sim_options *o)
{
	char text[40];
	int how = 0;
	pid_t pid = fork();

	CHECK(pid >= 0);
	if (pid == 0)
		live(o);
	CHECK(waitpid(pid, &how, 0) == pid);
	control_answer(text, (uint32_t)snprintf(text, sizeof(text), "ended %d", how));
}

/* What OpenSSL reads and looks up with its first certificate, it need not in every world. */
static void warm_up(void)
{
	struct config *c;

	if (config_load(opt.run_dir, &c) == ST_OK)
		config_release(c);
}

int main(int argc, char **argv)
{
	struct order o;
	const char *data;

	if (argc != 3 || strcmp(argv[1], "--run") != 0) {
		fputs("usage: weir-sim --run DIR\n", stderr);
		return 2;
	}
	opt.run_dir = argv[2];
	log_init(2, "dataplane", 0, LOG_LVL_INFO);
	daemon_raise_files();
	warm_up();
	control_open(STDIN_FILENO);
	while (control_next(&o, &data)) {
		CHECK(o.what == 'N' && o.n == sizeof(struct sim_options));
		world_of((const struct sim_options *)(const void *)data);
	}
	return 0;
}
