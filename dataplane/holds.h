/* Mail that waits for the end of its route's hold (F2): how much there is of it, and that it goes on when the hold ends, is released, or is put off.
 *
 * A parked message that waits for a hold carries the hold's tag (store_park), by which it is found again without its envelope.
 *
 * Owner: the worker. Thread: one. */
#ifndef WEIR_DATAPLANE_HOLDS_H
#define WEIR_DATAPLANE_HOLDS_H

#include "dataplane/mail.h"

struct holds;
struct logline;
typedef void holds_row_fn(void *ctx, struct logline *row);

enum status holds_new(struct holds **ret);
/* The tag of a route's hold. Those of destinations never have HOLD_TAG. */
#define HOLD_TAG 0x80000000u
uint32_t holds_tag(const struct snapshot *snap, const struct snap_route *route);
/* A message with this tag is parked, or awake again. */
void holds_parked(struct holds *h, uint32_t tag, uint64_t bytes, uint64_t arrived_ns);
void holds_woken(struct holds *h, uint32_t tag, uint64_t bytes);
/* Once a second: lets those go on whose hold has changed. */
void holds_tick(struct worker *w);
/* One row for each route on hold. */
void holds_rows(struct worker *w, holds_row_fn *emit, void *ctx);

#endif
