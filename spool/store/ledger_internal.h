/* What the ledger's writer and its part in recovery share; nobody else includes it. */
#ifndef WEIR_SPOOL_STORE_LEDGER_INTERNAL_H
#define WEIR_SPOOL_STORE_LEDGER_INTERNAL_H

#include "spool/store/internal.h"
#include "spool/store/ledger.h"

enum { LEDGER_IO = 256 * 1024 };
enum ledger_busy { LEDGER_IDLE, LEDGER_WRITING, LEDGER_SYNCING, LEDGER_SYNCING_DIR };

/* A write: what is true when it is done. */
struct ledger_write {
	uint64_t off, end, number, seq;
	uint32_t n;
	size_t taken; /* bytes of the pending rows */
};

struct ledger {
	struct disk_file *file; /* NULL: none yet */
	uint32_t day, oldest, keep_days;
	bool found;             /* there were frames when it was opened */
	bool failing, dirty, dir_dirty, keep_rows /* a tool's: nothing is written */;
	enum ledger_busy busy;
	uint64_t end;           /* where the next frame goes */
	uint64_t number;        /* of the last frame */
	uint64_t taken_seq;     /* the newest durable batch */
	uint64_t written_seq, synced_seq, want_seq;
	uint64_t flushed_ns, retry_ns;
	struct notes pending;   /* rows of durable batches, LEDGER_MARK behind each batch */
	struct ledger_write next;
	char *io;
	uint64_t refusals_s;
	uint32_t refusals;
};

void notes_add(struct notes *t, const struct ledger_row *row);
void notes_append(struct notes *t, const struct notes *from);
void notes_accepted(struct notes *t, uint64_t id, uint64_t at_ns, uint8_t state, const struct envelope *e, uint64_t size, struct span reason);
void ledger_compose(struct store *s, struct ledger_write *w, uint32_t flags);
void ledger_written(struct ledger *l, const struct ledger_write *w);
enum status ledger_rotate(struct store *s, uint32_t day);

#endif
