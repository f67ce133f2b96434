/* A partition's queue as the next start of its worker would find it, without being that start: nothing is locked or written.
 *
 * For tools, while no worker has the partition. Waits for the disk. */
#ifndef WEIR_SPOOL_STORE_LOOK_H
#define WEIR_SPOOL_STORE_LOOK_H

#include "spool/store/ledger.h"
#include "spool/store/store.h"

struct look_sink {
	void *ctx;
	/* First what the log has and the ledger lacks, as the next start will write it down. */
	void (*lacking)(void *ctx, const struct ledger_row *row);
	/* Then every message that has a recipient without an outcome. */
	void (*message)(void *ctx, const struct store_row *row);
};

enum status store_look(const char *dir, uint32_t partition, const struct look_sink *sink);

#endif
