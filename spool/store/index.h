/* The index of a partition: about a hundred bytes for every message in the spool, whether its content and envelope are in memory or not.
 *
 * A message is awake (entry.msg is set) while somebody works on it, else parked: its envelope is in the log alone, and what happened since its newest
 * message record hangs here as the records that were written (deltas). */
#ifndef WEIR_SPOOL_STORE_INDEX_H
#define WEIR_SPOOL_STORE_INDEX_H

#include <stdbool.h>
#include <stddef.h>
#include "spool/base/status.h"
#include "spool/store/format.h"

struct msg;

/* A record that is newer than its message's own, as it is in the log. A ring: the entry has the last one, which has the first. */
struct delta {
	struct delta *next;
	struct record_header h; /* then the rest of the record */
};

/* How much of which segment the body of a parked message uses. */
struct piece_use {
	uint32_t segment, len;
};
struct piece_uses {
	uint32_t n;
	struct piece_use use[];
};

enum entry_flag {
	ENTRY_USED = 1,
	ENTRY_IN_LOG = 2,   /* its record is durable and counted in its segment */
	ENTRY_MOVING = 4,   /* parked: a copy is on its way to the disk that has all deltas in it */
	ENTRY_WAKING = 8,   /* its record is being read */
	ENTRY_DAMAGED = 16, /* its record cannot be read any more */
	ENTRY_MOVED = 32,   /* its record has recipient states */
	ENTRY_COPYING = 64, /* somebody is copying it */
};

struct entry {
	uint64_t id;
	uint64_t due_ns;        /* parked: monotonic; DUE_NEVER: waits for somebody to wake it */
	struct msg *msg;
	struct delta *deltas;
	struct piece_uses *uses; /* parked, body in pieces */
	uint64_t body_len;
	uint32_t segment, off;  /* of its newest message record */
	uint32_t head;          /* bytes of that record, less an inline body, which follows them */
	uint32_t hash;          /* XXH3 of the head, cut to 32 bits */
	uint32_t raw_start;     /* where the raw areas of its batch begin in the segment */
	uint32_t nrcpt, open;
	uint32_t tag;           /* the worker's: what it is parked for */
	uint32_t heap;          /* its place among the due ones, from 1; 0: not there */
	uint8_t state;          /* enum msg_state */
	uint8_t flags;          /* enum entry_flag */
};
static_assert(sizeof(struct entry) <= 96);

#define DUE_NEVER UINT64_MAX
enum { SLOT_NONE = UINT32_MAX };

struct index;

enum status index_new(struct index **ret);
void index_free(struct index *x); /* with all deltas; messages that are awake are the caller's to free before */
/* There will be n messages: makes room for their ids at once. ST_NOMEM. */
enum status index_expect(struct index *x, uint64_t n);
/* ST_NOMEM; ST_EXISTS: the id is there already. */
enum status index_add(struct index *x, uint64_t id, uint32_t *ret_slot);
void index_del(struct index *x, uint32_t slot);
/* SLOT_NONE when there is none. */
uint32_t index_find(const struct index *x, uint64_t id);
struct entry *index_at(const struct index *x, uint32_t slot);
/* Slots are from 0 to index_slots() - 1; those without ENTRY_USED are free. */
uint32_t index_slots(const struct index *x);
uint32_t index_len(const struct index *x);
/* Sets when a parked message is due. */
void index_due(struct index *x, uint32_t slot, uint64_t due_ns);
/* The one that is due first, or SLOT_NONE. */
uint32_t index_first_due(const struct index *x);

/* ---- deltas ---- */

/* Keeps a copy of a record; the earlier outcome of a message's only recipient, or an earlier state, is replaced. ST_NOMEM. */
enum status delta_add(struct entry *e, const struct record_header *r);
void deltas_free(struct entry *e);
size_t deltas_bytes(const struct entry *e);

#endif
