/* A single-producer single-consumer ring of fixed-size entries in shared memory.
 *
 * Producer and consumer may be different processes that do not trust each other: each keeps its own
 * copy of its position and of the geometry in struct ring (private memory), and every value read from the shared part is
 * range-checked; a peer that breaks the protocol can make ring_pop fail, never make it read outside.
 * The consumer says that it goes to sleep (ring_sleep), the producer then knows that it must wake it
 * (ring_push's wake): telling one that is awake costs nothing.
 *
 * Owner: the mapping belongs to the caller. Thread: one producer, one consumer. */
#ifndef WEIR_SPOOL_BASE_RING_H
#define WEIR_SPOOL_BASE_RING_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "spool/base/status.h"

/* The shared part. Positions count entries since the start and never wrap in practice. */
struct ring_shared {
	_Alignas(64) _Atomic uint64_t head;     /* written by the producer */
	_Alignas(64) _Atomic uint64_t tail;     /* written by the consumer */
	_Alignas(64) _Atomic uint32_t sleeping; /* set by the consumer, cleared by who wakes it */
	_Alignas(64) unsigned char entries[];
};

/* One side's private view. */
struct ring {
	struct ring_shared *shared;
	uint64_t pos;      /* own position */
	uint32_t entry_size;
	uint32_t entries;  /* a power of two */
};

/* Bytes of shared memory that a ring of this shape needs. */
size_t ring_bytes(uint32_t entries, uint32_t entry_size);
/* Attaches one side to shared memory that is zeroed (both sides at position 0). entries must be a power of two. */
void ring_init(struct ring *r, void *shared, uint32_t entries, uint32_t entry_size);
/* Copies one entry in. ST_FULL when there is no room. *ret_wake says that the consumer sleeps and must
 * be woken by the caller. */
enum status ring_push(struct ring *r, const void *entry, bool *ret_wake);
/* Copies one entry out. ST_AGAIN when empty; ST_CORRUPT when the producer's position is impossible. */
enum status ring_pop(struct ring *r, void *ret_entry);
/* Consumer: declares sleep. True when it may sleep; false when an entry came meanwhile. */
bool ring_sleep(struct ring *r);
/* Consumer: awake again. */
void ring_awake(struct ring *r);

#endif
