/* Reads a partition's directory without its worker: the same parser as recovery, but no writer, no lock and no repair.
 *
 * Of a running partition it sees what is on the disk at that moment; its torn last batch is then no damage. */
#ifndef WEIR_SPOOL_STORE_CHECK_H
#define WEIR_SPOOL_STORE_CHECK_H

#include "spool/base/status.h"
#include "spool/store/format.h"

struct check_sums {
	uint32_t segments, claimed;
	uint64_t batches, records, messages, outcomes, done, bytes, holes;
};

/* Called for each record with the segment's number; NULL when only the sums are wanted. */
typedef void check_fn(void *ctx, uint32_t segment, uint64_t off, const struct batch_header *b, const struct record_header *r);

/* ST_UNSUPPORTED for another format, ST_CORRUPT, ST_IO. holes counts places where blocks stand that are no batch, before a later batch of the same segment. */
enum status store_check(const char *dir, check_fn *fn, void *ctx, struct check_sums *ret);

#endif
