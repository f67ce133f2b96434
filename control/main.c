/* weir-control: checks and publishes the configuration, compiles tables, fetches managed mail domains, serves metrics, fetches MTA-STS policies, makes TLS reports. See weir-control(8). */
#include <errno.h>
#include <getopt.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include "control/checks.h"
#include "control/clients.h"
#include "control/compiler.h"
#include "control/managed.h"
#include "control/holds.h"
#include "control/managed_orders.h"
#include "control/metrics.h"
#include "control/nodes.h"
#include "control/publish.h"
#include "control/sts_server.h"
#include "control/tls_keys.h"
#include "control/tls_reports.h"
#include "control/web.h"
#include "spool/base/clock.h"
#include "spool/base/counters.h"
#include "spool/base/daemon.h"
#include "spool/base/log.h"

static volatile sig_atomic_t stopping, reload;

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

/* ---- the control socket ---- */

struct request {
	const char *run_dir;
	uint64_t number; /* behind the command's words; 0 when there is none */
	const char *text; /* behind the words of a command that takes text */
	const char *by;  /* who orders it */
	int fd;          /* for an answer that comes later */
	FILE *out;       /* the answer; its last line is "ok" when all is well */
};

static enum order_result do_reload(const struct request *r)
{
	publish_config(r->fd, r->by);
	return ORDER_LATER;
}

/* F2: an operator ends a hold before its time. What the file says now is what is published with it. */
static enum order_result do_release(const struct request *r)
{
	return holds_release(r->run_dir, r->text, r->by, r->out) ? do_reload(r) : ORDER_FAILED;
}

static enum order_result do_compile(const struct request *r)
{
	publish_tables(r->fd, TABLES_BY_COMMAND, r->by, NULL, NULL);
	return ORDER_LATER;
}

static enum order_result do_rollback(const struct request *r)
{
	return publish_rollback(r->number, r->out) ? ORDER_DONE : ORDER_FAILED;
}

static enum order_result do_domain(const struct request *r)
{
	return managed_order(span_str(r->text), r->by, r->fd, r->out);
}

static enum order_result do_clients(const struct request *r)
{
	return clients_order(r->run_dir, span_str(r->text), r->by, r->out) ? ORDER_DONE : ORDER_FAILED;
}

static const struct {
	const char *words;
	enum order_result (*run)(const struct request *r);
	bool text;
} requests[] = {
	{ "reload", do_reload, false },
	{ "tables compile", do_compile, false },
	{ "tables rollback", do_rollback, false },
	{ "hold release", do_release, true },
	{ "domain", do_domain, true },
	{ "clients", do_clients, true },
};

static enum order_result carry_out(struct request *r, const char *line)
{
	for (size_t i = 0; i < sizeof(requests) / sizeof(requests[0]); i++) {
		size_t n = strlen(requests[i].words);

		if (strncmp(line, requests[i].words, n) != 0 || (line[n] && line[n] != ' '))
			continue;
		r->text = line[n] ? line + n + 1 : "";
		if (line[n] && !requests[i].text && !span_u64(span_str(line + n + 1), UINT64_MAX - 1, &r->number))
			break;
		return requests[i].run(r);
	}
	fprintf(r->out, "unknown command\n");
	return ORDER_FAILED;
}

/* Who is at the other end (C9). */
static void who_orders(int fd, char *by, size_t cap)
{
	struct ucred who = { 0 };
	socklen_t n = sizeof(who);
	const struct passwd *pw = NULL;

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &n) == 0)
		pw = getpwuid(who.uid);
	snprintf(by, cap, "%.40s (uid %u)", pw ? pw->pw_name : "unknown", who.uid);
}

/* One command a connection. The answer ends with "ok\n", or is the errors. True: the connection was taken, somebody else answers and closes it. */
static bool answer_on(int fd, const char *run_dir, char *line, FILE *f)
{
	char by[80];
	enum order_result result;

	who_orders(fd, by, sizeof(by));
	line[strcspn(line, "\n")] = '\0';
	log_msg(LOG_LVL_INFO, "command", "%.400s by %s", line, by);
	result = carry_out(&(struct request){ .run_dir = run_dir, .by = by, .fd = fd, .out = f }, line);
	if (result == ORDER_DONE)
		fprintf(f, "ok\n");
	return result == ORDER_LATER;
}

static void answer(int listener, const char *run_dir)
{
	char line[16384] = "", *text = NULL;
	size_t len = 0;
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	struct timeval limit = { .tv_sec = 2 };
	FILE *f = open_memstream(&text, &len);

	if (fd < 0 || !f)
		goto out;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	if (recv(fd, line, sizeof(line) - 1, 0) <= 0)
		goto out;
	if (answer_on(fd, run_dir, line, f)) {
		fd = -1;
		goto out;
	}
	fflush(f);
	if (send(fd, text, len, MSG_NOSIGNAL) < 0)
		log_msg(LOG_LVL_WARN, "control-socket", "%s", strerror(errno));
out:
	if (f)
		fclose(f);
	free(text);
	if (fd >= 0)
		close(fd);
}

static int listen_control(const char *run_dir)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int n = snprintf(a.sun_path, sizeof(a.sun_path), "%s/control", run_dir);
	mode_t old = umask(0177);

	unlink(a.sun_path);
	if (fd >= 0 && (n >= (int)sizeof(a.sun_path) || bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(fd, 16) < 0)) {
		close(fd);
		fd = -1;
	}
	umask(old);
	return fd;
}

static void domains_configured(void)
{
	managed_configured();
	checks_configured();
}

static void serve(const char *run_dir, int listener)
{
	while (!stopping && !publish_is_hopeless()) {
		if (sts_server_wait(listener, publish_fd(), 1000))
			answer(listener, run_dir);
		atomic_store(&counters_self->beat_ns, clock_mono_ns());
		if (reload)
			publish_config(-1, "SIGHUP");
		reload = 0;
		if (publish_turn())
			domains_configured();
		tls_keys_turn(run_dir);
		tls_reports_turn(run_dir);
		managed_turn();
		checks_turn(run_dir);
		nodes_turn(run_dir, managed_snapshot());
		clients_turn(run_dir, false);
		log_flush();
	}
}

/* Of the configuration that was published before. */
static char *metrics_before(const char *run_dir)
{
	char path[4200], *where = NULL;
	struct snapshot s;

	snprintf(path, sizeof(path), "%s/snapshot", run_dir);
	if (snapshot_open(path, &s) == ST_OK) {
		where = strdup(snap_cstr(&s, s.h->settings.metrics));
		snapshot_close(&s);
	}
	return where;
}

/* With the configuration that is read now, or, when it has errors, with the one that was published before. False: there is none. */
static bool start(const char *config, const char *run_dir, const char *stats)
{
	char *metrics = NULL;

	publish_init(config, run_dir);
	if (!publish_start(stderr, &metrics) && !(metrics = metrics_before(run_dir)))
		return false;
	if (metrics_start(stats, metrics) != ST_OK)
		log_msg(LOG_LVL_WARN, "metrics", "%s", trail_text());
	free(metrics);
	managed_start(run_dir);
	if (publish_turn() || publish_generation())
		domains_configured();
	return true;
}

static int run(const char *config, const char *run_dir)
{
	struct sigaction sa = { .sa_handler = on_reload };
	char stats[4096];
	int listener;

	daemon_signals(on_stop);
	sigaction(SIGHUP, &sa, NULL);
	snprintf(stats, sizeof(stats), "%s/stats", run_dir);
	if (counters_open(stats, "control", 0) != ST_OK || (listener = listen_control(run_dir)) < 0) {
		log_msg(LOG_LVL_ERROR, "start-failed", "%s: %s", run_dir, strerror(errno));
		return 1;
	}
	/* before workers may begin: a question that comes early waits in the socket */
	if (web_init() != ST_OK || sts_server_start(run_dir) != ST_OK) {
		log_msg(LOG_LVL_ERROR, "start-failed", "%s", trail_text());
		return 1;
	}
	if (!start(config, run_dir, stats))
		return 1;
	log_flush();
	serve(run_dir, listener);
	clients_turn(run_dir, true);
	metrics_stop();
	checks_stop();
	managed_stop();
	publish_stop();
	sts_server_stop();
	web_done();
	counters_close();
	log_msg(LOG_LVL_INFO, "stopped", "in order");
	return publish_is_hopeless() ? 1 : 0;
}

struct options {
	const char *config, *run_dir, *compile, *by;
	bool help;
};

static bool read_options(int argc, char **argv, struct options *ret)
{
	static const struct option options[] = { { "config", 1, NULL, 'c' }, { "run", 1, NULL, 'r' }, { "compile", 1, NULL, 'C' },
		{ "by", 1, NULL, 'b' }, { "help", 0, NULL, 'h' }, { 0 } };
	int c;

	*ret = (struct options){ .by = "weir-control" };
	while ((c = getopt_long(argc, argv, "c:r:h", options, NULL)) != -1)
		switch (c) {
		case 'c':
			ret->config = optarg;
			break;
		case 'r':
			ret->run_dir = optarg;
			break;
		case 'C':
			ret->compile = optarg;
			break;
		case 'b':
			ret->by = optarg;
			break;
		case 'h':
			ret->help = true;
			break;
		default:
			return false;
		}
	return ret->help || (ret->run_dir && optind == argc);
}

int main(int argc, char **argv)
{
	struct options o;
	int rc;

	if (!read_options(argc, argv, &o) || o.help) {
		fputs("usage: weir-control --run DIR [--config FILE]\n", o.help ? stdout : stderr);
		return o.help ? 0 : 2;
	}
	log_init(2, "control", 0, LOG_LVL_INFO);
	if (o.compile)
		rc = compiler_run(o.run_dir, strcmp(o.compile, "command") == 0 ? TABLES_BY_COMMAND : TABLES_AT_START, o.by);
	else
		rc = run(o.config, o.run_dir);
	log_flush();
	return rc;
}
