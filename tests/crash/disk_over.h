/* A disk in front of another one, for tests: what is begun passes a function first, which may do something else instead.
 *
 * Owner: who owns a disk. Thread: one. */
#ifndef WEIR_TESTS_CRASH_DISK_OVER_H
#define WEIR_TESTS_CRASH_DISK_OVER_H

#include "spool/store/disk.h"

struct disk_over {
	struct disk disk; /* first */
	struct disk *below;
	/* In place of below's begin. */
	void (*begin)(struct disk_over *o, const struct disk_io *io);
	/* Before and after each operation that waits. */
	void (*waits)(struct disk_over *o, enum disk_kind kind, bool over);
};

/* Takes below. waits may be NULL. */
enum status disk_over_new(struct disk *below, void (*begin)(struct disk_over *, const struct disk_io *),
	void (*waits)(struct disk_over *, enum disk_kind, bool), struct disk **ret);

#endif
