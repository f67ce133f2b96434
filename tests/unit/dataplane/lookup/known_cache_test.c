/* B2: a worker's own memory of addresses is bounded, and forgets what it is told to. */
#include "tests/support/unit.h"

#include <stdio.h>
#include "dataplane/lookup/known_cache.h"

static struct known_cache *cache(uint32_t max)
{
	struct known_cache *c;

	assert_ok(known_cache_new(max, &c));
	return c;
}

static enum known_kind get(struct known_cache *c, const char *key)
{
	struct known k;
	uint64_t at;

	known_cache_get(c, span_str(key), &k, &at);
	return at ? k.kind : KNOWN_NKIND;
}

static void put(struct known_cache *c, const char *key, enum known_kind kind)
{
	struct known k = { .kind = kind, .at_ms = 1 };

	if (kind == KNOWN_NO)
		reply_set(&k.reply, 550, "5.1.1", "no");
	known_cache_put(c, span_str(key), &k, 7);
}

static void remembers(void **state)
{
	struct known_cache *c = cache(100);
	struct known k;
	uint64_t at;

	assert_int_equal(get(c, "a@b"), KNOWN_NKIND);
	put(c, "a@b", KNOWN_YES);
	put(c, "a@b", KNOWN_NO);
	known_cache_get(c, SPAN("a@b"), &k, &at);
	assert_int_equal(at, 7);
	assert_int_equal(k.kind, KNOWN_NO);
	assert_span(reply_text(&k.reply), "no");
	assert_int_equal(known_cache_len(c), 1);
	known_cache_put(c, SPAN("b"), &(struct known){ 0 }, 9);
	assert_int_equal(get(c, "b"), KNOWN_NOTHING);
	known_cache_free(c);
}

static void the_least_used_go(void **state)
{
	struct known_cache *c = cache(100);
	char key[32];

	put(c, "keep@b", KNOWN_YES);
	for (int i = 0; i < 1000; i++) {
		snprintf(key, sizeof(key), "%d@b", i);
		put(c, key, KNOWN_YES);
		assert_int_equal(get(c, "keep@b"), KNOWN_YES);
	}
	assert_int_equal(known_cache_len(c), 100);
	assert_int_equal(get(c, "5@b"), KNOWN_NKIND);
	assert_int_equal(get(c, "999@b"), KNOWN_YES);
	known_cache_free(c);
}

static void forgets(void **state)
{
	struct known_cache *c = cache(100);

	put(c, "a@b", KNOWN_YES);
	put(c, "c@b", KNOWN_YES);
	put(c, "b", KNOWN_YES);
	put(c, "a@sub.b", KNOWN_YES);
	put(c, "a@bb", KNOWN_YES);
	known_cache_forget(c, SPAN("a@b"));
	assert_int_equal(get(c, "a@b"), KNOWN_NKIND);
	assert_int_equal(get(c, "c@b"), KNOWN_YES);
	known_cache_forget_domain(c, SPAN("b"));
	assert_int_equal(get(c, "c@b"), KNOWN_NKIND);
	assert_int_equal(get(c, "b"), KNOWN_NKIND);
	assert_int_equal(get(c, "a@sub.b"), KNOWN_YES);
	assert_int_equal(get(c, "a@bb"), KNOWN_YES);
	known_cache_free(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(remembers),
		cmocka_unit_test(the_least_used_go),
		cmocka_unit_test(forgets),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
