/* weir-dataplane: one worker of the data plane. See weir-dataplane(8). */
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>
#include "dataplane/worker.h"
#include "spool/base/daemon.h"

static struct worker worker;

static void on_stop(int sig)
{
	(void)sig;
	worker.stopping = true; /* the signal interrupts the loop's wait */
}

static void usage(FILE *f)
{
	fputs("usage: weir-dataplane --run DIR [--worker N] [--listen-fds FD,...] [--user NAME]\n", f);
}

static bool parse_fds(const char *text, struct worker_options *o)
{
	struct span rest = span_str(text);
	uint64_t fd;

	while (rest.n) {
		if (o->nlisten == WORKER_LISTENERS_MAX || !span_u64(span_cut(&rest, ','), 1 << 20, &fd))
			return false;
		o->listen_fds[o->nlisten++] = (int)fd;
	}
	return true;
}

/* systemd's socket activation: LISTEN_FDS descriptors from 3 on. */
static void inherit_fds(struct worker_options *o)
{
	const char *n = getenv("LISTEN_FDS"), *pid = getenv("LISTEN_PID");
	uint64_t count = 0, to = 0;

	if (!n || !pid || !span_u64(span_str(pid), UINT32_MAX, &to) || (pid_t)to != getpid() ||
		!span_u64(span_str(n), WORKER_LISTENERS_MAX, &count))
		return;
	for (uint64_t i = 0; i < count; i++)
		o->listen_fds[o->nlisten++] = 3 + (int)i;
}

static bool parse_options(int argc, char **argv, struct worker_options *o, const char **ret_user)
{
	static const struct option options[] = { { "run", required_argument, NULL, 'r' }, { "worker", required_argument, NULL, 'w' },
		{ "listen-fds", required_argument, NULL, 'l' }, { "user", required_argument, NULL, 'u' }, { "help", no_argument, NULL, 'h' },
		{ 0 } };
	uint64_t n;
	int c;

	while ((c = getopt_long(argc, argv, "r:w:l:u:h", options, NULL)) != -1)
		switch (c) {
		case 'r':
			o->run_dir = optarg;
			break;
		case 'w':
			if (!span_u64(span_str(optarg), 1023, &n))
				return false;
			o->index = (uint32_t)n;
			break;
		case 'l':
			if (!parse_fds(optarg, o))
				return false;
			break;
		case 'u':
			*ret_user = optarg;
			break;
		case 'h':
			usage(stdout);
			exit(0);
		default:
			return false;
		}
	return o->run_dir && optind == argc;
}

int main(int argc, char **argv)
{
	static struct worker_options opt;
	const char *user = NULL;
	enum status st;

	if (!parse_options(argc, argv, &opt, &user)) {
		usage(stderr);
		return 2;
	}
	if (!opt.nlisten)
		inherit_fds(&opt);
	log_init(2, "dataplane", (int)opt.index, LOG_LVL_INFO);
	daemon_signals(on_stop);
	daemon_raise_files();
	st = worker_prepare(&opt);
	if (st == ST_OK)
		st = daemon_drop(user);
	if (st == ST_OK)
		st = worker_init(&worker, &opt);
	if (st != ST_OK) {
		log_msg(LOG_LVL_ERROR, "start-failed", "%s: %s", status_name(st), trail_text());
		log_flush();
		return 1;
	}
	log_msg(LOG_LVL_INFO, "started", "worker %u", opt.index);
	worker_loop(&worker);
	worker_done(&worker);
	log_msg(LOG_LVL_INFO, "stopped", "in order");
	log_flush();
	return 0;
}
