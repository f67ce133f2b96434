/* What is known of each client from what it does (A3): one file a worker, <run>/evidence-N, mapped. The worker writes, everybody else reads: weirctl shows it, weir-control keeps copies, so that it outlives the run
 * directory.
 *
 * A fixed number of rows, so that strangers cannot fill memory: the caller says which one has to go. Readers take a row as a whole, by its sequence number. It is evidence and no book-keeping: after a loss of power the
 * last minute may be missing.
 *
 * Owner: evidence_open's caller. Thread: one writer, any readers. Fails: ST_IO, ST_NOMEM; what cannot be read is no evidence. */
#ifndef WEIR_SPOOL_STORE_EVIDENCE_H
#define WEIR_SPOOL_STORE_EVIDENCE_H

#include <assert.h>
#include <stdatomic.h>
#include "spool/base/span.h"
#include "spool/base/status.h"
#include "spool/mail/rules.h"

enum { EVIDENCE_RULES = 64, EVIDENCE_LISTENERS = 64, EVIDENCE_HELO = 64, EVIDENCE_NAME = 48 };
static_assert((int)RULE_NRULE <= (int)EVIDENCE_RULES);

struct evidence {
	_Atomic uint64_t seq; /* odd while it is written */
	uint8_t ip[16];
	uint64_t first_s, last_s; /* since the epoch; first_s 0: the row is free */
	uint64_t sessions, tls_sessions;
	uint64_t messages, recipients, tls_messages;   /* accepted */
	uint64_t senders, senders_bad;                 /* asked about; not valid (A6) */
	char helo[EVIDENCE_HELO];                      /* the last one; ends with NUL */
	uint32_t hits[EVIDENCE_RULES];                 /* by enum rule: findings, whatever became of them */
};
static_assert(sizeof(struct evidence) == 96 + EVIDENCE_HELO + 4 * EVIDENCE_RULES);

/* What came over one listener (A4); name: its name, or address and port. */
struct evidence_listener {
	char name[EVIDENCE_NAME];
	_Atomic uint64_t sessions, messages, recipients, refused; /* refused: commands and messages, by rules */
};

struct evidence_file; /* as mapped */
struct evidence_table {
	struct evidence_file *file;
	struct evidence *row;
	uint32_t rows;
	size_t bytes;
};

/* Opens <run>/evidence-<n> for writing with so many rows: with what it had, else with what the copy in saved (a directory, or "") has; the newest rows first, sorted by last_s, newest first. */
enum status evidence_open(const char *run_dir, const char *saved, unsigned n, uint32_t rows, struct evidence_table *ret);
void evidence_close(struct evidence_table *t);
/* Between these the row may be changed. */
void evidence_begin(struct evidence *e);
void evidence_end(struct evidence *e);
/* The counts of a listener, made when missing; NULL: there are too many. */
struct evidence_listener *evidence_listener(struct evidence_table *t, const char *name);

/* Maps a worker's file to read. ST_NOT_FOUND: there is none. */
enum status evidence_map(const char *path, struct evidence_table *ret);
/* A copy of row i, rules as this program numbers them. False: it is free. */
bool evidence_read(const struct evidence_table *t, uint32_t i, struct evidence *ret);
/* Listener i; false: there are no more. */
bool evidence_read_listener(const struct evidence_table *t, uint32_t i, struct evidence_listener *ret);
/* Adds what one worker knows of a client to what others do. */
void evidence_add(struct evidence *sum, const struct evidence *e);
/* Writes a copy of one file to another, which is replaced as a whole. */
enum status evidence_save(const char *from, const char *to);

#endif
