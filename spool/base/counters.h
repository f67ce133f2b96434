/* Counters and gauges in shared memory: one page set per process, read by control, summed for status and metrics.
 *
 * Every counter is a row of counters.def with its name, kind and prose; the /metrics text, weirctl status and the man page come
 * from that table. A counter file is <run>/stats/<role>-<n>; it outlives its process, so that sums never go
 * back when a worker is restarted.
 *
 * Owner: the one process that opened it for writing. Readers map read-only and check the layout hash. */
#ifndef WEIR_SPOOL_BASE_COUNTERS_H
#define WEIR_SPOOL_BASE_COUNTERS_H

#include <stdatomic.h>
#include <stdint.h>
#include <sys/types.h>
#include "spool/base/status.h"

enum counter {
#define COUNTER(id, kind, name, help) C_##id,
#include "spool/base/counters.def"
#undef COUNTER
	C_COUNT
};

enum counter_kind { COUNTER_TOTAL, COUNTER_GAUGE };

struct counter_desc {
	const char *name; /* as in /metrics, without the weir_ prefix */
	const char *help;
	enum counter_kind kind;
};

extern const struct counter_desc counter_desc[C_COUNT];

/* Room for counters by the rows of a table that is defined above this folder; its owner says what is where, and when that changed (rule_counts.h). */
enum { COUNTERS_TABLE = 1024 };

struct counters_page {
	char magic[8];
	uint64_t layout;           /* hash of the table */
	_Atomic uint32_t pid;      /* of the writer; 0 when it ended in order */
	_Atomic uint32_t restarts; /* times the file was opened for writing */
	_Atomic uint64_t beat_ns;  /* clock_mono_ns of the writer's last turn */
	_Atomic uint64_t start_wall_ns;
	_Atomic uint64_t v[C_COUNT];
	_Atomic uint64_t table_layout; /* 0: nothing was counted in it */
	_Atomic uint64_t table[COUNTERS_TABLE];
};

/* Maps <dir>/<role>-<n> for writing, made when missing; gauges are set to 0. From then on counter_add writes there; before, and in tests, to
 * a private page. */
enum status counters_open(const char *dir, const char *role, int n);
/* Sets the process's pid to 0: ended in order. */
void counters_close(void);
/* A read-only mapping of a page of some process; ST_UNSUPPORTED when its table is another one. */
enum status counters_map(const char *path, const struct counters_page **ret);
void counters_unmap(const struct counters_page *p);

extern struct counters_page *counters_self;

static inline void counter_add(enum counter c, uint64_t n)
{
	/* one writer: a plain load and store is enough, and cheaper than a locked add */
	uint64_t v = atomic_load_explicit(&counters_self->v[c], memory_order_relaxed);
	atomic_store_explicit(&counters_self->v[c], v + n, memory_order_relaxed);
}

static inline void counter_sub(enum counter c, uint64_t n)
{
	counter_add(c, (uint64_t)-(int64_t)n);
}

static inline void counter_set(enum counter c, uint64_t n)
{
	atomic_store_explicit(&counters_self->v[c], n, memory_order_relaxed);
}

static inline uint64_t counter_get(enum counter c)
{
	return atomic_load_explicit(&counters_self->v[c], memory_order_relaxed);
}

#endif
