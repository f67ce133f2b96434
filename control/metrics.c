#include "control/metrics.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <microhttpd.h>
#include <stdlib.h>
#include <string.h>
#include "control/rulesctl.h"

static struct MHD_Daemon *daemon_;
static char dir[4096];

void each_page(const char *stats_dir, page_fn *fn, void *ctx)
{
	struct dirent **e;
	int n = scandir(stats_dir, &e, NULL, alphasort);

	for (int i = 0; i < n; i++) {
		const struct counters_page *p;
		char path[4400], role[64];
		const char *dash = strrchr(e[i]->d_name, '-');

		snprintf(path, sizeof(path), "%s/%s", stats_dir, e[i]->d_name);
		if (dash && dash != e[i]->d_name && counters_map(path, &p) == ST_OK) {
			snprintf(role, sizeof(role), "%.*s", (int)(dash - e[i]->d_name), e[i]->d_name);
			fn(ctx, role, atoi(dash + 1), p);
			counters_unmap(p);
		}
		free(e[i]);
	}
	if (n >= 0)
		free(e);
}

struct writing {
	FILE *f;
	int counter;
};

/* Rows that a kind of process never counts are left out: a total that is 0 in another role says nothing. */
static bool belongs(const char *role, int counter)
{
	bool scanner = strncmp(counter_desc[counter].name, "scanner_", 8) == 0 && counter >= C_SCANNER_JOBS;

	bool certs = counter == C_TLS_CERTS || counter == C_TLS_CERT_LEFT_S || counter == C_TLS_CERT_REFUSED; /* weir-control alone knows them */

	if (strcmp(role, "dataplane") == 0)
		return !scanner && !certs;
	return strcmp(role, "scanner") == 0 ? scanner : certs || counter == C_SNAPSHOT_GENERATION;
}

static void write_one(void *ctx, const char *role, int instance, const struct counters_page *p)
{
	struct writing *w = ctx;

	if (belongs(role, w->counter))
		fprintf(w->f, "weir_%s{role=\"%s\",instance=\"%d\"} %llu\n", counter_desc[w->counter].name, role, instance,
			(unsigned long long)atomic_load(&p->v[w->counter]));
}

static void write_up(void *ctx, const char *role, int instance, const struct counters_page *p)
{
	struct writing *w = ctx;

	fprintf(w->f, "weir_process_up{role=\"%s\",instance=\"%d\"} %d\n", role, instance, atomic_load(&p->pid) != 0);
}

void metrics_write(const char *stats_dir, FILE *f)
{
	struct writing w = { .f = f };

	fprintf(f, "# HELP weir_process_up 1 when the process runs\n# TYPE weir_process_up gauge\n");
	each_page(stats_dir, write_up, &w);
	for (w.counter = 0; w.counter < C_COUNT; w.counter++) {
		fprintf(f, "# HELP weir_%s %s\n# TYPE weir_%s %s\n", counter_desc[w.counter].name, counter_desc[w.counter].help,
			counter_desc[w.counter].name, counter_desc[w.counter].kind == COUNTER_TOTAL ? "counter" : "gauge");
		each_page(stats_dir, write_one, &w);
	}
	rules_metrics(stats_dir, f);
}

static enum MHD_Result on_request(void *cls, struct MHD_Connection *c, const char *url, const char *method, const char *version,
	const char *data, size_t *size, void **state)
{
	struct MHD_Response *r;
	enum MHD_Result ok;
	char *text = NULL;
	size_t len = 0;
	bool found = strcmp(url, "/metrics") == 0;
	FILE *f;

	if (strcmp(method, "GET") != 0)
		return MHD_NO;
	f = open_memstream(&text, &len);
	if (!f)
		return MHD_NO;
	if (found)
		metrics_write(dir, f);
	else
		fputs("Weir's counters are at /metrics\n", f);
	fclose(f);
	r = MHD_create_response_from_buffer(len, text, MHD_RESPMEM_MUST_FREE);
	if (!r) {
		free(text);
		return MHD_NO;
	}
	MHD_add_response_header(r, "Content-Type", "text/plain; version=0.0.4; charset=utf-8");
	ok = MHD_queue_response(c, found ? MHD_HTTP_OK : MHD_HTTP_NOT_FOUND, r);
	MHD_destroy_response(r);
	return ok;
}

enum status metrics_start(const char *stats_dir, const char *where)
{
	struct sockaddr_in a = { .sin_family = AF_INET };
	const char *colon = strrchr(where, ':');
	char host[64];

	if (strcmp(where, "none") == 0)
		return ST_OK;
	snprintf(host, sizeof(host), "%.*s", colon ? (int)(colon - where) : 0, where);
	if (!colon || inet_pton(AF_INET, host, &a.sin_addr) != 1)
		return trail(ST_INVALID, "\"%s\" is not an address with a port; write for example 127.0.0.1:9925", where);
	a.sin_port = htons((uint16_t)atoi(colon + 1));
	snprintf(dir, sizeof(dir), "%s", stats_dir);
	daemon_ = MHD_start_daemon(MHD_USE_INTERNAL_POLLING_THREAD, ntohs(a.sin_port), NULL, NULL, on_request, NULL, MHD_OPTION_SOCK_ADDR, &a,
		MHD_OPTION_CONNECTION_LIMIT, 32u, MHD_OPTION_CONNECTION_TIMEOUT, 10u, MHD_OPTION_END);
	return daemon_ ? ST_OK : trail(ST_IO, "cannot serve metrics on %s", where);
}

void metrics_stop(void)
{
	if (daemon_)
		MHD_stop_daemon(daemon_);
	daemon_ = NULL;
}
