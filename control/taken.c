#include "control/taken.h"

#include <stdlib.h>
#include <unistd.h>
#include "control/ask.h"
#include "spool/base/clock.h"
#include "spool/base/log.h"
#include "spool/store/snapshot.h"
#include "spool/store/tables.h"

enum { TAKEN_S = 10, ANSWER_S = 2, PAUSE_MS = 20, WORKERS_MAX = 256 };

struct pair {
	uint64_t configuration, tables;
};

static struct pair published(const char *run_dir)
{
	struct pair p = { .tables = tables_current(run_dir) };
	struct snapshot s;
	char path[4200];

	snprintf(path, sizeof(path), "%s/snapshot", run_dir);
	if (snapshot_open(path, &s) == ST_OK) {
		p.configuration = s.h->generation;
		snapshot_close(&s);
	}
	return p;
}

static uint64_t number(struct span row, const char *key)
{
	char buf[32];

	return strtoull(row_value(row, key, buf, sizeof(buf)), NULL, 10);
}

static void read_row(void *ctx, unsigned worker, struct span row)
{
	struct pair *p = ctx;
	char kind[32];

	(void)worker;
	if (strcmp(row_value(row, "kind", kind, sizeof(kind)), "worker") == 0)
		*p = (struct pair){ number(row, "generation"), number(row, "tables") };
}

/* True when the worker uses what is published now, or is not there any more: the next one begins with it. *ret is what it uses; zeroes: it did not answer. */
static bool has_taken(const char *run_dir, unsigned worker, struct pair *ret)
{
	struct pair wanted = published(run_dir);
	struct logline request;

	*ret = (struct pair){ 0 };
	row_begin(&request);
	log_str(&request, "cmd", "status");
	if (ask_worker_within(run_dir, worker, row_text(&request), ANSWER_S, read_row, ret) == ST_NOT_FOUND)
		return true;
	return ret->configuration == wanted.configuration && ret->tables == wanted.tables;
}

static void complain(const char *run_dir, unsigned worker, const struct pair *has)
{
	struct pair wanted = published(run_dir);

	if (!has->configuration) {
		fprintf(stderr, "Worker %u does not answer.\n", worker);
		return;
	}
	if (has->configuration != wanted.configuration)
		fprintf(stderr, "Worker %u still uses generation %llu of the configuration, not %llu.\n", worker, (unsigned long long)has->configuration,
			(unsigned long long)wanted.configuration);
	if (has->tables != wanted.tables)
		fprintf(stderr, "Worker %u still uses generation %llu of the tables, not %llu.\n", worker, (unsigned long long)has->tables,
			(unsigned long long)wanted.tables);
}

bool taken_wait(const char *run_dir, FILE *out)
{
	uint64_t limit = clock_mono_ns() + TAKEN_S * NS_PER_S;
	unsigned workers[WORKERS_MAX], n = ask_workers(run_dir, workers, WORKERS_MAX), taken = 0;
	struct pair has;

	for (unsigned i = 0; i < n; i++) {
		bool done = has_taken(run_dir, workers[i], &has);

		while (!done && clock_mono_ns() < limit) {
			usleep(PAUSE_MS * 1000);
			done = has_taken(run_dir, workers[i], &has);
		}
		if (!done)
			complain(run_dir, workers[i], &has);
		taken += done;
	}
	if (out && taken < n)
		fprintf(out, "In use by %u of %u workers.\n", taken, n);
	else if (out && n)
		fprintf(out, "In use by %u worker%s.\n", n, n == 1 ? "" : "s");
	else if (out)
		fputs("No worker runs.\n", out);
	return taken == n;
}
