/* Everything that is on the disk of a partition. FORMAT.md is the same in prose; a test holds the sizes.
 *
 * Little endian; a machine of the other kind refuses to build. */
#ifndef WEIR_SPOOL_STORE_FORMAT_H
#define WEIR_SPOOL_STORE_FORMAT_H

#include <assert.h>
#include <stdint.h>

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the log is little endian");

enum { FORMAT_VERSION = 1, BLOCK = 4096, INLINE_MAX = 64 * 1024 };
#define SEGMENT_MAGIC 0x4745535249455721ull /* "!WEIRSEG" */
#define BATCH_MAGIC 0x4843544142524957ull   /* "WIRBATCH" */

/* The first block of a segment file. */
struct seg_header {
	uint64_t magic;
	uint32_t version;
	uint32_t incompatible; /* bits that a reader must know; unknown ones: refuse */
	uint32_t partition;
	uint32_t index;        /* of the file's name */
	uint64_t generation;   /* grows by one with each claim of any segment of the partition: the order of the log */
	uint64_t bytes;        /* of the file */
	uint64_t checksum;     /* XXH3 of the fields above */
};
static_assert(sizeof(struct seg_header) == 48);

/* A batch: this, records, zeros to the next block, then raw areas, each padded to a block. */
struct batch_header {
	uint64_t magic;
	uint64_t checksum;     /* XXH3 with seed generation of this header (checksum 0) and the records */
	uint64_t generation;   /* of the segment */
	uint64_t seq;          /* of the batch in the partition */
	uint64_t durable;      /* all batches up to this one were durable when this one was made */
	uint64_t next_number;  /* message numbers from this one on were never used */
	uint32_t bytes;        /* of the whole batch, a multiple of BLOCK */
	uint32_t record_bytes; /* of all records */
	uint32_t records;
	uint32_t raw_bytes;    /* of all raw areas with padding */
};
static_assert(sizeof(struct batch_header) == 64);

enum record_type { REC_MESSAGE = 1, REC_OUTCOME = 2, REC_STATE = 3, REC_DONE = 4, REC_CHUNK = 5 };

struct record_header {
	uint32_t bytes; /* with this header, a multiple of 8 */
	uint16_t type;
	uint16_t zero;
	uint64_t msg_id; /* REC_CHUNK: 0 */
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

/* REC_OUTCOME: this, then the reply's text. */
struct outcome_record {
	struct record_header h;
	uint64_t next_wall_ns;
	uint32_t rcpt;
	uint16_t attempts;
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

#endif
