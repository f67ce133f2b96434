/* A queue of parked messages on disk, and how a fresh process finds it again. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "bench/spool.h"
#include "spool/base/clock.h"
#include "spool/base/counters.h"

enum { OUTSTANDING = 512, LONG_EVERY = 200, LONG_BODY = 100 * 1024 };

struct filler {
	struct rig rig;
	const struct spool_options *o;
	struct span text, text_long;
	uint64_t made, flying;
	bool keep; /* else what becomes durable is delivered */
	uint64_t checkpoints, all_checkpoint_bytes; /* seen so far */
	uint64_t last_bytes, logged_at; /* of the newest, and of the log when it was seen */
};

/* kB of a line of /proc/self/status */
static uint64_t memory_kb(const char *name)
{
	FILE *f = fopen("/proc/self/status", "r");
	char line[256];
	uint64_t kb = 0;

	while (f && fgets(line, sizeof(line), f))
		if (strncmp(line, name, strlen(name)) == 0)
			kb = strtoull(line + strlen(name) + 1, NULL, 10);
	if (f)
		fclose(f);
	return kb;
}

/* One in LONG_EVERY is long, one in four has three recipients. */
static bool put(struct filler *f)
{
	bool is_long = f->made % LONG_EVERY == LONG_EVERY - 1;

	if (!rig_put(&f->rig, is_long ? f->text_long : f->text, f->made % 4 ? 1 : 3, (void *)(uintptr_t)(f->made + 1)))
		return false;
	f->made++;
	f->flying++;
	return true;
}

static void park(struct filler *f, struct store_msg *m)
{
	uint64_t n = (uint64_t)(uintptr_t)m->user;
	uint64_t later = (600 + n % 3600) * NS_PER_S;
	struct reply r;

	if (n % 100 < f->o->percent) {
		reply_set(&r, 451, "4.7.1", "Greylisting in action, please come back later: try again in 300 seconds");
		for (uint32_t i = 0; i < m->env.nrcpt; i++)
			store_rcpt(m, i, RCPT_QUEUED, &r, clock_steady_ns() + later);
	}
	if (store_park(m, clock_mono_ns() + later, 0) != ST_OK) {
		fprintf(stderr, "weir-bench: spool: a durable message cannot be parked\n");
		_exit(1);
	}
}

static void events(struct filler *f)
{
	struct store_event ev;

	while (store_event(f->rig.store, &ev)) {
		if (ev.type == STORE_FAILED || ev.type == STORE_FENCED) {
			fprintf(stderr, "weir-bench: spool: %s\n", ev.reason);
			_exit(1);
		}
		if (ev.type != STORE_DURABLE)
			continue;
		f->flying--;
		if (f->keep)
			park(f, ev.msg);
		else
			rig_deliver(ev.msg);
	}
}

static void turn(struct filler *f)
{
	rig_turn(&f->rig, 20 * NS_PER_MS);
	events(f);
	if (counter_get(C_SPOOL_CHECKPOINTS) != f->checkpoints) {
		f->last_bytes = counter_get(C_SPOOL_CHECKPOINT_BYTES) - f->all_checkpoint_bytes;
		f->all_checkpoint_bytes = counter_get(C_SPOOL_CHECKPOINT_BYTES);
		f->checkpoints = counter_get(C_SPOOL_CHECKPOINTS);
		f->logged_at = counter_get(C_COMMIT_BYTES);
	}
}

static void settle(struct filler *f)
{
	while (f->flying || store_busy(f->rig.store))
		turn(f);
}

/* Traffic that leaves nothing, until a checkpoint is made. */
static void until_checkpoint(struct filler *f)
{
	uint64_t seen = f->checkpoints;

	f->keep = false;
	while (f->checkpoints == seen) {
		while (f->flying < OUTSTANDING && put(f))
			;
		turn(f);
	}
	settle(f);
}

/* And on, until the next one is almost due: the most that a recovery ever has to replay. */
static void until_almost_due(struct filler *f)
{
	uint64_t most = 2 * (f->rig.cfg.segment_bytes > f->last_bytes ? f->rig.cfg.segment_bytes : f->last_bytes);

	while (counter_get(C_COMMIT_BYTES) - f->logged_at < most / 10 * 8) {
		while (f->flying < OUTSTANDING / 4 && put(f))
			;
		turn(f);
	}
	settle(f);
}

int spool_fill(const struct spool_options *o)
{
	struct filler f = { .o = o, .text = bench_text(o->size), .text_long = bench_text(LONG_BODY), .keep = true };
	uint64_t before, parked;

	rig_open(&f.rig, o->dir, 0, 256u << 20, o);
	before = memory_kb("RssAnon:");
	while (f.made < o->messages) {
		while (f.made < o->messages && f.flying < OUTSTANDING && put(&f))
			;
		turn(&f);
	}
	settle(&f);
	parked = memory_kb("RssAnon:");
	until_checkpoint(&f);
	if (o->tail)
		until_almost_due(&f);
	printf("messages=%llu log_mb=%llu checkpoint_kb=%llu replay_mb=%llu park_bytes_each=%lld\n", (unsigned long long)o->messages,
		(unsigned long long)(counter_get(C_COMMIT_BYTES) >> 20), (unsigned long long)(f.last_bytes >> 10),
		(unsigned long long)((counter_get(C_COMMIT_BYTES) - f.logged_at) >> 20),
		(long long)(parked - before) * 1024 / (long long)o->messages);
	fflush(stdout);
	_exit(0); /* like a kill */
}

/* What the kernel still has of the files goes, so that a spool without O_DIRECT starts cold, too. */
static void drop_caches(const char *dir)
{
	static const char *const name[] = { "checkpoint-0", "checkpoint-1", "seg-%08x" };
	char path[4200];

	for (unsigned k = 0; k < 3; k++)
		for (unsigned i = 0; k == 2 || i == 0; i++) {
			int fd, n = snprintf(path, sizeof(path), "%s/", dir);

			snprintf(path + n, sizeof(path) - (size_t)n, k == 2 ? "seg-%08x" : name[k], i);
			fd = open(path, O_RDONLY);
			if (fd < 0)
				break;
			posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
			close(fd);
		}
}

int spool_recover(const struct spool_options *o)
{
	uint64_t before, cpu, all;
	uint32_t awake;
	struct rig r;

	drop_caches(o->dir);
	before = memory_kb("RssAnon:");
	cpu = cpu_self_ns();
	rig_open(&r, o->dir, 0, 64u << 20, o);
	cpu = cpu_self_ns() - cpu;
	all = store_count(r.store, &awake);
	printf("messages=%llu ms=%.1f cpu_ms=%.1f rss_kb=%llu peak_kb=%llu bytes_each=%.0f\n", (unsigned long long)all,
		(double)counter_get(C_SPOOL_RECOVERY_NS) / 1e6, (double)cpu / 1e6, (unsigned long long)(memory_kb("RssAnon:") - before),
		(unsigned long long)memory_kb("VmHWM:"), all ? (double)(memory_kb("RssAnon:") - before) * 1024 / (double)all : 0);
	fflush(stdout);
	_exit(0); /* leaves the directory as it was, but for what recovery did */
}
