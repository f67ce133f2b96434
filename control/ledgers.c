/* A node's ledgers and its queue, from its workers or from its disk. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "control/ask.h"
#include "control/ledger.h"
#include "spool/base/log.h"
#include "spool/store/look.h"
#include "spool/store/snapshot.h"

enum { WORKERS_MAX = 64, STORES_MAX = 64 };

static void partition_dir(const struct ledgers *l, unsigned k, char *path, size_t cap)
{
	snprintf(path, cap, "%.4000s/p%u", l->spool, k);
}

static enum status find_spool(struct ledgers *l, const char *spool)
{
	char path[4096];
	struct snapshot s;
	enum status st;

	if (spool) {
		snprintf(l->spool, sizeof(l->spool), "%s", spool);
		return ST_OK;
	}
	snprintf(path, sizeof(path), "%s/snapshot", l->run_dir);
	st = snapshot_open(path, &s);
	if (st != ST_OK)
		return st;
	snprintf(l->spool, sizeof(l->spool), "%s", snap_cstr(&s, s.h->settings.spool_dir));
	snapshot_close(&s);
	return ST_OK;
}

enum status ledgers_open(struct ledgers *l, const char *run_dir, const char *spool, uint64_t since_ns)
{
	enum status st;
	char path[4096];

	*l = (struct ledgers){ .run_dir = run_dir };
	st = find_spool(l, spool);
	while (st == ST_OK && l->n < PARTITIONS_MAX) {
		partition_dir(l, l->n, path, sizeof(path));
		if (access(path, F_OK) < 0)
			break;
		st = ledger_read_new(path, l->n, since_ns, &l->reader[l->n]);
		l->n += st == ST_OK;
	}
	if (st == ST_OK && !l->n)
		st = trail(ST_NOT_FOUND, "there are no partitions in %s", l->spool);
	return st;
}

void ledgers_close(struct ledgers *l)
{
	for (unsigned k = 0; k < l->n; k++)
		ledger_read_free(l->reader[k]);
}

enum status ledgers_read(struct ledgers *l, bool patient, const struct ledger_sink *sink)
{
	enum status st = ST_OK;

	for (unsigned k = 0; k < l->n && st == ST_OK; k++)
		st = ledger_read(l->reader[k], patient, sink);
	return st;
}

/* ---- of workers ---- */

struct asking {
	struct ledgers *l;
	const struct queue_sink *sink;
	uint64_t next; /* 0: that was all */
	int partition;
};

static void on_row(void *ctx, unsigned worker, struct span row)
{
	struct asking *a = ctx;
	struct span k, v;
	char buf[256];
	uint64_t id = 0, n = 0, partition = PARTITIONS_MAX, ledger = 0;
	bool held = false;

	(void)worker;
	while (row_next(&row, &k, &v, buf, sizeof(buf))) {
		if (span_eq(k, SPAN("id")) && msg_id_parse(v, &id) != ST_OK)
			return;
		if (span_eq(k, SPAN("open")) && !span_u64(v, UINT32_MAX, &n))
			return;
		if (span_eq(k, SPAN("state")))
			held = span_eq(v, SPAN("held"));
		if ((span_eq(k, SPAN("next")) && !span_u64(v, UINT32_MAX, &a->next)) || (span_eq(k, SPAN("ledger")) && !span_u64(v, UINT64_MAX, &ledger)) ||
			(span_eq(k, SPAN("partition")) && !span_u64(v, PARTITIONS_MAX - 1, &partition)))
			return;
	}
	if (partition < PARTITIONS_MAX) {
		a->l->live[partition] = true;
		a->l->told[partition] = ledger;
		a->partition = (int)partition;
	}
	if (id)
		a->sink->message(a->sink->ctx, id, (uint32_t)n, held);
}

/* One partition of a worker: false when it has no such one. A worker that ends in the middle is an error: what it said counts for nothing. */
static bool ask_store(struct ledgers *l, unsigned worker, unsigned store, const struct queue_sink *sink, enum status *ret)
{
	struct asking a = { .l = l, .sink = sink, .partition = -1 };
	uint64_t pos = sink->message ? 0 : UINT32_MAX; /* behind the last one */

	do {
		struct logline request;
		enum status st;

		row_begin(&request);
		log_str(&request, "cmd", "queue.index");
		log_u64(&request, "store", store);
		log_u64(&request, "pos", pos);
		a.next = 0;
		st = ask_worker(l->run_dir, worker, row_text(&request), on_row, &a);
		if (st != ST_OK && a.partition < 0)
			return false;
		if (st != ST_OK) {
			*ret = st;
			return false;
		}
		pos = a.next;
	} while (a.next);
	return true;
}

static enum status ask_workers_queue(struct ledgers *l, const struct queue_sink *sink)
{
	unsigned worker[WORKERS_MAX], n = ask_workers(l->run_dir, worker, WORKERS_MAX);
	enum status st = ST_OK;

	memset(l->live, 0, sizeof(l->live));
	for (unsigned i = 0; i < n && st == ST_OK; i++)
		for (unsigned k = 0; k < STORES_MAX && ask_store(l, worker[i], k, sink, &st); k++)
			;
	return st;
}

/* ---- of the disk ---- */

static void on_message(void *ctx, const struct store_row *row)
{
	const struct queue_sink *sink = ctx;

	if (sink->message)
		sink->message(sink->ctx, row->id, row->open, row->state == MSG_HELD);
}

static void on_lacking(void *ctx, const struct ledger_row *row)
{
	const struct queue_sink *sink = ctx;

	sink->lacking(sink->ctx, row);
}

enum status ledgers_queue(struct ledgers *l, const struct queue_sink *sink)
{
	enum status st = ask_workers_queue(l, sink);

	for (unsigned k = 0; k < l->n && st == ST_OK; k++) {
		char path[4096];

		if (l->live[k])
			continue;
		partition_dir(l, k, path, sizeof(path));
		st = store_look(path, k, &(struct look_sink){ .ctx = (void *)(uintptr_t)sink, .message = on_message, .lacking = on_lacking });
	}
	return st;
}
