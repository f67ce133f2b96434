/* F1: how many connections a destination gets. It starts small, grows while deliveries succeed, and learns the destination's own limit from refused connections
 * and from 421 and 451.
 *
 * Until the first trouble each success with all connections in use adds one; after it only every few rounds of successes do, so that a destination with a fixed limit
 * is asked for more now and then, not all the time.
 *
 * Owner: embedded by a destination. Thread: one. Fails: never. */
#ifndef WEIR_DATAPLANE_PACE_H
#define WEIR_DATAPLANE_PACE_H

#include <stdbool.h>
#include <stdint.h>

struct pace {
	uint32_t limit;
	uint32_t successes; /* since the limit changed */
	bool learned;       /* there was trouble: limit is worth keeping for a while */
	uint64_t slowed_ns; /* when it last shrank; monotonic */
};

void pace_init(struct pace *p, uint32_t start);
/* Connections that it may have now. */
uint32_t pace_limit(const struct pace *p, uint32_t max);
/* A message was delivered while this many connections were open. */
void pace_success(struct pace *p, uint32_t conns, uint32_t max);
/* A connection was refused or broke while so many others work. True: the limit shrank. */
bool pace_refused(struct pace *p, uint32_t working, uint64_t now_ns);
/* 421 or 451 on a working connection: half, but once only for all that are told so at the same time. True: the limit shrank. */
bool pace_slow_down(struct pace *p, uint64_t now_ns);
/* Whether what it has learned is old enough to be forgotten. */
bool pace_is_stale(const struct pace *p, uint64_t now_ns);

#endif
