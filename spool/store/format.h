/* Everything that is on the disk of a partition. FORMAT.md is the same in prose; a test holds the sizes.
 *
 * Little endian; a machine of the other kind refuses to build. */
#ifndef WEIR_SPOOL_STORE_FORMAT_H
#define WEIR_SPOOL_STORE_FORMAT_H

#include <assert.h>
#include <stdint.h>

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the log is little endian");

enum { FORMAT_VERSION = 2, FORMAT_OLDEST = 1, BLOCK = 4096, INLINE_MAX = 64 * 1024 };
#define SEGMENT_MAGIC 0x4745535249455721ull /* "!WEIRSEG" */
#define BATCH_MAGIC 0x4843544142524957ull   /* "WIRBATCH" */
#define CHECKPOINT_MAGIC 0x54504b4352494557ull /* "WEIRCKPT" */

/* New mail and what happens to it goes into segments of the hot stream; what stays long is copied into those of the cold one. */
enum stream { STREAM_HOT, STREAM_COLD, NSTREAMS };

/* The first block of a segment file. Version 1 had neither stream nor checkpoint: its checksum stands where they begin. */
struct seg_header {
	uint64_t magic;
	uint32_t version;
	uint32_t incompatible; /* bits that a reader must know; unknown ones: refuse */
	uint32_t partition;
	uint32_t index;        /* of the file's name */
	uint64_t generation;   /* grows by one with each claim of any segment of the partition: the order of the log */
	uint64_t bytes;        /* of the file */
	uint32_t stream;       /* enum stream */
	uint32_t zero;
	uint64_t checkpoint;   /* number of the newest checkpoint when the segment was claimed; 0: none */
	uint64_t checksum;     /* XXH3 of the fields above */
};
static_assert(sizeof(struct seg_header) == 64);

/* A batch: this, records, zeros to the next block, then raw areas, each padded to a block. */
struct batch_header {
	uint64_t magic;
	uint64_t checksum;     /* XXH3 with seed generation of this header (checksum 0) and the records */
	uint64_t generation;   /* of the segment */
	uint64_t seq;          /* of the batch in the partition: the order of all that happened, over both streams */
	uint64_t durable;      /* all batches up to this one were durable when this one was made */
	uint64_t next_number;  /* message numbers from this one on were never used */
	uint32_t bytes;        /* of the whole batch, a multiple of BLOCK */
	uint32_t record_bytes; /* of all records */
	uint32_t records;
	uint32_t raw_bytes;    /* of all raw areas with padding */
};
static_assert(sizeof(struct batch_header) == 64);

enum record_type { REC_MESSAGE = 1, REC_OUTCOME = 2, REC_STATE = 3, REC_DONE = 4, REC_CHUNK = 5, REC_RUN = 6 };

struct record_header {
	uint32_t bytes; /* with this header, a multiple of 8 */
	uint16_t type;
	uint16_t zero;
	uint64_t msg_id; /* REC_CHUNK, REC_RUN: 0 */
};
static_assert(sizeof(struct record_header) == 16);

/* Where a piece of a body is. */
struct piece_ref {
	uint32_t segment;    /* PIECE_HERE: in the raw areas of this very batch, off counts from the first of them */
	uint32_t len;
	uint64_t generation; /* that the segment had */
	uint64_t off;
	uint64_t hash;       /* XXH3 of the len bytes */
};
static_assert(sizeof(struct piece_ref) == 32);
enum { PIECE_HERE = 0xffffffffu };

/* A body of at most INLINE_MAX bytes is in the record, a longer one in pieces. */
enum message_flag { MESSAGE_DOT_LINES = 1, MESSAGE_ENDS_CRLF = 2, MESSAGE_MOVED = 4 /* with recipient states */ };

/* REC_MESSAGE: this, envelope, recipient states when MOVED (u32 length before them), reason (u32 length), then struct piece_ref[] or the body itself (npieces 0). */
struct message_record {
	struct record_header h;
	uint64_t body_len;
	uint64_t body_hash; /* of an inline body */
	uint32_t env_bytes;
	uint32_t npieces;
	uint8_t state;      /* enum msg_state */
	uint8_t flags;
	uint8_t zero[6];
};
static_assert(sizeof(struct message_record) == 48);

enum { ATTEMPTS_MAX = 0x7fff, TOLD_OF_DELAY = 0x8000 };

/* REC_OUTCOME: this, then the reply's text. */
struct outcome_record {
	struct record_header h;
	uint64_t next_ns; /* deferred until, spool time (clock_steady_ns) */
	uint32_t rcpt;
	uint16_t attempts; /* and TOLD_OF_DELAY */
	uint16_t code; /* 0: no reply */
	uint8_t state; /* enum rcpt_state */
	uint8_t enhanced[3];
	uint32_t text_len;
};
static_assert(sizeof(struct outcome_record) == 40);

/* REC_STATE: this, then the reason. */
struct state_record {
	struct record_header h;
	uint32_t state;
	uint32_t reason_len;
};
static_assert(sizeof(struct state_record) == 24);

/* REC_RUN: in the first batch that a process writes, and once a minute after that. */
struct run_record {
	struct record_header h;
	uint64_t first_seq; /* of this run of the writer: batches that are missing below it were torn, and nobody was told that they were durable */
	uint64_t steady_ns; /* spool time (clock.h) */
};
static_assert(sizeof(struct run_record) == 32);

/* ---- checkpoint-0, checkpoint-1 ---- */

/* The first block; written when all that follows is durable. The file with the higher number counts. */
struct checkpoint_header {
	uint64_t magic;
	uint32_t version, partition;
	uint64_t number;
	uint64_t seq;                 /* batches from this one on are not in it */
	uint64_t generation[NSTREAMS]; /* where those begin: from this generation of the stream on, */
	uint64_t off[NSTREAMS];       /* and from here in the segment that has just this generation */
	uint64_t next_generation, next_number, steady_ns;
	uint64_t bytes;               /* of the data that follow this block */
	uint64_t nentries;
	uint32_t nsegs, zero;
	uint64_t data_checksum;       /* XXH3 of the data */
	uint64_t checksum;            /* XXH3 of the fields above */
};
static_assert(sizeof(struct checkpoint_header) == 128);

enum { SEGMENT_QUARANTINED = 1 /* damage was found in it: not used again */ };

/* Data: nsegs of these, then the entries. */
struct checkpoint_segment {
	uint32_t index, flags;
	uint64_t generation; /* 0: not claimed */
};
static_assert(sizeof(struct checkpoint_segment) == 16);

/* One message: this, nuses times what of its body is where (segment, bytes), then delta_bytes of records newer than its message record. */
struct checkpoint_entry {
	uint64_t id, due_ns /* spool time; UINT64_MAX: held */, body_len;
	uint32_t segment, off, head, hash, raw_start; /* of its message record: see index.h */
	uint32_t nrcpt, open, nuses, delta_bytes;
	uint8_t state, flags;
	uint16_t zero;
};
static_assert(sizeof(struct checkpoint_entry) == 64);

/* ---- ledger-YYYYMMDD ---- */

#define LEDGER_MAGIC 0x31474c57u /* "WLG1" */
enum { LEDGER_PAGE = 64 * 1024 };

/* Frames stand one behind the other and never cross a multiple of LEDGER_PAGE; what is left of a page is zeros. A frame: this, then records (ledger.h), then zeros to a
 * multiple of 8. */
struct ledger_frame {
	uint32_t magic;
	uint32_t bytes;    /* of the whole frame, a multiple of 8 */
	uint64_t checksum; /* XXH3 with seed partition + 1 of the frame (checksum 0) */
	uint64_t number;   /* counts from 1 over all files of the partition: none may be missing */
	uint64_t seq;      /* what batches of the log up to this one say is in this frame or before it */
	uint32_t flags;    /* enum ledger_flag */
	uint32_t record_bytes;
};
static_assert(sizeof(struct ledger_frame) == 40);

enum ledger_flag {
	LEDGER_PARTIAL = 1,  /* its last batch goes on in the next frame: as the last one of all it counts for nothing */
	LEDGER_REPAIRED = 2, /* written by recovery, from the log */
};

#endif
