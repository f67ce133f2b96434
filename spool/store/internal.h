/* What the files of spool/store share; nobody else includes it. */
#ifndef WEIR_SPOOL_STORE_INTERNAL_H
#define WEIR_SPOOL_STORE_INTERNAL_H

#include <sys/queue.h>
#include "spool/base/map.h"
#include "spool/store/format.h"
#include "spool/store/store.h"

enum { BATCHES_IN_FLIGHT = 2, STAGING = 2 * 1024 * 1024, RESERVE_SEGMENTS = 2, FILL_CHUNK = 1024 * 1024 };

/* One extent of a body, in the arena, in the log, or both. */
struct piece {
	struct extent ext;  /* cap 0: not in the arena */
	uint32_t len;
	uint32_t segment;
	uint64_t generation, off, hash;
	bool on_disk;       /* segment, generation, off are set, and durable */
	bool queued;        /* is a raw area of a batch on its way */
	bool orphan;        /* its body was dropped while queued: freed with the batch */
};

struct body {
	struct store *store;
	uint64_t len, hint;
	struct piece **piece;
	uint32_t npieces, cap;
	uint32_t spilled;   /* pieces given to the log so far */
	bool dot_lines;
	char last[2];       /* the last two bytes */
};

struct msg {
	struct store_msg pub; /* first */
	uint32_t slot;        /* in store->msgs */
	uint32_t pins;        /* readers and scans */
	uint32_t segment;     /* of its record; UINT32_MAX: not placed yet */
	uint64_t inline_off;  /* of an inline body in the segment; 0: pieces */
	uint64_t inline_hash;
	bool in_log;          /* placed and durable */
	bool forgotten;       /* freed when its batch is done */
	bool evict_wanted;
	bool reason_owned;
	struct piece **piece;
	uint32_t npieces;
	struct extent scan_list;
	bool waits_for_pieces; /* its record is written when its spilled pieces are durable */
	bool moving;
	uint32_t nbatch;      /* batches in flight that name it */
	uint64_t batch_seq;   /* recovery: of its record */
	struct pool pool;     /* envelope */
};

enum seg_state { SEG_FILLING, SEG_FREE, SEG_CLAIMING, SEG_READY, SEG_ACTIVE, SEG_FULL };

struct segment {
	int fd;
	uint32_t index;
	uint8_t state;
	bool suspect;        /* a write to it failed */
	uint64_t generation;
	uint64_t end;        /* where the next batch goes */
	uint64_t fill;       /* SEG_FILLING: bytes written */
	uint32_t live;       /* records and pieces of messages that are still wanted */
};

struct raw {
	struct piece *piece;
	struct msg *msg;     /* NULL: of an unfinished body */
	uint32_t rel;        /* offset from the first raw area */
};

struct batch_msg {
	struct msg *msg;
	uint32_t inline_rel; /* offset of its inline body from the start of the batch; 0: none */
	bool first;          /* STORE_DURABLE is due */
	bool moved;
	struct piece **old;  /* moved: what the new copy replaces */
	uint32_t nold;
};

struct batch {
	TAILQ_ENTRY(batch) entry;
	char *staging;       /* BLOCK-aligned; header, then records */
	int registered;      /* index of its registered buffer, or -1 */
	size_t used, cap;
	uint32_t records, raw_bytes;
	struct raw *raw;
	uint32_t nraw, raw_cap;
	struct batch_msg *msg;
	uint32_t nmsg, msg_cap;
	uint64_t seq, start_ns;
	struct segment *seg;
	uint64_t off;
	uint32_t writes;     /* completions to come */
	uint8_t tries;
	bool failed, synced, syncing;
	uint32_t slot;       /* for user_data */
};

struct store {
	struct store_config cfg;
	char *dir;
	struct uring *uring;
	struct arena *arena;
	int dir_fd, lock_fd;
	uint32_t id;         /* which store of the process: in user_data's slot */
	bool direct, fixed, fenced, fence_told, room_wanted, filling;
	const char *fence_reason;
	char fence_text[200];
	/* segments */
	struct segment *seg;
	uint32_t nsegs, max_segs;
	struct segment *active, *next;
	uint64_t next_generation, next_seq, durable_seq, next_number;
	char *zeros;
	char *claim_block;
	/* messages */
	struct msg **msgs;
	uint32_t nslots, slots_cap, nmsgs;
	uint32_t *free_slots, nfree_slots;
	struct map *by_id;
	/* commit */
	TAILQ_HEAD(batch_list, batch) waiting, flying;
	struct batch *open;
	struct batch *spare[4];
	uint32_t nspare, nflying, next_batch_slot;
	struct batch *by_slot[64];
	uint32_t damaged;
	uint32_t nwaiting_put;  /* messages that wait for their pieces */
	struct body_reader **reader;
	uint32_t readers_cap;
	/* events */
	struct store_event *event;
	uint32_t nevents, event_head, event_cap;
};

/* ---- segment.c ---- */
enum status segment_open_all(struct store *s);
enum status segment_create(struct store *s, bool background, struct segment **ret);
/* A segment with room for n bytes, or NULL while none is ready. */
struct segment *segment_for(struct store *s, uint32_t n);
/* Prepares the next segment ahead of need, recycles what is free of live data. */
void segment_upkeep(struct store *s);
uint32_t segment_count(const struct store *s, enum seg_state st);
struct segment *segment_oldest(struct store *s);
void segment_live(struct store *s, uint32_t index, int change);
void segment_completion(struct store *s, const struct uring_event *ev);

/* ---- log.c ---- */
/* All pieces of m are in the arena or durable. old: pieces that a moved message's new ones replace; taken over. */
void log_message(struct store *s, struct msg *m, bool moved, struct piece **old, uint32_t nold);
bool pieces_queued(const struct msg *m);
void log_outcome(struct msg *m, uint32_t i);
void log_state(struct msg *m);
void log_done(struct msg *m);
void log_chunk(struct store *s, struct piece *p);
void log_completion(struct store *s, const struct uring_event *ev);
void batch_free(struct batch *b);
void event_push(struct store *s, struct store_event ev);

/* ---- body.c ---- */
void piece_free(struct store *s, struct piece *p);

/* ---- recover.c ---- */
enum status recover(struct store *s);
/* Calls fn for every record of a batch that is valid at off in buf (n bytes there). Gives the batch's length; 0: no valid batch. */
typedef enum status record_fn(void *ctx, const struct batch_header *b, const struct record_header *r, uint64_t batch_off);
uint32_t batch_parse(const char *buf, size_t n, uint64_t generation, uint64_t off, record_fn *fn, void *ctx, struct batch_header *ret);
bool seg_header_ok(const void *block, struct seg_header *ret);
void seg_header_make(struct seg_header *h, uint32_t partition, uint32_t index, uint64_t generation, uint64_t bytes);

/* ---- reader.c ---- */
void reader_completion(struct store *s, const struct uring_event *ev);

/* ---- store.c ---- */
struct msg *msg_alloc(struct store *s, uint64_t id, struct span env_bytes);
void msg_release(struct store *s, struct msg *m);
void msg_maybe_evict(struct msg *m);
void fence(struct store *s, const char *what, int err);

/* ---- compact.c ---- */
void compact_turn(struct store *s);

enum store_op { OP_WRITE, OP_SYNC, OP_READ, OP_FILL, OP_FILL_SYNC, OP_CLAIM, OP_CLAIM_SYNC };
/* slot in user_data: store id (6 bits), object (18 bits) */
static inline uint32_t store_slot(const struct store *s, uint32_t object)
{
	return s->id << 18 | object;
}

static inline uint32_t pad_block(uint64_t n)
{
	return (uint32_t)((n + BLOCK - 1) & ~(uint64_t)(BLOCK - 1));
}

#endif
