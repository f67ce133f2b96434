/* A bump allocator with a ceiling: all that one transaction allocates, freed at once.
 *
 * Fails: pool_alloc gives NULL when the ceiling is reached or memory is short; the caller answers 452. */
#ifndef WEIR_SPOOL_BASE_POOL_H
#define WEIR_SPOOL_BASE_POOL_H

#include <stddef.h>
#include "spool/base/span.h"

struct pool {
	struct pool_chunk *chunks;
	size_t used;
	size_t ceiling;
};

void pool_init(struct pool *p, size_t ceiling);
/* Frees everything; the pool can be used again. */
void pool_reset(struct pool *p);
/* Zeroed, aligned to 16. */
void *pool_alloc(struct pool *p, size_t n);
/* A copy of s in the pool, NUL after it for convenience. Gives p == NULL when it does not fit. */
struct span pool_span(struct pool *p, struct span s);

#endif
