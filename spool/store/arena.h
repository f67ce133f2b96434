/* The arena: shared memory in which messages are assembled, and from which scanners and delivery read.
 *
 * A memfd, on huge pages where there are any, sealed so that whoever else gets the descriptor can only map it read-only. 2 MiB superblocks
 * are cut into extents of 4, 16, 64 and 256 KiB. Everything in it is addressed by offset. Beside them, and beyond the bytes asked for, are pages that no body
 * can use up: what a complete message needs to be scanned, and to end.
 *
 * Owner: the worker that made it; it dies with the worker (the log is what survives). Thread: one. */
#ifndef WEIR_SPOOL_STORE_ARENA_H
#define WEIR_SPOOL_STORE_ARENA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "spool/base/status.h"

enum { EXTENT_MIN = 4096, EXTENT_MAX = 256 * 1024 };

struct arena;

struct extent {
	uint64_t off;
	uint32_t cap; /* 4, 16, 64 or 256 KiB; 0: none */
};

/* bytes is rounded up to 2 MiB. */
enum status arena_new(size_t bytes, struct arena **ret);
void arena_free(struct arena *a);
/* The smallest class that holds want, or the largest class; when there is none of it, a larger one, or else a smaller one. ST_FULL when the arena is used up. */
enum status extent_alloc(struct arena *a, size_t want, struct extent *ret);
/* An extent of 4 KiB, at least, from those kept for it, else from all. ST_FULL. */
enum status page_alloc(struct arena *a, struct extent *ret);
void extent_release(struct arena *a, struct extent e);
void *arena_at(const struct arena *a, uint64_t off);
int arena_fd(const struct arena *a);
size_t arena_bytes(const struct arena *a);
/* What to map: arena_bytes and the pages. */
size_t arena_map_bytes(const struct arena *a);
size_t arena_used(const struct arena *a);
/* Of arena_bytes. */
size_t arena_left(const struct arena *a);
bool arena_is_huge(const struct arena *a);

#endif
