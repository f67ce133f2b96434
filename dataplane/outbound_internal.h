/* What the parts of outbound share: outbound.c (deliveries), dest.c (destinations). For nobody else. */
#ifndef WEIR_DATAPLANE_OUTBOUND_INTERNAL_H
#define WEIR_DATAPLANE_OUTBOUND_INTERNAL_H

#include "dataplane/outbound.h"

struct outbound {
	struct worker *w;
	struct map *by_key, *by_tag;
	TAILQ_HEAD(, dest) dests;
	TAILQ_HEAD(dirty_dests, dest) dirty;
	uint32_t nconns;
	uint32_t nbusy; /* deliveries that a connection has */
	uint32_t nreports; /* under way */
	uint32_t nback;    /* destinations that are back since a short while */
	bool stopping;
};

/* ---- dest.c ---- */

/* A destination by its key's tag, not 0, which is for messages with several. */
uint32_t dest_tag(struct span key);
struct dest *dest_by_tag(const struct outbound *o, uint32_t tag);
/* What an attempt says about how many connections the destination bears; once for all its recipients. */
void dest_learn(struct dest *d, bool delivered, bool slow);
/* F2: what waits for a destination that takes mail again does not wait for its next attempt. */
void dest_back(struct dest *d);

#endif
