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
#include "control/generations.h"
#include "control/managed.h"
#include "control/holds.h"
#include "control/managed_orders.h"
#include "control/metrics.h"
#include "control/nodes.h"
#include "control/schema.h"
#include "control/sources.h"
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

static uint64_t published_generation(const char *run_dir)
{
	char path[4096];
	struct snapshot s;
	uint64_t g;

	snprintf(path, sizeof(path), "%s/snapshot", run_dir);
	if (snapshot_open(path, &s) != ST_OK)
		return 0;
	g = s.h->generation;
	snapshot_close(&s);
	return g;
}

/* Compiles the tables that a configuration speaks of; by: who had it done. */
static bool publish_tables(const struct snapshot *s, const char *run_dir, enum publish_tables how, const char *by, FILE *errors)
{
	uint64_t generation;
	bool ok = tables_publish(s, run_dir, how, errors, &generation);

	counter_set(C_TABLES_GENERATION, generation);
	counter_add(C_TABLES_FAILED, !ok);
	counter_set(C_TABLES_STALE, !ok);
	if (ok)
		counter_add(C_DOMAIN_CHANGES, sources_note_files(s, by));
	if (ok)
		log_msg(LOG_LVL_INFO, "tables", "generation %llu%s", (unsigned long long)generation,
			generations_pinned(run_dir) ? ", pinned by a rollback" : "");
	return ok;
}

/* Reads, checks and publishes. A bad file changes nothing; its errors go to `errors`. Only at the start does the configuration go out beside bad alias
 * files: the node must come up, with the tables it had. */
static bool publish(const char *config, const char *run_dir, bool at_start, const char *by, FILE *errors)
{
	struct model m;
	struct snapshot s;
	uint64_t generation = published_generation(run_dir) + 1;
	bool ok = model_read(&m, config, run_dir, generation, errors);

	s = (struct snapshot){ .h = (const struct snap_header *)(const void *)m.bytes, .bytes = m.n };
	if (ok && !publish_tables(&s, run_dir, TABLES_AT_START, by, errors) && !at_start)
		ok = false;
	ok = ok && tls_keys_publish(&s, run_dir, errors);
	if (ok)
		holds_prune(&m);
	if (ok && model_publish(&m, run_dir) != ST_OK) {
		fprintf(errors, "%s\n", trail_text());
		ok = false;
	}
	if (ok) {
		counter_set(C_SNAPSHOT_GENERATION, generation);
		log_msg(LOG_LVL_INFO, "published", "generation %llu", (unsigned long long)generation);
	}
	free(m.bytes);
	return ok;
}

/* ---- the control socket ---- */

struct request {
	const char *config, *run_dir;
	uint64_t number; /* behind the command's words; 0 when there is none */
	const char *text; /* behind the words of a command that takes text */
	const char *by;  /* who orders it */
	FILE *out;       /* the answer; its last line is "ok" when all is well */
};

static void domains_configured(void)
{
	managed_configured();
	checks_configured();
}

static bool do_reload(const struct request *r)
{
	if (!publish(r->config, r->run_dir, false, r->by, r->out))
		return false;
	domains_configured();
	return true;
}

/* F2: an operator ends a hold before its time. What the file says now is what is published with it. */
static bool do_release(const struct request *r)
{
	return holds_release(r->run_dir, r->text, r->by, r->out) && do_reload(r);
}

/* Of the configuration that is published. */
static bool compile_published(const char *run_dir, enum publish_tables how, const char *by, FILE *errors)
{
	char path[4096];
	struct snapshot s;
	bool ok;

	snprintf(path, sizeof(path), "%s/snapshot", run_dir);
	if (snapshot_open(path, &s) != ST_OK) {
		fprintf(errors, "%s\n", trail_text());
		return false;
	}
	ok = publish_tables(&s, run_dir, how, by, errors);
	snapshot_close(&s);
	return ok;
}

static const char *run_of_domains; /* for the call from managed.c, which knows no more */

static bool compile_domains(FILE *errors)
{
	return compile_published(run_of_domains, TABLES_AT_START, "weir-control", errors);
}

static bool do_compile(const struct request *r)
{
	bool ok = compile_published(r->run_dir, TABLES_BY_COMMAND, r->by, r->out);

	if (ok)
		fprintf(r->out, "generation %llu\n", (unsigned long long)tables_current(r->run_dir));
	return ok;
}

static bool do_rollback(const struct request *r)
{
	uint64_t generation;

	if (tables_rollback(r->run_dir, r->number, &generation) != ST_OK) {
		fprintf(r->out, "%s\n", trail_text());
		return false;
	}
	counter_set(C_TABLES_GENERATION, generation);
	log_msg(LOG_LVL_WARN, "tables-rollback", "generation %llu", (unsigned long long)generation);
	fprintf(r->out, "generation %llu\n", (unsigned long long)generation);
	return true;
}

static const struct {
	const char *words;
	bool (*run)(const struct request *r);
	bool text;
} requests[] = {
	{ "reload", do_reload, false },
	{ "tables compile", do_compile, false },
	{ "tables rollback", do_rollback, false },
	{ "hold release", do_release, true },
};

static void carry_out(struct request *r, char *line)
{
	for (size_t i = 0; i < sizeof(requests) / sizeof(requests[0]); i++) {
		size_t n = strlen(requests[i].words);

		if (strncmp(line, requests[i].words, n) != 0 || (line[n] && line[n] != ' '))
			continue;
		r->text = line[n] ? line + n + 1 : "";
		if (line[n] && !requests[i].text && !span_u64(span_str(line + n + 1), UINT64_MAX - 1, &r->number))
			break;
		if (requests[i].run(r))
			fprintf(r->out, "ok\n");
		return;
	}
	fprintf(r->out, "unknown command\n");
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
static bool answer_on(int fd, const char *config, const char *run_dir, char *line, FILE *f)
{
	static const char domain[] = "domain ";
	char by[80];

	who_orders(fd, by, sizeof(by));
	line[strcspn(line, "\n")] = '\0';
	log_msg(LOG_LVL_INFO, "command", "%.400s by %s", line, by);
	if (strncmp(line, domain, sizeof(domain) - 1) == 0) {
		enum order_result done = managed_order(span_str(line + sizeof(domain) - 1), by, fd, f);

		if (done == ORDER_DONE)
			fprintf(f, "ok\n");
		return done == ORDER_LATER;
	}
	carry_out(&(struct request){ .config = config, .run_dir = run_dir, .by = by, .out = f }, line);
	return false;
}

static void answer(int listener, const char *config, const char *run_dir)
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
	if (answer_on(fd, config, run_dir, line, f)) {
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

static void start_metrics(const char *run_dir, const char *stats)
{
	char path[4096];
	struct snapshot s = { 0 };

	snprintf(path, sizeof(path), "%s/snapshot", run_dir);
	if (snapshot_open(path, &s) == ST_OK && metrics_start(stats, snap_cstr(&s, s.h->settings.metrics)) != ST_OK)
		log_msg(LOG_LVL_WARN, "metrics", "%s", trail_text());
	if (s.h)
		snapshot_close(&s);
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

static void log_errors(const char *text)
{
	struct span rest = span_str(text);

	while (rest.n)
		log_msg(LOG_LVL_ERROR, "configuration-error", "%.*s", SPAN_FMT(span_cut(&rest, '\n')));
}

static void serve(const char *config, const char *run_dir, int listener)
{
	while (!stopping) {
		if (sts_server_wait(listener, 1000))
			answer(listener, config, run_dir);
		atomic_store(&counters_self->beat_ns, clock_mono_ns());
		tls_keys_turn(run_dir);
		tls_reports_turn(run_dir);
		managed_turn();
		checks_turn(run_dir);
		nodes_turn(run_dir, managed_snapshot());
		if (reload) {
			char *text = NULL;
			size_t len = 0;
			FILE *f = open_memstream(&text, &len);

			reload = 0;
			if (f && !publish(config, run_dir, false, "SIGHUP", f)) {
				fflush(f);
				log_errors(text);
			} else {
				domains_configured();
			}
			if (f)
				fclose(f);
			free(text);
		}
		log_flush();
	}
}

int main(int argc, char **argv)
{
	static const struct option options[] = { { "config", 1, NULL, 'c' }, { "run", 1, NULL, 'r' },
		{ "help", 0, NULL, 'h' }, { 0 } };
	const char *config = NULL, *run_dir = NULL;
	struct sigaction sa = { .sa_handler = on_reload };
	char stats[4096];
	int c, listener;

	while ((c = getopt_long(argc, argv, "c:r:h", options, NULL)) != -1) {
		if (c == 'c')
			config = optarg;
		else if (c == 'r')
			run_dir = optarg;
		else
			break;
	}
	if (!run_dir || optind != argc || c != -1) {
		fputs("usage: weir-control --run DIR [--config FILE]\n", c == 'h' ? stdout : stderr);
		return c == 'h' ? 0 : 2;
	}
	log_init(2, "control", 0, LOG_LVL_INFO);
	daemon_signals(on_stop);
	sigaction(SIGHUP, &sa, NULL);
	snprintf(stats, sizeof(stats), "%s/stats", run_dir);
	if (counters_open(stats, "control", 0) != ST_OK || (listener = listen_control(run_dir)) < 0) {
		log_msg(LOG_LVL_ERROR, "start-failed", "%s: %s", run_dir, strerror(errno));
		log_flush();
		return 1;
	}
	/* before workers may begin: a question that comes early waits in the socket */
	if (web_init() != ST_OK || sts_server_start(run_dir) != ST_OK) {
		log_msg(LOG_LVL_ERROR, "start-failed", "%s", trail_text());
		log_flush();
		return 1;
	}
	if (!publish(config, run_dir, true, "start", stderr) && !published_generation(run_dir)) {
		log_flush();
		return 1;
	}
	start_metrics(run_dir, stats);
	run_of_domains = run_dir;
	managed_start(run_dir, compile_domains);
	checks_configured();
	log_flush();
	serve(config, run_dir, listener);
	metrics_stop();
	checks_stop();
	managed_stop();
	sts_server_stop();
	web_done();
	counters_close();
	log_msg(LOG_LVL_INFO, "stopped", "in order");
	log_flush();
	return 0;
}
