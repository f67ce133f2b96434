/* weir-scanner: the parent loads the engine once and keeps a pool of forked, sandboxed workers. See weir-scanner(8). */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "scanner/pool_worker.h"
#include "spool/base/clock.h"
#include "spool/base/counters.h"
#include "spool/base/daemon.h"
#include "spool/base/log.h"

enum { POOL_MAX = 256 };
#define OLD_WORKERS "WEIR_SCANNER_OLD_WORKERS"

static volatile sig_atomic_t stopping, reload;
static pid_t pool[POOL_MAX];
static uint64_t started_ns[POOL_MAX], not_before_ns[POOL_MAX];

static void on_stop(int sig)
{
	(void)sig;
	stopping = 1;
}

static void on_reload(int sig)
{
	(void)sig;
	reload = 1;
}

static void usage(FILE *f)
{
	fputs("usage: weir-scanner --run DIR --spool DIR [--processes N] [--signatures DIR] [--engine clamav|trivial]\n"
	      "                    [--max-scan-seconds N] [--user NAME]\n", f);
}

struct options {
	struct pool_config pool;
	const char *signatures, *user;
	unsigned processes;
};

static bool parse(int argc, char **argv, struct options *o)
{
	static const struct option options[] = { { "run", 1, NULL, 'r' }, { "spool", 1, NULL, 's' }, { "processes", 1, NULL, 'n' },
		{ "signatures", 1, NULL, 'g' }, { "engine", 1, NULL, 'e' }, { "max-scan-seconds", 1, NULL, 't' }, { "user", 1, NULL, 'u' },
		{ "help", 0, NULL, 'h' }, { 0 } };
	uint64_t n;
	int c;

	while ((c = getopt_long(argc, argv, "r:s:n:g:e:t:u:h", options, NULL)) != -1)
		switch (c) {
		case 'r':
			o->pool.run_dir = optarg;
			break;
		case 's':
			o->pool.spool_dir = optarg;
			break;
		case 'n':
			if (!span_u64(span_str(optarg), POOL_MAX, &n) || !n)
				return false;
			o->processes = (unsigned)n;
			break;
		case 'g':
			o->signatures = optarg;
			break;
		case 'e':
			if (strcmp(optarg, "trivial") == 0)
				o->pool.engine = &engine_trivial;
			else if (strcmp(optarg, "clamav") != 0)
				return false;
			break;
		case 't':
			if (!span_u64(span_str(optarg), 3600, &n) || !n)
				return false;
			o->pool.max_seconds = (unsigned)n;
			break;
		case 'u':
			o->user = optarg;
			break;
		case 'h':
			usage(stdout);
			exit(0);
		default:
			return false;
		}
	return o->pool.run_dir && o->pool.spool_dir && optind == argc;
}

static void spawn(const struct options *o, unsigned i)
{
	char stats[4096];
	pid_t parent = getpid(), pid;
	sigset_t told;

	/* A worker that is told to link anew before it has set its handlers must not die of it, and one that is told to end must not miss it
	 * with the parent's handler: it unblocks the signals itself. */
	pool_worker_signals(&told);
	sigprocmask(SIG_BLOCK, &told, NULL);
	log_flush();
	pid = fork();
	if (pid == 0) {
		struct pool_config cfg = o->pool;

		prctl(PR_SET_PDEATHSIG, SIGTERM);
		if (getppid() != parent)
			_exit(0);
		cfg.instance = i;
		log_init(2, "scanner", (int)i, LOG_LVL_INFO);
		snprintf(stats, sizeof(stats), "%s/stats", cfg.run_dir);
		if (counters_open(stats, "scanner", (int)i) != ST_OK)
			log_msg(LOG_LVL_WARN, "counters", "%s", trail_text());
		_exit(pool_worker_run(&cfg));
	}
	sigprocmask(SIG_UNBLOCK, &told, NULL);
	pool[i] = pid > 0 ? pid : 0;
	started_ns[i] = clock_mono_ns();
	if (pid < 0) {
		log_msg(LOG_LVL_ERROR, "fork", "%s", strerror(errno));
		not_before_ns[i] = clock_mono_ns() + NS_PER_S;
	}
}

/* Takes the dead out of the pool; who dies young is replaced with a delay. */
static void reap(const struct options *o)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		for (unsigned i = 0; i < o->processes; i++) {
			if (pool[i] != pid)
				continue;
			pool[i] = 0;
			if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
				continue;
			if (clock_mono_ns() - started_ns[i] < NS_PER_S)
				not_before_ns[i] = clock_mono_ns() + NS_PER_S;
			log_msg(LOG_LVL_WARN, "scanner-died", "worker %u, pid %d: %s %d", i, (int)pid,
				WIFSIGNALED(status) ? "signal" : "exit code", WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
		}
}

/* A number that changes when dataplane workers come or go: of their sockets' inodes and times (a new socket may get the old one's inode). */
static uint64_t run_dir_mark(const char *run_dir)
{
	DIR *d = opendir(run_dir);
	struct dirent *e;
	struct stat st;
	uint64_t mark = 0;

	while (d && (e = readdir(d)))
		if (strncmp(e->d_name, "scan-", 5) == 0 && strncmp(e->d_name, "scan-tmp", 8) != 0 &&
			fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0)
			mark += ((uint64_t)st.st_ino + (uint64_t)st.st_ctim.tv_sec * NS_PER_S + (uint64_t)st.st_ctim.tv_nsec) * 0x9e3779b97f4a7c15ull;
	if (d)
		closedir(d);
	return mark;
}

static void tell_all(const struct options *o, int sig)
{
	for (unsigned i = 0; i < o->processes; i++)
		if (pool[i])
			kill(pool[i], sig);
}

static void keep_pool(const struct options *o)
{
	uint64_t mark = run_dir_mark(o->pool.run_dir), now_mark;

	while (!stopping && !reload) {
		reap(o);
		for (unsigned i = 0; i < o->processes && !stopping; i++)
			if (!pool[i] && not_before_ns[i] <= clock_mono_ns())
				spawn(o, i);
		now_mark = run_dir_mark(o->pool.run_dir);
		if (now_mark != mark) { /* workers link anew, each after its job */
			mark = now_mark;
			tell_all(o, SIGUSR1);
		}
		log_flush();
		usleep(50 * 1000);
	}
}

static void remember_old(const struct options *o)
{
	char text[POOL_MAX * 12] = "";
	struct out out = out_of(text, sizeof(text) - 1);

	for (unsigned i = 0; i < o->processes; i++)
		if (pool[i])
			out_fmt(&out, "%d,", (int)pool[i]);
	text[out.n] = '\0';
	setenv(OLD_WORKERS, text, 1);
}

/* The workers of the image before a reload: each ends after its job. */
static void end_old(void)
{
	struct span rest = span_str(getenv(OLD_WORKERS));
	uint64_t pid;

	while (rest.n)
		if (span_u64(span_cut(&rest, ','), 1 << 30, &pid) && pid > 1)
			kill((pid_t)pid, SIGTERM);
	unsetenv(OLD_WORKERS);
}

int main(int argc, char **argv)
{
	struct options o = { .pool = { .engine = &engine_clamav, .max_seconds = 60 }, .processes = 2, .signatures = "/var/lib/clamav" };
	struct sigaction sa = { .sa_handler = on_reload };
	enum status st;

	if (!parse(argc, argv, &o)) {
		usage(stderr);
		return 2;
	}
	log_init(2, "scanner", -1, LOG_LVL_INFO);
	daemon_signals(on_stop);
	sigaction(SIGHUP, &sa, NULL);
	st = daemon_drop(o.user);
	if (st == ST_OK)
		st = o.pool.engine->load(o.signatures, o.pool.max_seconds);
	if (st != ST_OK) {
		log_msg(LOG_LVL_ERROR, "start-failed", "%s", trail_text());
		log_flush();
		return 1;
	}
	end_old();
	log_msg(LOG_LVL_INFO, "started", "engine %s, %u workers", o.pool.engine->name, o.processes);
	keep_pool(&o);
	if (reload && !stopping) {
		/* The new engine is loaded by a new image of this program while the old workers go on; it ends them when it is ready. */
		remember_old(&o);
		log_msg(LOG_LVL_INFO, "reload", "loading the signatures anew");
		log_flush();
		execv("/proc/self/exe", argv);
		log_msg(LOG_LVL_ERROR, "reload", "%s", strerror(errno));
	}
	tell_all(&o, SIGTERM);
	while (wait(NULL) > 0)
		;
	log_msg(LOG_LVL_INFO, "stopped", "in order");
	log_flush();
	return 0;
}
