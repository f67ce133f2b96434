/* The map against an array that remembers: random keys, and deletion in the middle of an iteration. */
#include "tests/support/unit.h"

#include <stdlib.h>
#include "spool/base/map.h"

enum { MAPS = 4000, KEYS_MAX = 48 };

/* Gives every key once, whatever was deleted before: which keys are left is decided by `keep`. */
static void walk(struct map *m, uint64_t present, uint64_t keep)
{
	uint64_t given = 0;
	size_t pos = 0;
	struct span key;
	void *value;

	while (map_next(m, &pos, &key, &value)) {
		uintptr_t k = (uintptr_t)value - 1;

		assert_int_equal(key.n, 1 + k % 7);
		assert_int_equal(key.p[0], (char)k);
		assert_false(given & 1ull << k);
		given |= 1ull << k;
		if (!(keep & 1ull << k))
			assert_ptr_equal(map_del(m, key), value);
	}
	assert_int_equal(given, present);
	assert_false(map_next(m, &pos, &key, &value));
}

static struct span key_of(uintptr_t k, char buf[8])
{
	memset(buf, (int)k, 8);
	return span_of(buf, 1 + k % 7);
}

/* The seed is drawn once a process, but every map has other keys: the runs of neighbours lie elsewhere, many of them across the end. */
static void deletion_while_iterating_skips_nothing(void **state)
{
	srandom(11);
	for (int round = 0; round < MAPS; round++) {
		uint64_t present = ((uint64_t)random() << 32 | (uint64_t)random()) & ((1ull << KEYS_MAX) - 1);
		uint64_t keep = round % 3 == 0 ? 0 : (uint64_t)random() << 24 & (uint64_t)random();
		struct map *m;
		char buf[8];

		if (round % 2) /* twelve fill the smallest map to its limit */
			for (; __builtin_popcountll(present) > 12;)
				present &= present - 1;
		assert_ok(map_new(&m));
		for (uintptr_t k = 0; k < KEYS_MAX; k++)
			if (present & 1ull << k)
				assert_ok(map_set(m, key_of(k, buf), (void *)(k + 1)));
		walk(m, present, keep);
		assert_int_equal(map_len(m), __builtin_popcountll(present & keep));
		for (uintptr_t k = 0; k < KEYS_MAX; k++)
			assert_ptr_equal(map_get(m, key_of(k, buf)), present & keep & 1ull << k ? (void *)(k + 1) : NULL);
		walk(m, present & keep, UINT64_MAX);
		map_free(m);
	}
}

static void an_empty_map_ends_at_once(void **state)
{
	struct map *m;
	size_t pos = 0;
	struct span key;
	void *value;

	assert_ok(map_new(&m));
	assert_false(map_next(m, &pos, &key, &value));
	assert_ok(map_set(m, SPAN_NONE, m)); /* the empty key is a key */
	pos = 0;
	assert_true(map_next(m, &pos, &key, &value));
	assert_int_equal(key.n, 0);
	assert_ptr_equal(map_del(m, SPAN_NONE), m);
	assert_false(map_next(m, &pos, &key, &value));
	map_free(m);
}

/* Sets, replaces and deletes at random, against an array. */
static void agrees_with_an_array(void **state)
{
	static void *expect[5000];
	struct map *m;
	size_t len = 0;

	srandom(12);
	assert_ok(map_new(&m));
	for (int i = 0; i < 200000; i++) {
		uint32_t k = (uint32_t)random() % 5000;
		void *value = random() % 3 ? (void *)(uintptr_t)(i + 1) : NULL;
		struct span key = span_of(&k, sizeof(k));

		if (value) {
			assert_ok(map_set(m, key, value));
			len += !expect[k];
		} else {
			assert_ptr_equal(map_del(m, key), expect[k]);
			len -= expect[k] != NULL;
		}
		expect[k] = value;
	}
	assert_int_equal(map_len(m), len);
	for (uint32_t k = 0; k < 5000; k++)
		assert_ptr_equal(map_get(m, span_of(&k, sizeof(k))), expect[k]);
	map_free(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(deletion_while_iterating_skips_nothing), cmocka_unit_test(an_empty_map_ends_at_once),
		cmocka_unit_test(agrees_with_an_array) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
