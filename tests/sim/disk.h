/* A disk in memory: never fails, and its operations end in an order that the seed draws, in no time. It costs what is written but for zeros, as a world a conversation
 * must cost next to nothing. Power losses and failing disks are tests/support/simdisk.h's.
 *
 * Owner: the store that gets it, which frees it; once a process. */
#ifndef WEIR_TESTS_SIM_DISK_H
#define WEIR_TESTS_SIM_DISK_H

#include "spool/store/disk.h"

/* An operation has ended; to be handed to the store. */
typedef void disk_ended_fn(const struct disk_tag *tag, int res);

struct disk *disk_new(uint64_t seed, disk_ended_fn *ended);
/* Ends one operation of those under way. False: there is none. */
bool disk_turn(struct disk *d);

#endif
