/* Open addressing with linear probing over an array of entry pointers; deletion shifts back, so there are no tombstones. */
#include "spool/base/map.h"

#include <assert.h>
#include <stdlib.h>
#include <sys/random.h>
#include "spool/base/hash.h"

struct entry {
	uint64_t hash;
	void *value;
	uint32_t key_len;
	char key[];
};

static_assert(sizeof(size_t) == 8); /* map_next keeps two numbers in one */

struct map {
	struct entry **slot;
	size_t cap; /* a power of two */
	size_t len;
};

static uint64_t seed(void)
{
	static uint64_t s;

	while (!s)
		if (getrandom(&s, sizeof(s), 0) != sizeof(s))
			s = 0;
	return s;
}

enum status map_new(struct map **ret)
{
	struct map *m = calloc(1, sizeof(*m));

	if (!m)
		return ST_NOMEM;
	m->cap = 16;
	m->slot = calloc(m->cap, sizeof(*m->slot));
	if (!m->slot) {
		free(m);
		return ST_NOMEM;
	}
	*ret = m;
	return ST_OK;
}

void map_free(struct map *m)
{
	if (!m)
		return;
	for (size_t i = 0; i < m->cap; i++)
		free(m->slot[i]);
	free(m->slot);
	free(m);
}

size_t map_len(const struct map *m)
{
	return m->len;
}

/* The slot that has the key, or the empty one where it would go. */
static size_t find(const struct map *m, uint64_t hash, struct span key)
{
	size_t i = hash & (m->cap - 1);

	for (struct entry *e; (e = m->slot[i]); i = (i + 1) & (m->cap - 1))
		if (e->hash == hash && span_eq(span_of(e->key, e->key_len), key))
			break;
	return i;
}

static uint64_t hash_of(struct span key)
{
	return XXH3_64bits_withSeed(key.n ? key.p : "", key.n, seed());
}

void *map_get(const struct map *m, struct span key)
{
	struct entry *e = m->slot[find(m, hash_of(key), key)];

	return e ? e->value : NULL;
}

static bool grow(struct map *m)
{
	size_t cap = m->cap * 2;
	struct entry **slot = calloc(cap, sizeof(*slot));

	if (!slot)
		return false;
	for (size_t i = 0; i < m->cap; i++) {
		struct entry *e = m->slot[i];
		size_t k;

		if (!e)
			continue;
		for (k = e->hash & (cap - 1); slot[k]; k = (k + 1) & (cap - 1))
			;
		slot[k] = e;
	}
	free(m->slot);
	m->slot = slot;
	m->cap = cap;
	return true;
}

enum status map_set(struct map *m, struct span key, void *value)
{
	uint64_t hash = hash_of(key);
	size_t i = find(m, hash, key);
	struct entry *e = m->slot[i];

	if (e) {
		e->value = value;
		return ST_OK;
	}
	if (key.n > UINT32_MAX)
		return ST_TOO_BIG;
	if (m->len + 1 > m->cap / 4 * 3) {
		if (!grow(m))
			return ST_NOMEM;
		i = find(m, hash, key);
	}
	e = malloc(sizeof(*e) + key.n);
	if (!e)
		return ST_NOMEM;
	*e = (struct entry){ .hash = hash, .value = value, .key_len = (uint32_t)key.n };
	if (key.n)
		memcpy(e->key, key.p, key.n);
	m->slot[i] = e;
	m->len++;
	return ST_OK;
}

void *map_del(struct map *m, struct span key)
{
	size_t mask = m->cap - 1, hole = find(m, hash_of(key), key);
	struct entry *e = m->slot[hole];
	void *value;

	if (!e)
		return NULL;
	value = e->value;
	free(e);
	m->slot[hole] = NULL;
	m->len--;
	for (size_t i = (hole + 1) & mask; m->slot[i]; i = (i + 1) & mask) {
		size_t home = m->slot[i]->hash & mask;

		/* an entry moves back when its home is not between the hole and itself */
		if (((i - home) & mask) >= ((i - hole) & mask)) {
			m->slot[hole] = m->slot[i];
			m->slot[i] = NULL;
			hole = i;
		}
	}
	return value;
}

/* *pos is where the round began and how far it came. It begins below an empty slot and goes downwards, so that no run of neighbours spans its ends:
 * a deletion then moves only entries that were given already, and the empty slot stays empty. */
bool map_next(const struct map *m, size_t *pos, struct span *ret_key, void **ret_value)
{
	size_t mask = m->cap - 1, begin = *pos >> 32, step = *pos & UINT32_MAX;

	CHECK(m->cap <= UINT32_MAX / 2);
	if (!*pos) {
		while (m->slot[begin])
			begin++;
		begin += m->cap; /* never 0: *pos is 0 before the first call only */
	}
	while (step < mask) {
		struct entry *e = m->slot[(begin - ++step) & mask];

		if (e) {
			*pos = begin << 32 | step;
			*ret_key = span_of(e->key, e->key_len);
			*ret_value = e->value;
			return true;
		}
	}
	*pos = begin << 32 | mask;
	return false;
}
