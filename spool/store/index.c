#include "spool/store/index.h"

#include <stdlib.h>
#include <string.h>

enum { SLAB = 4096, TABLE_BITS = 10, TABLE_MIN = 1 << TABLE_BITS, RUN = 8 };

struct index {
	struct entry **slab;    /* of SLAB entries each: they never move */
	uint32_t nslabs, slabs_cap;
	uint32_t nslots, len;
	uint32_t free;          /* the first free slot that was used before, or SLOT_NONE; chained by tag */
	uint32_t *table;        /* open addressing by id: slot + 1, 0 empty */
	uint32_t mask;
	unsigned shift;         /* 64 less the bits of mask */
	uint32_t *heap;         /* slots, the one due first at 1 */
	uint32_t nheap, heap_cap;
};

enum status index_new(struct index **ret)
{
	struct index *x = calloc(1, sizeof(*x));

	if (!x)
		return ST_NOMEM;
	x->free = SLOT_NONE;
	x->mask = TABLE_MIN - 1;
	x->shift = 64 - TABLE_BITS;
	x->table = calloc(TABLE_MIN, sizeof(*x->table));
	if (!x->table) {
		free(x);
		return ST_NOMEM;
	}
	*ret = x;
	return ST_OK;
}

struct entry *index_at(const struct index *x, uint32_t slot)
{
	return &x->slab[slot / SLAB][slot % SLAB];
}

uint32_t index_slots(const struct index *x)
{
	return x->nslots;
}

uint32_t index_len(const struct index *x)
{
	return x->len;
}

void index_free(struct index *x)
{
	if (!x)
		return;
	for (uint32_t i = 0; i < x->nslots; i++) {
		deltas_free(index_at(x, i));
		free(index_at(x, i)->uses);
	}
	for (uint32_t i = 0; i < x->nslabs; i++)
		free(x->slab[i]);
	free(x->slab);
	free(x->table);
	free(x->heap);
	free(x);
}

/* ---- by id ---- */

/* Ids are our own numbers, not chosen by strangers: mixing is enough. RUN numbers that follow each other stay together, as they come together in recovery and
 * when they are new: one line of cache for all of them. The upper bits of the product spread the runs evenly. */
static uint32_t home(const struct index *x, uint64_t id)
{
	return ((uint32_t)(id / RUN * 0x9e3779b97f4a7c15ull >> x->shift) & ~(uint32_t)(RUN - 1)) | (uint32_t)(id % RUN);
}

static uint32_t place(const struct index *x, uint64_t id)
{
	uint32_t i = home(x, id);

	while (x->table[i] && index_at(x, x->table[i] - 1)->id != id)
		i = (i + 1) & x->mask;
	return i;
}

uint32_t index_find(const struct index *x, uint64_t id)
{
	uint32_t at = x->table[place(x, id)];

	return at ? at - 1 : SLOT_NONE;
}

static bool table_resize(struct index *x, unsigned bits)
{
	uint32_t *old = x->table, n = x->mask + 1;
	uint32_t *bigger = calloc((size_t)1 << bits, sizeof(*bigger));

	if (!bigger)
		return false;
	x->table = bigger;
	x->mask = (uint32_t)((1ull << bits) - 1);
	x->shift = 64 - bits;
	for (uint32_t i = 0; i < n; i++)
		if (old[i])
			x->table[place(x, index_at(x, old[i] - 1)->id)] = old[i];
	free(old);
	return true;
}

enum status index_expect(struct index *x, uint64_t n)
{
	unsigned bits = 64 - x->shift;

	while (bits < 31 && n > (1ull << bits) / 4 * 3)
		bits++;
	return bits == 64 - x->shift || table_resize(x, bits) ? ST_OK : ST_NOMEM;
}

static void table_del(struct index *x, uint64_t id)
{
	uint32_t hole = place(x, id);

	x->table[hole] = 0;
	for (uint32_t i = (hole + 1) & x->mask; x->table[i]; i = (i + 1) & x->mask) {
		uint32_t h = home(x, index_at(x, x->table[i] - 1)->id);

		/* moves back when its home is not between the hole and itself */
		if (((i - h) & x->mask) >= ((i - hole) & x->mask)) {
			x->table[hole] = x->table[i];
			x->table[i] = 0;
			hole = i;
		}
	}
}

/* ---- slots ---- */

static bool slot_new(struct index *x, uint32_t *ret)
{
	if (x->free != SLOT_NONE) {
		*ret = x->free;
		x->free = index_at(x, x->free)->tag;
		return true;
	}
	if (x->nslots == x->nslabs * SLAB) {
		struct entry **slab = x->slab;

		if (x->nslabs == x->slabs_cap) {
			uint32_t cap = x->slabs_cap ? x->slabs_cap * 2 : 16;

			slab = realloc(x->slab, cap * sizeof(struct entry *));
			if (!slab)
				return false;
			x->slab = slab;
			x->slabs_cap = cap;
		}
		slab[x->nslabs] = calloc(SLAB, sizeof(struct entry));
		if (!slab[x->nslabs])
			return false;
		x->nslabs++;
	}
	*ret = x->nslots++;
	return true;
}

enum status index_add(struct index *x, uint64_t id, uint32_t *ret_slot)
{
	uint32_t slot;

	if (x->table[place(x, id)])
		return ST_EXISTS;
	if ((x->len + 1 > (x->mask + 1) / 4 * 3 && !table_resize(x, 65 - x->shift)) || !slot_new(x, &slot))
		return ST_NOMEM;
	*index_at(x, slot) = (struct entry){ .id = id, .due_ns = DUE_NEVER, .flags = ENTRY_USED };
	x->table[place(x, id)] = slot + 1;
	x->len++;
	*ret_slot = slot;
	return ST_OK;
}

void index_del(struct index *x, uint32_t slot)
{
	struct entry *e = index_at(x, slot);

	index_due(x, slot, DUE_NEVER);
	table_del(x, e->id);
	deltas_free(e);
	free(e->uses);
	*e = (struct entry){ .tag = x->free };
	x->free = slot;
	x->len--;
}

/* ---- when due ---- */

static void heap_put(struct index *x, uint32_t at, uint32_t slot)
{
	x->heap[at] = slot;
	index_at(x, slot)->heap = at;
}

static uint64_t due_at(const struct index *x, uint32_t at)
{
	return index_at(x, x->heap[at])->due_ns;
}

static void heap_up(struct index *x, uint32_t at)
{
	uint32_t slot = x->heap[at];
	uint64_t due = due_at(x, at);

	for (; at > 1 && due < due_at(x, at / 2); at /= 2)
		heap_put(x, at, x->heap[at / 2]);
	heap_put(x, at, slot);
}

static void heap_down(struct index *x, uint32_t at)
{
	uint32_t slot = x->heap[at], child;
	uint64_t due = due_at(x, at);

	while ((child = at * 2) <= x->nheap) {
		if (child < x->nheap && due_at(x, child + 1) < due_at(x, child))
			child++;
		if (due <= due_at(x, child))
			break;
		heap_put(x, at, x->heap[child]);
		at = child;
	}
	heap_put(x, at, slot);
}

static void heap_remove(struct index *x, uint32_t at)
{
	uint32_t last = x->heap[x->nheap--];

	index_at(x, x->heap[at])->heap = 0;
	if (at > x->nheap)
		return;
	heap_put(x, at, last);
	heap_up(x, at);
	heap_down(x, index_at(x, last)->heap);
}

static bool heap_room(struct index *x)
{
	uint32_t cap = x->heap_cap ? x->heap_cap * 2 : 1024, *bigger;

	if (x->nheap + 1 < x->heap_cap)
		return true;
	bigger = realloc(x->heap, cap * sizeof(*bigger));
	if (!bigger)
		return false;
	x->heap = bigger;
	x->heap_cap = cap;
	return true;
}

void index_due(struct index *x, uint32_t slot, uint64_t due_ns)
{
	struct entry *e = index_at(x, slot);

	e->due_ns = due_ns;
	if (due_ns == DUE_NEVER) {
		if (e->heap)
			heap_remove(x, e->heap);
		return;
	}
	if (!e->heap) {
		CHECK(heap_room(x)); /* four bytes: without them nothing goes on */
		heap_put(x, ++x->nheap, slot);
	}
	heap_up(x, e->heap);
	heap_down(x, e->heap);
}

uint32_t index_first_due(const struct index *x)
{
	return x->nheap ? x->heap[1] : SLOT_NONE;
}

/* ---- deltas ---- */

/* r makes an earlier record d pointless. */
static bool supersedes(const struct entry *e, const struct record_header *r, const struct record_header *d)
{
	return r->type == d->type && (r->type == REC_STATE || e->nrcpt == 1);
}

enum status delta_add(struct entry *e, const struct record_header *r)
{
	struct delta *d = malloc(offsetof(struct delta, h) + r->bytes), *prev = e->deltas;

	if (!d)
		return ST_NOMEM;
	memcpy(&d->h, r, r->bytes);
	for (unsigned k = 0; prev && k < 3; k++) { /* of one recipient there are two at the most */
		struct delta *at = prev->next;

		if (supersedes(e, r, &at->h)) {
			prev->next = at->next;
			if (e->deltas == at)
				e->deltas = at == prev ? NULL : prev;
			free(at);
			break;
		}
		prev = at;
		if (prev == e->deltas)
			break;
	}
	d->next = e->deltas ? e->deltas->next : d;
	if (e->deltas)
		e->deltas->next = d;
	e->deltas = d;
	return ST_OK;
}

void deltas_free(struct entry *e)
{
	struct delta *d = e->deltas ? e->deltas->next : NULL, *next;

	if (e->deltas)
		e->deltas->next = NULL;
	for (; d; d = next) {
		next = d->next;
		free(d);
	}
	e->deltas = NULL;
}

size_t deltas_bytes(const struct entry *e)
{
	const struct delta *d = e->deltas;
	size_t n = 0;

	if (!d)
		return 0;
	do {
		d = d->next;
		n += d->h.bytes;
	} while (d != e->deltas);
	return n;
}
