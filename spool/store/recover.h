/* The parts of recovery: what recover.c, recover_replay.c and recover_apply.c share. */
#ifndef WEIR_SPOOL_STORE_RECOVER_H
#define WEIR_SPOOL_STORE_RECOVER_H

#include "spool/store/internal.h"

/* One stream's segments, read one after the other. */
struct cursor {
	struct segment **seg; /* in the order of their generations */
	uint32_t nsegs, at;
	char *buf;            /* the segment in memory, */
	uint64_t buf_from;    /* from here on */
	bool loaded;
	uint64_t off;
	bool hole;            /* blocks that are no batch stand before off */
	struct segment *last; /* that has the newest batch, */
	uint64_t end;         /* which ends here */
	struct batch_header b; /* the batch at off; b.bytes is 0 when there is none any more */
};

/* A batch behind missing ones: whether it counts is not known yet. */
struct held {
	struct held *next;
	struct batch_header b;
	const struct segment *seg;
	uint64_t off;
	char bytes[];
};

enum { ARRIVALS = 1024, SETTLED = 256 }; /* powers of two */

struct recovery {
	struct store *s;
	struct checkpoint_header from;
	struct cursor cursor[NSTREAMS], *now;
	uint64_t last_seq, max_durable;
	uint64_t steady_ns;
	uint64_t gap;         /* the first missing batch that nothing is known of; 0: none */
	struct held *held, **held_end;
	const struct segment *seg; /* of the batch that is being applied, */
	uint64_t off;         /* and its place there */
	uint64_t *tail;       /* ids of messages with pieces whose batch may have been torn; then of those whose was */
	uint64_t *tail_seq;
	size_t ntail, tail_cap, ntorn;
	bool newest_lost;     /* the newest checkpoint cannot be read */
	struct arrival {
		uint64_t id, ns;
	} arrival[ARRIVALS];  /* of messages whose outcomes the ledger lacks: an envelope of many recipients is not read for each of them */
	struct settled {
		uint64_t id, *bits;
		uint32_t words;
	} settled[SETTLED];   /* which recipients of messages are not open, a bit each: so that not all deltas of many recipients are read for each of them */
};

/* ---- recover_replay.c ---- */

/* Cursors over the segments from rc->from on. Freed by replay_free(), also after an error. */
enum status replay_new(struct recovery *rc);
/* Applies every batch that counts, in the order of their composing. */
enum status replay(struct recovery *rc);
/* The log goes on where it ended: behind the last batch of each stream. */
void replay_resume(struct recovery *rc);
void replay_free(struct recovery *rc);

/* ---- recover_apply.c ---- */

/* A record_fn: what one record of the batch at rc->seg and rc->off says goes to the index, and to the ledger when it lacks it. */
enum status apply_record(void *ctx, const struct batch_header *b, const struct record_header *h, size_t rel);
void apply_free(struct recovery *rc);

#endif
