/* The generation of compiled tables that a worker uses: looks once a second whether <run>/tables/current is another one, and takes it over (C1).
 *
 * Checking a large generation takes a tenth of a second, so a thread does that and nothing else; the worker changes over when it is done, between two commands. A damaged generation
 * changes nothing.
 *
 * Owner: the worker. Thread: the worker's; the checking thread touches only what it was given. */
#ifndef WEIR_DATAPLANE_GENERATION_H
#define WEIR_DATAPLANE_GENERATION_H

#include "dataplane/worker.h"

/* Takes over what is there now, before the first command; a worker may start without tables. ST_NOMEM. */
enum status generation_new(struct worker *w, struct generation **ret);
void generation_tick(struct worker *w);

#endif
