/* What all workers of the node have seen of clients, one row an address (A3). */
#ifndef WEIR_CONTROL_SEEN_H
#define WEIR_CONTROL_SEEN_H

#include "spool/store/evidence.h"

struct seen {
	struct evidence *row; /* sorted by address */
	size_t n;
	struct evidence_listener *listener; /* sums by name */
	size_t nlisteners;
};

/* Fails: ST_NOMEM is a bug here; a worker's file that cannot be read is left out. */
void seen_read(const char *run_dir, struct seen *ret);
void seen_free(struct seen *s);
const struct evidence *seen_find(const struct seen *s, const uint8_t ip[16]);
/* Messages a day, since it was first seen; the first day counts whole. */
double seen_per_day(const struct evidence *e, uint64_t now_s);

#endif
