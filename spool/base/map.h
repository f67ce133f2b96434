/* A hash map from bytes to a pointer, seeded at random so that strangers cannot choose collisions.
 *
 * Owner: the map copies keys; values belong to the caller. Thread: one. */
#ifndef WEIR_SPOOL_BASE_MAP_H
#define WEIR_SPOOL_BASE_MAP_H

#include "spool/base/span.h"
#include "spool/base/status.h"

struct map;

enum status map_new(struct map **ret);
void map_free(struct map *m);
size_t map_len(const struct map *m);
/* The value, or NULL. */
void *map_get(const struct map *m, struct span key);
/* Sets or replaces. ST_NOMEM leaves the map as it was. */
enum status map_set(struct map *m, struct span key, void *value);
/* Removes; gives the old value or NULL. */
void *map_del(struct map *m, struct span key);
/* Iterates: *pos starts at 0; false at the end. map_del of the key just given is allowed in the loop, map_set of a new key is not. */
bool map_next(const struct map *m, size_t *pos, struct span *ret_key, void **ret_value);

#endif
