/* What a scanner may still read is not reused, in the arena or in the log, also when its message was forgotten long ago. */
#include "tests/support/unit.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "spool/base/clock.h"
#include "spool/store/scan.h"
#include "spool/store/store.h"

enum { SEGMENT = 2 << 20, SEGMENTS = 8, SMALL = 3000, LARGE = 900 * 1000 };

static char dir[64];
static struct uring uring;
static struct arena *arena;
static struct store *store;

static void turn(void)
{
	struct store_event ev;

	store_commit(store);
	assert_ok(uring_wait(&uring, store_busy(store) ? 20 * NS_PER_MS : 0));
	while (store_event(store, &ev))
		;
}

static void until_idle(void)
{
	do
		turn();
	while (store_busy(store));
}

/* A durable message whose body is `fill` only. */
static struct store_msg *put(char fill, size_t len)
{
	struct env_rcpt rcpt = { .addr = SPAN("r@y.example") };
	struct envelope env = { .sender = SPAN("s@x.example"), .nrcpt = 1, .rcpt = &rcpt };
	char text[SMALL];
	struct store_msg *m;
	struct body *b;

	memset(text, fill, sizeof(text));
	for (int k = 0; k < 1000; k++) { /* 452, and the client comes again */
		turn();
		if (store_room(store, len) != ST_OK) {
			assert_ok(uring_wait(&uring, NS_PER_MS));
			continue;
		}
		assert_ok(body_new(store, 0, &b));
		for (size_t at = 0; at < len; at += sizeof(text)) {
			while (body_room(b, sizeof(text)) == ST_AGAIN)
				turn();
			assert_ok(body_append(b, span_of(text, sizeof(text))));
		}
		if (store_put(store, &env, b, false, NULL, &m) != ST_OK)
			continue; /* what is composed meanwhile, for the log itself, took the room */
		until_idle();
		return m;
	}
	fail_msg("no room came");
	return NULL;
}

static void forget(struct store_msg *m)
{
	store_rcpt(m, 0, RCPT_DROPPED, NULL, 0);
	store_forget(m);
}

/* Writes and forgets so much that every free segment, and every free extent, is used many times. */
static void churn(void)
{
	for (int i = 0; i < 3 * SEGMENTS * SEGMENT / LARGE; i++)
		forget(put('!', LARGE));
	until_idle();
}

/* Whether the pieces are as they were, read as a scanner reads them. */
static bool intact(const struct scan_piece *p, uint32_t n, char fill)
{
	static char buf[SEGMENT];
	char path[128];

	for (uint32_t i = 0; i < n; i++) {
		const char *at = buf;

		if (p[i].partition == SCAN_PIECE_ARENA) {
			at = arena_at(arena, p[i].off);
		} else {
			int fd;

			snprintf(path, sizeof(path), "%s/seg-%08x", dir, p[i].segment);
			fd = open(path, O_RDONLY | O_CLOEXEC);
			assert_int_equal(pread(fd, buf, p[i].len, (off_t)p[i].off), p[i].len);
			close(fd);
		}
		for (uint32_t k = 0; k < p[i].len; k++)
			if (at[k] != fill)
				return false;
	}
	return true;
}

static void leased(size_t len, bool in_log)
{
	struct store_msg *m = put('a', len);
	struct scan_piece copy[64];
	uint64_t off;
	uint32_t n;

	if (in_log)
		store_evict(m);
	assert_ok(store_scan_begin(m, &off, &n));
	assert_in_range(n, 1, 64);
	memcpy(copy, arena_at(arena, off), n * sizeof(copy[0]));
	assert_int_equal(copy[0].partition == SCAN_PIECE_ARENA, !in_log);
	forget(m);
	churn();
	assert_memory_equal(copy, arena_at(arena, off), n * sizeof(copy[0])); /* the list, too */
	assert_true(intact(copy, n, 'a'));
	store_scan_done(m);
	churn();
	assert_false(intact(copy, n, 'a')); /* and when the lease has ended, it is reused */
}

static void in_the_arena(void **state)
{
	leased(SMALL, false);
	leased(LARGE, false);
}

static void in_the_log(void **state)
{
	leased(SMALL, true);
	leased(LARGE, true);
}

static void one_lease_at_a_time(void **state)
{
	struct store_msg *m = put('a', SMALL);
	uint64_t off;
	uint32_t n;

	assert_ok(store_scan_begin(m, &off, &n));
	assert_int_equal(store_scan_begin(m, &off, &n), ST_AGAIN);
	assert_int_equal(store_park(m, 0, 0), ST_AGAIN);
	store_scan_done(m);
	store_scan_done(m); /* has no effect */
	assert_ok(store_scan_begin(m, &off, &n));
	store_scan_done(m);
	forget(m);
	until_idle();
}

/* Free is only what is too small for a list in one extent: a complete message has its scan list all the same. */
static void a_list_in_pieces(void **state)
{
	enum { ALL = (4 << 20) / EXTENT_MIN, MOST = 2 * SCAN_PAGE_PIECES + 10 };
	static struct extent taken[ALL];
	const struct scan_page *page = NULL;
	struct scan_piece copy[MOST];
	struct store_msg *m;
	uint64_t off;
	uint32_t n;

	for (int i = 0; i < ALL; i++)
		assert_ok(extent_alloc(arena, EXTENT_MIN, &taken[i]));
	for (int i = 0; i < ALL; i += 2)
		extent_release(arena, taken[i]);
	m = put('p', (MOST - 2) * EXTENT_MIN);
	assert_ok(store_scan_begin(m, &off, &n));
	assert_in_range(n, 2 * SCAN_PAGE_PIECES + 1, MOST);
	for (uint32_t i = 0; i < n; i++) {
		page = arena_at(arena, off);
		copy[i] = page->piece[i % SCAN_PAGE_PIECES];
		if (i % SCAN_PAGE_PIECES == SCAN_PAGE_PIECES - 1)
			off = page->next_off;
	}
	assert_int_equal(page->next_off, 0);
	assert_true(intact(copy, n, 'p'));
	store_scan_done(m);
	forget(m);
	until_idle();
	for (int i = 1; i < ALL; i += 2)
		extent_release(arena, taken[i]);
}

/* Nothing at all is free. */
static void a_list_when_bodies_have_it_all(void **state)
{
	static struct extent taken[(4 << 20) / EXTENT_MIN];
	struct store_msg *m = put('q', SMALL);
	uint32_t n, ntaken = 0;
	uint64_t off;

	while (extent_alloc(arena, EXTENT_MIN, &taken[ntaken]) == ST_OK)
		ntaken++;
	assert_ok(store_scan_begin(m, &off, &n));
	store_scan_done(m);
	forget(m);
	until_idle();
	while (ntaken)
		extent_release(arena, taken[--ntaken]);
}

static int begin(void **state)
{
	strcpy(dir, access("/dev/shm", W_OK) == 0 ? "/dev/shm/weir-lease-XXXXXX" : "/var/tmp/weir-lease-XXXXXX");
	if (!mkdtemp(dir) || uring_init(&uring, 256) != ST_OK || arena_new(4 << 20, &arena) != ST_OK)
		return -1;
	return store_open(&uring, arena, &(struct store_config){ .dir = dir, .segment_bytes = SEGMENT, .max_bytes = SEGMENTS * SEGMENT,
		.spill_bytes = 256 * 1024 }, &store) == ST_OK ? 0 : -1;
}

static int end(void **state)
{
	char cmd[128];

	store_close(store);
	assert_int_equal(arena_used(arena), 0); /* nothing was left behind */
	arena_free(arena);
	uring_done(&uring);
	snprintf(cmd, sizeof(cmd), "rm -rf %s", dir);
	return system(cmd);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(in_the_arena), cmocka_unit_test(in_the_log), cmocka_unit_test(one_lease_at_a_time),
		cmocka_unit_test(a_list_in_pieces), cmocka_unit_test(a_list_when_bodies_have_it_all) };

	return cmocka_run_group_tests(tests, begin, end);
}
