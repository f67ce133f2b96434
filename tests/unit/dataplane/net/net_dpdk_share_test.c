/* Frames between workers: each gets what is its own, once, and one that was away begins anew. */
#include "tests/support/unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "dataplane/net/net_dpdk_share.h"

enum { WORKERS = 3 };

static char dir[] = "/tmp/weir-share-XXXXXX";

static int begin(void **state)
{
	return mkdtemp(dir) ? 0 : -1;
}

static int end(void **state)
{
	char path[64];

	snprintf(path, sizeof(path), "%s/frames", dir);
	unlink(path);
	return rmdir(dir);
}

static void open_all(struct share *s[WORKERS], uint32_t mtu)
{
	for (uint32_t w = 0; w < WORKERS; w++)
		assert_ok(share_open(dir, w, WORKERS, mtu, &s[w]));
}

static bool next_is(struct share *s, const char *text)
{
	size_t n = 0;
	const uint8_t *p = share_next(s, &n);

	return text ? p && n == strlen(text) && memcmp(p, text, n) == 0 : !p;
}

static void frames_go_to_whom_they_are_given(void **state)
{
	struct share *s[WORKERS];
	uint64_t given, lost;

	open_all(s, 1500);
	share_give(s[0], 1, "a", 1);
	share_give(s[0], 0, "me", 2); /* nobody hands himself anything */
	share_give_all(s[2], "all", 3);
	assert_true(next_is(s[0], "all") && next_is(s[0], NULL));
	assert_true(next_is(s[1], "a"));
	assert_true(next_is(s[1], "all") && next_is(s[1], NULL));
	assert_true(next_is(s[2], NULL));
	share_stats(s[2], &given, &lost);
	assert_int_equal(given, 2);
	assert_int_equal(lost, 0);
	for (uint32_t w = 0; w < WORKERS; w++)
		share_close(s[w]);
}

static void a_port_has_one_owner(void **state)
{
	struct share *s[WORKERS];

	open_all(s, 1500);
	for (uint16_t port = 1024; port < 1100; port++) {
		unsigned owners = 0;

		for (uint32_t w = 0; w < WORKERS; w++)
			owners += share_is_own(s[w], port);
		assert_int_equal(owners, 1);
		assert_true(share_is_own(s[share_owner(s[0], port)], port));
		assert_true(share_is_own(NULL, port));
	}
	for (uint32_t w = 0; w < WORKERS; w++)
		share_close(s[w]);
}

static void a_full_ring_loses_and_who_comes_back_begins_anew(void **state)
{
	static const uint8_t large[1600];
	struct share *s[WORKERS];
	uint64_t given, lost;

	open_all(s, 1500);
	for (int i = 0; i < SHARE_FRAMES + 10; i++)
		share_give(s[0], 1, "x", 1);
	share_give(s[0], 1, large, sizeof(large));
	share_stats(s[0], &given, &lost);
	assert_int_equal(given, SHARE_FRAMES);
	assert_int_equal(lost, 11);
	share_close(s[1]);
	assert_ok(share_open(dir, 1, WORKERS, 1500, &s[1]));
	assert_true(next_is(s[1], NULL));
	share_give(s[0], 1, "new", 3);
	assert_true(next_is(s[1], "new"));
	/* the producer comes back, too */
	share_close(s[0]);
	assert_ok(share_open(dir, 0, WORKERS, 1500, &s[0]));
	share_give(s[0], 1, "again", 5);
	assert_true(next_is(s[1], "again") && next_is(s[1], NULL));
	for (uint32_t w = 0; w < WORKERS; w++)
		share_close(s[w]);
	open_all(s, 9000); /* another shape: made anew */
	share_give(s[0], 1, large, sizeof(large));
	assert_non_null(share_next(s[1], &(size_t){ 0 }));
	for (uint32_t w = 0; w < WORKERS; w++)
		share_close(s[w]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(frames_go_to_whom_they_are_given),
		cmocka_unit_test(a_port_has_one_owner),
		cmocka_unit_test(a_full_ring_loses_and_who_comes_back_begins_anew),
	};

	return cmocka_run_group_tests(tests, begin, end);
}
