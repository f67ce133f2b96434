/* What the files of spool/store share; nobody else includes it. */
#ifndef WEIR_SPOOL_STORE_INTERNAL_H
#define WEIR_SPOOL_STORE_INTERNAL_H

#include <sys/queue.h>
#include "spool/store/disk.h"
#include "spool/store/format.h"
#include "spool/store/index.h"
#include "spool/store/store.h"

enum { BATCHES_IN_FLIGHT = 2, STAGING = 2 * 1024 * 1024, RESERVE_SEGMENTS = 3, FILL_CHUNK = 1024 * 1024, SPARES = 4 };

/* One extent of a body, in the arena, in the log, or both. */
struct piece {
	struct extent ext;  /* cap 0: not in the arena */
	uint32_t len;
	uint32_t segment;
	uint64_t generation, off, hash;
	bool on_disk;       /* segment, generation, off are set, and durable */
	bool queued;        /* is a raw area of a batch on its way */
	bool kept;          /* of a message, or the first of a body: stays in the arena until that is evicted */
	bool orphan;        /* its body was dropped while queued: freed with the batch */
};

struct body {
	struct store *store;
	TAILQ_ENTRY(body) entry;
	uint64_t len, hint;
	struct piece **piece;
	uint32_t npieces, cap;
	uint32_t sealed;    /* pieces that are full and have their hash */
	uint32_t spilled;   /* pieces given to the log so far; at most the sealed ones */
	uint32_t released;  /* of these, looked at for giving their memory back */
	bool dot_lines;
	char last[2];       /* the last two bytes */
};

/* A message that is awake. */
struct msg {
	struct store_msg pub; /* first */
	TAILQ_ENTRY(msg) waiting; /* while waits_for_pieces */
	uint32_t slot;        /* of its index entry; SLOT_NONE: forgotten */
	uint32_t pins;        /* readers and scans */
	uint32_t nbatch;      /* batches in flight that name it */
	bool evict_wanted;
	bool waits_for_pieces; /* its record is written when its spilled pieces are durable */
	bool unlinked;        /* a look at a parked message, or its mover's: its entry does not know it */
	uint32_t npieces;
	struct piece **piece; /* an inline body has some while it is in the arena */
	uint64_t inline_hash;
	struct extent *scan_page; /* while a scanner may read it */
	uint32_t nscan_pages;
	uint32_t scan_segment; /* where a scanner reads an inline body */
	struct move *move;    /* is being copied piece by piece */
	struct pool pool;     /* envelope and recipients */
	struct span stored;   /* the envelope as it is in the log */
};
TAILQ_HEAD(msg_list, msg);

enum seg_state { SEG_FILLING, SEG_FREE, SEG_CLAIMING, SEG_READY, SEG_ACTIVE, SEG_FULL };

struct segment {
	struct disk_file *file;
	uint32_t index;
	uint8_t state;
	uint8_t stream;
	bool suspect;        /* a write to it failed */
	bool quarantined;    /* damage was found in it: not used again */
	uint64_t generation;
	uint64_t end;        /* where the next batch goes */
	uint64_t fill;       /* SEG_FILLING: bytes written */
	uint32_t live;       /* records and pieces of messages that are still wanted */
	uint32_t reads;      /* under way */
	uint64_t live_bytes;
};

struct raw {
	struct piece *piece;
	struct msg *msg;     /* NULL: of an unfinished body */
	uint32_t rel;        /* offset from the first raw area */
};

/* A message record of a batch: what its index entry must know when it is durable. */
struct batch_msg {
	struct msg *msg;     /* first: STORE_DURABLE is due; NULL for a moved one */
	uint64_t id;
	uint32_t rel;        /* of the record, from the start of the batch */
	uint32_t head, hash;
	struct piece **old;  /* moved: what the new copy replaces */
	uint32_t nold;
};

/* Rows of the ledger, one behind the other. */
struct notes {
	char *p;
	size_t n, cap;
};

struct batch {
	TAILQ_ENTRY(batch) entry;
	char *staging;       /* BLOCK-aligned; header, then records */
	int registered;      /* index of its registered buffer, or -1 */
	enum stream stream;
	size_t used, cap;
	uint32_t records, raw_bytes;
	struct raw *raw;
	uint32_t nraw, raw_cap;
	struct batch_msg *msg;
	uint32_t nmsg, msg_cap;
	struct piece_use *unused; /* what its done-records set free: when it is durable */
	uint32_t nunused, unused_cap;
	struct notes notes;  /* for the ledger, when it is durable */
	uint64_t number;     /* in the order of composing */
	uint64_t seq, start_ns;
	struct segment *seg;
	uint64_t off;
	uint32_t writes;     /* completions to come */
	uint32_t unwritten;  /* bytes that no completion has told of */
	uint8_t tries;
	bool failed, synced;
	uint32_t slot;       /* for the tag */
};

struct reading; /* park.c: a record on its way from the disk */
struct move;    /* compact.c */
struct checkpoint;
struct ledger;
struct ledger_row;

struct store {
	struct store_config cfg;
	struct disk *disk;
	struct arena *arena;
	uint32_t id;         /* which store of the process: in the tag's slot */
	TAILQ_HEAD(, body) bodies; /* that come in */
	bool reclaimable;    /* one of them may have memory that can be given back, or full pieces that are not spilled */
	bool fenced, room_wanted, filling;
	const char *fence_reason;
	char fence_text[200];
	/* segments */
	struct segment *seg;
	uint32_t nsegs, max_segs;  /* there are; may be, as far as the disk has room */
	uint32_t segs_limit;       /* may be, as configured */
	uint64_t look_ns;          /* when to ask the disk for its room again */
	struct segment *active[NSTREAMS], *next[NSTREAMS];
	uint32_t nfree, nempty; /* SEG_FREE; SEG_FULL and nothing in it wanted */
	bool recycle_due;    /* an empty one may have become free since the last look */
	uint64_t next_generation, next_seq, durable_seq, next_number;
	char *zeros;
	char *claim_block[NSTREAMS];
	/* messages */
	struct index *index;
	struct msg_list waiting_put;
	uint32_t nawake;
	/* commit */
	TAILQ_HEAD(batch_list, batch) waiting, flying;
	struct batch *open;
	struct batch *spare[SPARES];
	uint32_t nspare, nflying;
	struct batch *by_slot[64];
	uint64_t next_batch, durable_batch; /* numbers of batches in the order of composing */
	uint64_t logged_bytes; /* since the last checkpoint began */
	uint64_t run_first_seq, run_told_ns;
	uint32_t damaged;
	/* checkpoint.c */
	struct checkpoint *checkpoint;
	/* ledger_write.c; NULL: none is kept */
	struct ledger *ledger;
	/* park.c */
	struct reading **reading;
	uint32_t nreading;
	/* reader.c */
	struct body_reader **reader;
	uint32_t readers_cap;
	/* compact.c */
	struct move **move;
	uint32_t nmoves, victim, cursor;
	/* events */
	struct store_event *event;
	uint32_t nevents, event_head, event_cap;
};

/* ---- segment.c ---- */
enum status segment_open_all(struct store *s);
/* Waits until it is written: at the start. */
enum status segment_create(struct store *s);
/* A segment of the stream with room for n bytes, or NULL while none is ready. */
struct segment *segment_for(struct store *s, enum stream stream, uint32_t n);
/* Prepares the next segments ahead of need, recycles what is free of live data. */
void segment_upkeep(struct store *s);
/* Counts anew how many are free and empty: at the start, when recovery is over. */
void segments_count(struct store *s);
/* Segments that new data can still go to, made or not. */
uint32_t segments_left(const struct store *s);
/* Makes sure that the cold stream has a segment to go on with; false while it has none. */
bool segment_cold_ready(struct store *s);
void segment_live(struct store *s, uint32_t index, int change, uint64_t bytes);
void segment_completion(struct store *s, const struct uring_event *ev);

/* ---- format.c ---- */
enum header_kind { HEADER_NONE /* zeros: never claimed */, HEADER_OK, HEADER_DAMAGED, HEADER_UNKNOWN /* of a later version */ };
enum header_kind seg_header_read(const void *block, struct seg_header *ret);
void seg_header_make(struct seg_header *h);

/* ---- record.c ---- */
/* body: the bytes of an inline body that is not in the arena, else SPAN_NONE. old: pieces that a moved message's new ones replace; taken over. All pieces are in the arena or durable. */
void log_message(struct store *s, struct msg *m, struct span body);
void log_moved(struct store *s, struct msg *m, struct span body, struct piece **old, uint32_t nold);
void log_outcome(struct msg *m, uint32_t i);
void log_state(struct msg *m);
struct batch *log_done(struct store *s, uint64_t id);
void log_chunk(struct store *s, struct piece *p, enum stream stream);
void log_run(struct store *s);
bool pieces_queued(const struct msg *m);
/* The records that say what became of m since it was put: calls fn for each, in a buffer that lives for the call. */
typedef enum status record_sink(void *ctx, const struct record_header *r);
enum status states_as_records(const struct store_msg *m, record_sink *fn, void *ctx);
/* The record r about m, applied. */
void msg_apply(struct store_msg *m, const struct record_header *r);
/* What a message record says without its envelope: false when it is impossible. */
struct record_facts {
	uint32_t head;      /* bytes, less an inline body */
	uint32_t nrcpt, open;
	uint64_t due_ns;    /* the earliest next attempt, spool time; 0: now */
	struct span env, states, reason, refs;
};
bool record_facts(const struct message_record *r, size_t n, struct record_facts *ret);
uint32_t record_hash(const void *record, uint32_t head);

/* ---- log.c ---- */
struct batch *batch_for(struct store *s, enum stream stream, size_t n, uint32_t raw);
void *record_begin(struct batch *b, size_t n, enum record_type type, uint64_t id);
struct batch_msg *batch_add_msg(struct batch *b);
/* These bytes of the segment are wanted no more once the batch is durable. */
void batch_add_unused(struct batch *b, uint32_t segment, uint64_t bytes);
uint32_t batch_add_raw(struct batch *b, struct piece *p, struct msg *m);
void batch_free(struct batch *b);
void log_completion(struct store *s, const struct uring_event *ev);
void event_push(struct store *s, struct store_event ev);
void fence(struct store *s, const char *what, int err);

/* ---- body.c ---- */
void piece_free(struct store *s, struct piece *p);
/* The body's pieces are somebody else's, or freed. */
void body_free(struct body *b);
/* Half of the arena is for what is on its way; the other half may keep what will be wanted again. */
bool store_pressed(const struct store *s);
/* All pieces get their hash, if they are to be pieces in the log: before another one is begun, and at the end. */
void scan_list_free(struct msg *m);
void body_seal(struct body *b);

/* The length of the batch that is valid at the start of buf (n bytes), its header in *ret; 0: none is. */
uint32_t batch_valid(const char *buf, size_t n, uint64_t generation, struct batch_header *ret);
/* Calls fn for every record of a valid batch. */
typedef enum status record_fn(void *ctx, const struct batch_header *b, const struct record_header *r, size_t rel);
enum status batch_records(const char *buf, const struct batch_header *b, record_fn *fn, void *ctx);

/* ---- recover.c ---- */
enum status recover(struct store *s);
/* n bytes for reads of many megabytes, on huge pages where there are any: touching them costs a fraction. Ends with free(). */
void *big_alloc(size_t n);

/* ---- checkpoint.c ---- */
enum status checkpoint_open(struct store *s);
/* Puts the newest one into index and segments. ST_NOT_FOUND: there is none. */
enum status checkpoint_load(struct store *s, struct checkpoint_header *ret);
void checkpoint_turn(struct store *s);
void checkpoint_completion(struct store *s, const struct uring_event *ev);
/* Segments from this generation on are needed to recover. */
uint64_t checkpoint_needs(const struct store *s, enum stream stream);
/* Numbers up to this one were used, and what they said is lost: nothing is recycled before a new one is made. */
void checkpoint_lost(struct store *s, uint64_t number);
bool checkpoint_running(const struct store *s);
uint64_t checkpoint_number(const struct store *s);
/* What it may need of the disk beyond what it has. */
uint64_t checkpoint_room(const struct store *s);
void checkpoint_free(struct store *s);

/* ---- ledger_write.c: what happened, after its log record was composed ---- */
void ledger_accepted(const struct store_msg *m);
void ledger_fate(const struct store_msg *m, uint32_t i, struct span remote);
void ledger_state(const struct store_msg *m, struct span why);
void ledger_discarded(struct store *s, uint64_t id, struct span who);
/* The batch is durable. */
void ledger_take(struct store *s, struct batch *b);
void ledger_turn(struct store *s);
void ledger_completion(struct store *s, const struct uring_event *ev);
/* Whether what batches up to seq say is on stable storage; asks for it if not. True as well while the disk refuses it. */
bool ledger_reached(struct store *s, uint64_t seq);
/* Everything is written, as far as the disk takes it. */
bool ledger_settled(struct store *s);
bool ledger_busy(const struct store *s);
void ledger_free(struct store *s);

/* ---- ledger_open.c ---- */
/* only_look: nothing is written, what is missing stays in memory. */
enum status ledger_open(struct store *s, bool only_look);
/* Whether what the log's batch seq says is missing. */
bool ledger_lacks(const struct store *s, uint64_t seq);
void ledger_repair(struct store *s, const struct ledger_row *row);
void ledger_repair_accepted(struct store *s, uint64_t id, uint8_t state, const struct envelope *e, uint64_t size, struct span reason);
void ledger_repair_torn(struct store *s, uint64_t id);
/* The log was read from batch from_seq (0: all) to last_seq. */
enum status ledger_recovered(struct store *s, uint64_t from_seq, uint64_t last_seq);

/* ---- park.c ---- */
void reading_completion(struct store *s, const struct uring_event *ev);
/* Builds the message from its record (head bytes, verified here). NULL: no memory or not that record. */
struct msg *msg_from_record(struct store *s, const struct entry *e, const char *record);
/* Same, waiting for the disk: at the start. */
enum status msg_load(struct store *s, const struct entry *e, struct msg **ret);
void readings_free(struct store *s);

/* ---- reader.c ---- */
void reader_completion(struct store *s, const struct uring_event *ev);
void readers_free(struct store *s);
bool is_inline(const struct store_msg *m);
void readers_free(struct store *s);
/* The kernel reads for some of them. */
bool readers_reading(const struct store *s);

/* ---- store.c ---- */
struct msg *msg_alloc(struct store *s, uint64_t id, struct span env_bytes);
void msg_free(struct store *s, struct msg *m);
void msg_let_go(struct store *s, struct msg *m);
void msg_maybe_evict(struct msg *m);
struct entry *msg_entry(const struct msg *m);
/* What the record at e uses of its segment, in bytes. */
uint64_t entry_bytes(const struct entry *e);
void entry_live(struct store *s, const struct entry *e, int change);

/* Bytes that the log takes of new mail: what is over the reserve. */
uint64_t log_room_left(const struct store *s);

void store_completion(void *ctx, const struct uring_event *ev);

/* ---- compact.c ---- */
void compact_turn(struct store *s);
void move_completion(struct store *s, const struct uring_event *ev);
/* m goes away while it is being moved. */
void move_cancel(struct store *s, struct msg *m);
void moves_free(struct store *s);
/* The kernel reads for some of them. */
bool moves_reading(const struct store *s);

enum store_op { OP_WRITE, OP_SYNC, OP_READ, OP_FILL, OP_FILL_DIR, OP_FILL_SYNC, OP_CLAIM, OP_CLAIM_SYNC, OP_RECORD, OP_MOVE, OP_CHECKPOINT, OP_LEDGER };
/* slot of the tag: store id (6 bits), object (18 bits) */
static inline struct disk_tag store_tag(const struct store *s, enum store_op op, uint32_t object, uint64_t gen)
{
	return (struct disk_tag){ .op = (uint8_t)op, .slot = s->id << 18 | object, .gen = (uint32_t)(gen & 0xffffff) };
}

static inline uint32_t pad_block(uint64_t n)
{
	return (uint32_t)((n + BLOCK - 1) & ~(uint64_t)(BLOCK - 1));
}

#endif
