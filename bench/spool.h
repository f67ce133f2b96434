/* The spool alone, against the other ways of making a message durable: what it costs, how long it takes, how it starts and how it compacts.
 *
 * Every producer is a process with a partition of its own, as a worker is. CPU is user and system time of the producers, kernel threads that work for
 * them through io_uring included, those of the file system's journal not. */
#ifndef WEIR_BENCH_SPOOL_H
#define WEIR_BENCH_SPOOL_H

#include "spool/store/store.h"

enum { PRODUCERS_MAX = 64 };

struct spool_options {
	const char *dir, *way;
	unsigned size, outstanding, producers, percent;
	uint64_t messages, segment_bytes, max_bytes;
	double seconds, warm_s, rate, ratio;
	bool tail; /* fill: end where the most of the log is to be replayed */
};

/* What one producer did between two points in time. */
struct span_of_work {
	uint64_t messages, ns, cpu_ns;
	uint64_t p50_ns, p99_ns, p999_ns, max_ns;
};

/* One producer's run of a way: calls measure_begin when it is warm, measure_end when the time is over. */
struct measure {
	const struct spool_options *o;
	unsigned producer;
	void *barrier;
	uint64_t begin_ns, begin_cpu_ns, end_ns;
	uint64_t *latency, nlatency, latency_cap; /* ns; since measure_begin */
	struct span_of_work *ret;
};

/* Waits for the other producers. */
void measure_begin(struct measure *m);
bool measure_over(const struct measure *m);
void measure_latency(struct measure *m, uint64_t ns);
void measure_end(struct measure *m, uint64_t messages);
uint64_t cpu_self_ns(void);

/* size bytes of text in CRLF lines, the same for every message. */
struct span bench_text(unsigned size);

/* A store with what it needs. */
struct rig {
	struct uring uring;
	struct arena *arena;
	struct store *store;
	struct store_config cfg;
};

/* Ends the program when it cannot. */
void rig_open(struct rig *r, const char *dir, uint32_t partition, size_t arena_bytes, const struct spool_options *o);
void rig_close(struct rig *r);
/* A message of nrcpt recipients, given to the store. NULL: no room now. */
struct store_msg *rig_put(struct rig *r, struct span text, unsigned nrcpt, void *user);
void rig_turn(struct rig *r, uint64_t wait_ns);
/* Every recipient delivered, and the message gone. */
void rig_deliver(struct store_msg *m);

/* The ways. */
void way_spool(struct measure *m);
void way_file(struct measure *m);
void way_direct(struct measure *m);

/* The commands: exit codes. */
int bench_spool(int argc, char **argv);
int spool_durable(const struct spool_options *o);
int spool_fill(const struct spool_options *o);
int spool_recover(const struct spool_options *o);
int spool_compact(const struct spool_options *o);

#endif
