#include "spool/base/ring.h"

#include <string.h>

size_t ring_bytes(uint32_t entries, uint32_t entry_size)
{
	return sizeof(struct ring_shared) + (size_t)entries * entry_size;
}

void ring_init(struct ring *r, void *shared, uint32_t entries, uint32_t entry_size)
{
	CHECK(entries && (entries & (entries - 1)) == 0);
	*r = (struct ring){ .shared = shared, .entry_size = entry_size, .entries = entries };
}

static unsigned char *entry_at(const struct ring *r, uint64_t pos)
{
	return r->shared->entries + (size_t)(pos & (r->entries - 1)) * r->entry_size;
}

enum status ring_push(struct ring *r, const void *entry, bool *ret_wake)
{
	uint64_t tail = atomic_load_explicit(&r->shared->tail, memory_order_acquire);

	*ret_wake = false;
	/* a tail beyond our head, or too far behind, is a peer's lie: no room, never a write outside */
	if (r->pos - tail >= r->entries)
		return ST_FULL;
	memcpy(entry_at(r, r->pos), entry, r->entry_size);
	r->pos++;
	atomic_store_explicit(&r->shared->head, r->pos, memory_order_release);
	atomic_thread_fence(memory_order_seq_cst);
	if (atomic_load_explicit(&r->shared->sleeping, memory_order_relaxed))
		*ret_wake = atomic_exchange_explicit(&r->shared->sleeping, 0, memory_order_relaxed) != 0;
	return ST_OK;
}

enum status ring_pop(struct ring *r, void *ret_entry)
{
	uint64_t head = atomic_load_explicit(&r->shared->head, memory_order_acquire);

	if (head == r->pos)
		return ST_AGAIN;
	if (head - r->pos > r->entries)
		return trail(ST_CORRUPT, "the ring's producer is at an impossible position");
	memcpy(ret_entry, entry_at(r, r->pos), r->entry_size);
	r->pos++;
	atomic_store_explicit(&r->shared->tail, r->pos, memory_order_release);
	return ST_OK;
}

bool ring_sleep(struct ring *r)
{
	atomic_store_explicit(&r->shared->sleeping, 1, memory_order_relaxed);
	atomic_thread_fence(memory_order_seq_cst);
	if (atomic_load_explicit(&r->shared->head, memory_order_relaxed) == r->pos)
		return true;
	ring_awake(r);
	return false;
}

void ring_awake(struct ring *r)
{
	atomic_store_explicit(&r->shared->sleeping, 0, memory_order_relaxed);
}
