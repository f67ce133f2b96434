/* weirctl ledger: proves for a span of time that every recipient that was accepted has one outcome, or is in the queue; and weirctl trace: what happened to a message.
 *
 * Both read the ledger's files themselves. The queue is asked of the workers; of a partition that no worker has, it is read from the log. */
#ifndef WEIR_CONTROL_LEDGER_H
#define WEIR_CONTROL_LEDGER_H

#include <stdbool.h>
#include <stdint.h>
#include "spool/store/ledger.h"

enum { PARTITIONS_MAX = 256 };

/* The ledgers of a node's partitions. */
struct ledgers {
	const char *run_dir;
	char spool[4096];
	unsigned n;
	struct ledger_reader *reader[PARTITIONS_MAX];
	uint64_t told[PARTITIONS_MAX]; /* frames that the partition's worker says it wrote */
	bool live[PARTITIONS_MAX];     /* a worker has it */
};

/* spool: NULL for that of the configuration in use. */
enum status ledgers_open(struct ledgers *l, const char *run_dir, const char *spool, uint64_t since_ns);
void ledgers_close(struct ledgers *l);
enum status ledgers_read(struct ledgers *l, bool patient, const struct ledger_sink *sink);

/* The queue: row for every message (NULL: none is wanted); lacking for what the log of a partition without a worker has and its ledger lacks. */
struct queue_sink {
	void *ctx;
	void (*message)(void *ctx, uint64_t id, uint32_t open, bool held);
	void (*lacking)(void *ctx, const struct ledger_row *row);
};
enum status ledgers_queue(struct ledgers *l, const struct queue_sink *sink);

int cmd_ledger(const char *run_dir, bool as_json, int argc, char **argv);
int cmd_trace(const char *run_dir, bool as_json, int argc, char **argv);

#endif
