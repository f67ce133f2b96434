/* Cluster state in Redis: rates (D1) by atomic server-side scripts, verification results (B2) as values; asynchronous on the worker's loop (hiredis).
 *
 * A decision never waits longer than the budget for Redis: then, or when Redis is away, the local table answers (P14) and the counters say so. After Redis
 * is back what was counted locally meanwhile stays local: overshoot is bounded by nodes x limit.
 *
 * Owner: the worker. Thread: one. */
#ifndef WEIR_DATAPLANE_LOOKUP_SHARED_H
#define WEIR_DATAPLANE_LOOKUP_SHARED_H

#include "dataplane/lookup/rate.h"
#include "spool/base/span.h"
#include "spool/base/status.h"
#include "spool/base/uring.h"

struct shared;
struct shared_query;

struct shared_config {
	const char *redis;     /* "unix:/path", "host:port" or "" (none: always local) */
	uint64_t budget_ns;
	uint32_t local_max;    /* keys of the local table; the least recently used go */
};

struct rate_answer {
	bool over;       /* r' >= limit */
	double rate;     /* r' */
	bool local;      /* counted locally */
};

typedef void rate_fn(void *ctx, const struct rate_answer *a);

enum status shared_new(struct uring *u, const struct shared_config *cfg, struct shared **ret);
void shared_free(struct shared *s);
/* Counts an event of the given weight on key ("client/192.0.2.1") at the wall time now. leaky: counts only when not over (D2); else strict. fn is called exactly once, from uring_wait or
 * shared_turn, unless cancelled; ST_OK with *ret filled when it is answered at once (locally). */
enum status shared_rate(struct shared *s, struct span key, double weight, double limit, uint64_t period_ns, bool leaky, rate_fn *fn, void *ctx,
	struct rate_answer *ret, struct shared_query **ret_query);
/* Takes back an event that was counted and should not stand (a login that succeeded): in Redis and in the local table, wherever it was. Nobody waits for it. */
void shared_rate_undo(struct shared *s, struct span key, double weight, uint64_t period_ns);
/* Reads without counting (rate explain): like shared_rate with weight 0. */
void shared_cancel(struct shared_query *q);
/* ---- values and claims (rules B2, B3): shared_values.c. Names that share a tag live on one server of a Redis Cluster; the key is weir:{TAG}NAME. ---- */

enum { SHARED_VALUES_MAX = 4 };
/* values[i].p == NULL: there is none; values == NULL: Redis is away, or slow. */
typedef void value_fn(void *ctx, const struct span *values);
/* All values of these names at once. ST_AGAIN: fn is called exactly once, unless cancelled; ST_NOT_FOUND: Redis is away. */
enum status shared_get(struct shared *s, struct span tag, const struct span *names, unsigned n, value_fn *fn, void *ctx, struct shared_query **ret_query);
/* Nobody waits for these. */
void shared_put(struct shared *s, struct span tag, struct span name, struct span value, uint64_t life_ns);
void shared_delete(struct shared *s, struct span tag, struct span name);

/* A claim keeps others from doing the same thing at the same time; it ends by itself after its life. NOBODY: Redis cannot tell. */
enum shared_claim { SHARED_CLAIM_WON, SHARED_CLAIM_LOST, SHARED_CLAIM_NOBODY };
typedef void claim_fn(void *ctx, enum shared_claim c);
/* token: what tells this claim from those of others. ST_AGAIN, ST_NOT_FOUND as above. */
enum status shared_claim(struct shared *s, struct span tag, struct span name, struct span token, uint64_t life_ns, claim_fn *fn, void *ctx,
	struct shared_query **ret_query);
/* Ends it if it is still ours. */
void shared_release(struct shared *s, struct span tag, struct span name, struct span token);

bool shared_is_up(const struct shared *s);
/* Once per turn: budgets, reconnection. */
void shared_turn(struct shared *s, uint64_t now_ns, uint64_t *ret_wait_ns);

#endif
