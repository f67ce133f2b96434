/* What shared.c (connection, rates) and shared_values.c (values and claims) share. For nobody else. */
#ifndef WEIR_DATAPLANE_LOOKUP_SHARED_INTERNAL_H
#define WEIR_DATAPLANE_LOOKUP_SHARED_INTERNAL_H

#include "dataplane/lookup/shared.h"

#include <hiredis/async.h>
#include <sys/queue.h>
#include "spool/base/map.h"

enum { SHARED_KEY_MAX = 320 };

struct shared_query {
	TAILQ_ENTRY(shared_query) entry; /* among those that wait, oldest first */
	struct shared *s;
	rate_fn *rate;
	value_fn *value;
	claim_fn *claim;
	unsigned n;       /* values asked for */
	void *ctx;
	uint64_t deadline_ns;
	bool waiting;     /* in the list: neither answered nor cancelled */
	bool leaky;
	double weight, limit;
	uint64_t period_ns;
	size_t key_len;
	char key[SHARED_KEY_MAX];
};

struct local {
	TAILQ_ENTRY(local) entry; /* least recently used first */
	struct rate_state state;
	size_t key_len;
	char key[];
};

struct shared {
	struct uring *uring;
	struct shared_config cfg;
	char *where;
	redisAsyncContext *redis;
	bool up, connecting, polling_in, polling_out, want_read, want_write;
	uint32_t gen;       /* of the connection: late polls of an old one die by it */
	uint64_t retry_at_ns;
	char sha[41];
	TAILQ_HEAD(, shared_query) waiting;
	struct map *local;
	TAILQ_HEAD(, local) lru;
};

/* A question with the budget's deadline; NULL: no memory. */
struct shared_query *shared_query_new(struct shared *s, struct span key, void *ctx);
/* It was given to Redis: its answer, or its deadline, is waited for. */
void shared_query_wait(struct shared_query *q);
/* It is answered, or nobody waits for it any more. */
void shared_query_unwait(struct shared_query *q);

#endif
