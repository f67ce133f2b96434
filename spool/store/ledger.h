/* The ledger: what was accepted and what became of each recipient, in files that live longer than the log and that nothing is counted from.
 *
 * A partition has a file a day, <spool>/p<k>/ledger-YYYYMMDD (UTC, spool time), append-only, removed after store_config.ledger_keep_ns. The store writes a row for every acceptance, attempt and
 * outcome, but only when the log's batch with it is durable, so that the ledger never says more than the log. It may say less, by what was not written yet: recovery reads from
 * the ledger's last frame which batches it covers and writes the rest from the log (struct ledger_frame.seq). A checkpoint counts only when the ledger is on stable
 * storage up to the batch where the log's replay would begin, so that the log always has what the ledger lacks. If it has not, for the disk refused the ledger
 * for too long, a row LEDGER_GAP says so.
 *
 * Rows about attempts that never were a message (LEDGER_REFUSED) are not in the log: of those, the last second can be missing after a crash, and of a flood of them only the first are kept.
 *
 * Owner: the worker writes; weirctl reads the files, whether it runs or not. */
#ifndef WEIR_SPOOL_STORE_LEDGER_H
#define WEIR_SPOOL_STORE_LEDGER_H

#include "spool/base/span.h"
#include "spool/base/status.h"
#include "spool/store/format.h"

enum ledger_type {
	LEDGER_MARK,     /* never on the disk: the end of a batch */
	LEDGER_BEGIN,    /* the ledger begins here; from: the log's newest batch then, 0 of a fresh partition */
	LEDGER_GAP,      /* what the log's batches from to to said is not here */
	LEDGER_ACCEPTED, /* a message has its 250, or was made by Weir itself */
	LEDGER_RCPTS,    /* its recipients, from rcpt on */
	LEDGER_FATE,     /* an attempt (state RCPT_QUEUED) or the outcome of a recipient */
	LEDGER_STATE,    /* held or released; text says by whom, or why */
	LEDGER_REFUSED,  /* a message (id) or a command (id 0) that was refused */
	LEDGER_GIVEN,    /* nrcpt recipients of an accepted message, from rcpt on, stand for what addrs has: before its LEDGER_RCPTS */
	LEDGER_NTYPE,
};

enum { LEDGER_TEXT_MAX = 120, LEDGER_RCPT_ALL = 0xffffffffu /* all that have no outcome */, LEDGER_ROW_MAX = 16 * 1024 };

/* One row. Which members it has is in the table of ledger_row.c; the others are 0. */
struct ledger_row {
	uint8_t type;       /* enum ledger_type */
	uint8_t state;      /* FATE: enum rcpt_state; ACCEPTED, STATE: enum msg_state */
	uint64_t id;
	uint64_t at_ns;     /* spool time of the writing of its log record; of the restart in a repaired frame */
	uint64_t arrived_ns; /* of the message, spool time: whole seconds but for ACCEPTED; 0: not known any more */
	uint64_t size;      /* BEGIN, GAP: from */
	uint64_t to;
	uint32_t nrcpt, rcpt, flags /* enum envelope_flag */;
	uint16_t attempts, code;
	uint8_t enhanced[3];
	uint8_t client_ip[16];
	struct span sender, helo, remote, text;
	struct span addrs;  /* RCPTS, REFUSED, GIVEN: each with a 16-bit length before it; ACCEPTED: the Message-ID in the same way, if there is one */
};

/* Writes a row; texts that are too long are cut. Never longer than LEDGER_ROW_MAX as long as addrs is at most half of that. */
void ledger_row_write(const struct ledger_row *row, struct out *o);
/* Reads the first row of s off it. False at the end, or when it is none. */
bool ledger_row_read(struct span *s, struct ledger_row *ret);
/* Adds an address to addrs, or takes the next one off. */
void ledger_addr_write(struct out *o, struct span addr);
bool ledger_addr_read(struct span *addrs, struct span *ret);

/* The length of the frame that is valid at the start of p (n bytes), its header in *ret; 0: none is. */
uint32_t ledger_frame_valid(const char *p, size_t n, uint32_t partition, struct ledger_frame *ret);
void ledger_frame_seal(char *p, struct ledger_frame *f, uint32_t partition);
/* "ledger-20261121" of a day since the epoch; and back, or false. */
enum { LEDGER_NAME = 16 };
void ledger_name(uint32_t day, char ret[LEDGER_NAME]);
bool ledger_name_day(const char *name, uint32_t *ret_day);
#define LEDGER_DAY_NS (86400 * 1000000000ull)

/* ---- reading (ledger_read.c) ---- */

struct ledger_reader;

struct ledger_sink {
	void *ctx;
	void (*row)(void *ctx, const struct ledger_row *row, bool repaired);
	/* Something is not as it was written; text says what and where. */
	void (*damage)(void *ctx, const char *text);
};

/* The files of a partition's directory that can have rows about messages that arrived at since_ns or later. ST_NOT_FOUND: there is no ledger. */
enum status ledger_read_new(const char *dir, uint32_t partition, uint64_t since_ns, struct ledger_reader **ret);
/* What was not read yet, up to now: called again it goes on. patient: bytes of the newest file that are no frame may be a write under way, and it goes on there the
 * next time. */
enum status ledger_read(struct ledger_reader *r, bool patient, const struct ledger_sink *sink);
/* Of the last frame. */
uint64_t ledger_read_number(const struct ledger_reader *r);
/* Bytes behind the last good frame that are none: a write under way, or damage. */
uint64_t ledger_read_tail(const struct ledger_reader *r);
/* Whether the rows go back to since_ns: else text says from when on. */
bool ledger_read_whole(const struct ledger_reader *r, char *text, size_t cap);
void ledger_read_free(struct ledger_reader *r);

#endif
