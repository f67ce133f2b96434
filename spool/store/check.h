/* Reads a partition's directory without its worker: the same parser as recovery, but no writer, no lock and no repair.
 *
 * Of a running partition it sees what is on the disk at that moment; its torn last batch is then no damage. */
#ifndef WEIR_SPOOL_STORE_CHECK_H
#define WEIR_SPOOL_STORE_CHECK_H

#include "spool/base/status.h"
#include "spool/store/format.h"

struct check_sums {
	uint32_t segments, claimed, cold;
	uint64_t batches, records, messages, outcomes, done, bytes;
	uint64_t holes;                         /* places where something durable cannot be read */
	uint64_t checkpoint, checkpoint_entries; /* the newest; 0: none */
};

/* Called for each record with the segment's number; NULL when only the sums are wanted. */
typedef void check_fn(void *ctx, uint32_t segment, uint64_t off, const struct batch_header *b, const struct record_header *r);

/* ST_UNSUPPORTED for another format, ST_CORRUPT, ST_IO. */
enum status store_check(const char *dir, check_fn *fn, void *ctx, struct check_sums *ret);

#endif
