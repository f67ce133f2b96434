/* The spool on a real file system: what was told durable is there after any restart, and nothing else is. */
#include "tests/support/unit.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>
#include "spool/base/clock.h"
#include "spool/base/counters.h"
#include "spool/store/check.h"
#include "spool/store/store.h"

enum { SEGMENT = 4 << 20 };

static char dir[64];
static struct uring uring;
static struct arena *arena;
static struct store *store;

static enum status open_with(uint64_t max)
{
	return store_open(&uring, arena, &(struct store_config){ .dir = dir, .segment_bytes = SEGMENT, .max_bytes = max, .spill_bytes = 256 * 1024,
		.direct = true }, &store);
}

static int begin(void **state)
{
	strcpy(dir, "/var/tmp/weir-store-XXXXXX");
	if (!mkdtemp(dir) || uring_init(&uring, 256) != ST_OK || arena_new(16 << 20, &arena) != ST_OK)
		return -1;
	return open_with(8 * SEGMENT) == ST_OK ? 0 : -1;
}

static int end(void **state)
{
	char cmd[128];

	if (store)
		store_close(store);
	store = NULL;
	arena_free(arena);
	uring_done(&uring);
	snprintf(cmd, sizeof(cmd), "rm -rf %s", dir);
	return system(cmd);
}

static void reopen(void)
{
	store_close(store);
	assert_ok(open_with(8 * SEGMENT));
}

static void turn(void)
{
	store_commit(store);
	assert_ok(uring_wait(&uring, store_busy(store) ? 20 * NS_PER_MS : 0));
}

static unsigned drain(enum store_event_type type, struct store_msg **ret)
{
	struct store_event ev;
	unsigned n = 0;

	while (store_event(store, &ev))
		if (ev.type == type) {
			n++;
			if (ret)
				*ret = ev.msg;
		}
	return n;
}

static char fill_byte(uint64_t seed, uint64_t i)
{
	return (char)('a' + (seed * 7 + i / 100) % 26);
}

enum { RCPTS_MAX = 130 };

static struct store_msg *put(uint64_t seed, size_t size, unsigned nrcpt)
{
	struct env_rcpt rcpt[RCPTS_MAX] = { 0 };
	struct envelope env = { .sender = SPAN("s@x.example"), .arrived_ns = seed, .nrcpt = nrcpt, .rcpt = rcpt };
	struct body *b;
	struct store_msg *m;
	char piece[5000];

	for (unsigned i = 0; i < nrcpt; i++)
		rcpt[i].addr = SPAN("r@y.example");
	assert_ok(body_new(store, 0, &b));
	for (size_t at = 0; at < size;) {
		size_t n = size - at < sizeof(piece) ? size - at : sizeof(piece);

		for (size_t i = 0; i < n; i++)
			piece[i] = fill_byte(seed, at + i);
		while (body_room(b, n) == ST_AGAIN)
			turn();
		assert_ok(body_append(b, span_of(piece, n)));
		at += n;
		turn();
	}
	if (store_put(store, &env, b, true, NULL, &m) != ST_OK)
		return NULL;
	return m;
}

static void until_idle(void)
{
	for (int i = 0; i < 500 && store_busy(store); i++)
		turn();
	assert_false(store_busy(store));
}

/* The message with this id, brought back from the log when it is parked. */
static struct store_msg *awake(uint64_t id)
{
	struct store_event ev;
	struct store_msg *m = store_find(store, id);

	if (m || store_wake(store, id) != ST_OK)
		return m;
	for (int i = 0; i < 200; i++) {
		assert_ok(uring_wait(&uring, 20 * NS_PER_MS));
		while (store_event(store, &ev))
			if (ev.type == STORE_WOKEN && ev.msg->id == id)
				return ev.msg;
	}
	return NULL;
}

static struct store_msg *next_awake(size_t *pos)
{
	struct store_row row;

	if (!store_next(store, pos, &row))
		return NULL;
	assert_false(row.damaged);
	return awake(row.id);
}

static unsigned count(void)
{
	uint32_t nawake;

	return store_count(store, &nawake);
}

static void check_body(struct store_msg *m, uint64_t seed, size_t size)
{
	struct body_reader *r;
	struct span piece;
	uint64_t at = 0;
	enum status st;

	assert_int_equal(m->body_len, size);
	assert_ok(store_read_open(m, 1, &r));
	while ((st = store_read(r, &piece)) != ST_NOT_FOUND) {
		if (st == ST_AGAIN) {
			assert_ok(uring_wait(&uring, 20 * NS_PER_MS));
			continue;
		}
		assert_ok(st);
		for (size_t i = 0; i < piece.n; i++)
			if (piece.p[i] != fill_byte(seed, at + i))
				fail();
		at += piece.n;
	}
	assert_int_equal(at, size);
	store_read_close(r);
}

static void bodies_of_all_sizes_survive_restart_and_eviction(void **state)
{
	static const size_t size[] = { 0, 1, 4096, 65536, 65537, 300000, 1500000 };
	struct store_msg *m;
	size_t pos = 0, n = 0;

	for (size_t i = 0; i < 7; i++)
		assert_non_null(put(i, size[i], 1));
	until_idle();
	assert_int_equal(drain(STORE_DURABLE, NULL), 7);
	while ((m = next_awake(&pos))) {
		check_body(m, m->env.arrived_ns, size[m->env.arrived_ns]);
		store_evict(m);
		check_body(m, m->env.arrived_ns, size[m->env.arrived_ns]);
	}
	reopen();
	for (pos = 0; (m = next_awake(&pos)); n++) {
		check_body(m, m->env.arrived_ns, size[m->env.arrived_ns]);
	}
	assert_int_equal(n, 7);
}

static void outcomes_holds_and_done_survive(void **state)
{
	struct store_msg *a = put(1, 100, 3), *b = put(2, 100, 1), *c = put(3, 100, 1);
	uint64_t ida = a->id, idb = b->id, idc = c->id;
	struct reply r;

	until_idle();
	drain(STORE_DURABLE, NULL);
	reply_set(&r, 450, NULL, "later");
	reply_derive(&r, REPLY_TO_RCPT);
	store_rcpt(a, 0, RCPT_DELIVERED, NULL, 0);
	a->rcpt[1].told = 1;
	store_rcpt(a, 1, RCPT_QUEUED, &r, 12345);
	store_set_state(b, MSG_HELD, SPAN("because"));
	store_rcpt(c, 0, RCPT_DELIVERED, NULL, 0);
	store_forget(c);
	until_idle();
	reopen();
	a = awake(ida);
	b = awake(idb);
	assert_non_null(a);
	assert_null(store_find(store, idc));
	assert_int_equal(a->open_rcpts, 2);
	assert_int_equal(a->rcpt[0].state, RCPT_DELIVERED);
	assert_int_equal(a->rcpt[1].attempts, 1);
	assert_true(a->rcpt[1].told);
	assert_int_equal(a->rcpt[1].last->enhanced[0], 0);
	assert_int_equal(a->rcpt[1].next_ns, 12345);
	assert_span(reply_text(a->rcpt[1].last), "later");
	assert_int_equal(b->state, MSG_HELD);
	assert_span(b->hold_reason, "because");
}

/* A checkpoint holds the effects of records that are replayed over it: the older of two outcomes comes after the newer one then. */
static void outcomes_around_a_checkpoint_are_counted_once(void **state)
{
	enum { MESSAGES = 160 };
	struct store_msg *before = NULL;
	struct store_row row;
	uint64_t last;
	size_t pos = 0;

	for (uint64_t i = 0; i < MESSAGES; i++) {
		struct store_msg *m = put(i, 60000, 2);

		assert_non_null(m);
		if (before) {
			store_rcpt(before, 0, RCPT_QUEUED, NULL, 12345);
			store_rcpt(before, 0, RCPT_DELIVERED, NULL, 0);
		}
		turn();
		until_idle();
		before = m;
	}
	assert_true(counter_get(C_SPOOL_CHECKPOINTS) > 0);
	last = before->id;
	reopen();
	assert_int_equal(count(), MESSAGES);
	while (store_next(store, &pos, &row))
		assert_int_equal(row.open, row.id == last ? 2 : 1);
}

/* Outcomes of many recipients of many messages in turns: what recovery remembers of each message is thrown out and made again in between. */
static void outcomes_in_turns_are_counted_once(void **state)
{
	enum { MESSAGES = 300, RCPTS = RCPTS_MAX, SETTLED = 70 };
	struct store_msg *m[MESSAGES];
	struct store_row row;
	size_t pos = 0, n = 0;

	for (uint64_t i = 0; i < MESSAGES; i++) {
		m[i] = put(i, 100, RCPTS);
		assert_non_null(m[i]);
		turn();
	}
	until_idle();
	drain(STORE_DURABLE, NULL);
	for (uint32_t k = 0; k < RCPTS; k += 10) {
		for (unsigned i = 0; i < MESSAGES; i++)
			for (uint32_t r = k; r < k + 10; r++) {
				store_rcpt(m[i], r, RCPT_QUEUED, NULL, 12345);
				if (r < SETTLED)
					store_rcpt(m[i], r, r % 2 ? RCPT_DELIVERED : RCPT_BOUNCED, NULL, 0);
			}
		until_idle();
	}
	reopen();
	for (; store_next(store, &pos, &row); n++)
		assert_int_equal(row.open, RCPTS - SETTLED);
	assert_int_equal(n, MESSAGES);
}

/* The first segment was being made when the power went. */
static void half_a_segment_does_not_set_the_size(void **state)
{
	char path[128];
	struct stat st;

	store_close(store);
	store = NULL;
	snprintf(path, sizeof(path), "rm -rf %s/*", dir);
	assert_int_equal(system(path), 0);
	snprintf(path, sizeof(path), "%s/seg-00000000", dir);
	assert_int_equal(close(open(path, O_WRONLY | O_CREAT, 0600)), 0);
	assert_int_equal(truncate(path, SEGMENT / 4), 0);
	assert_ok(open_with(8 * SEGMENT));
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_size, SEGMENT);
}

static void a_second_opener_is_refused(void **state)
{
	struct store *first = store;

	assert_int_equal(open_with(8 * SEGMENT), ST_EXISTS);
	store = first;
}

/* Cuts the last written segment at every block: what is recovered is a prefix, and what was durable before the cut is there. */
static void torn_tails_lose_only_what_was_not_durable(void **state)
{
	char path[128];
	int fd;

	for (uint64_t i = 0; i < 12; i++) {
		assert_non_null(put(i, 3000, 1));
		until_idle();
	}
	store_close(store);
	snprintf(path, sizeof(path), "%s/seg-%08x", dir, 0);
	for (int keep = 11; keep >= 0; keep -= 3) {
		struct stat st;
		char zero[4096] = { 0 };

		fd = open(path, O_RDWR);
		assert_true(fd >= 0 && fstat(fd, &st) == 0);
		/* behind the segment's first block a batch of the run, then one of one block a message: all from batch `keep` on is torn */
		for (off_t off = 4096 + (off_t)(1 + keep) * 4096; off < 4096 + 16 * 4096; off += 4096)
			assert_int_equal(pwrite(fd, zero, sizeof(zero), off), 4096);
		close(fd);
		assert_ok(open_with(8 * SEGMENT));
		assert_int_equal(count(), keep);
		store_close(store);
	}
	assert_ok(open_with(8 * SEGMENT));
}

/* The batch of a long message was torn in its raw areas: it is not there at the next start, nor at the one after that. */
static void a_torn_body_stays_away(void **state)
{
	char path[128], zero[4096] = { 0 };
	int fd;

	assert_non_null(put(1, 200000, 1));
	until_idle();
	store_close(store);
	snprintf(path, sizeof(path), "%s/seg-%08x", dir, 0);
	fd = open(path, O_RDWR);
	/* the segment's first block, a batch of the run, the batch's own block */
	assert_int_equal(pwrite(fd, zero, sizeof(zero), 3 * 4096 + 8192), 4096);
	close(fd);
	for (unsigned i = 0; i < 3; i++) {
		assert_ok(open_with(8 * SEGMENT));
		assert_int_equal(count(), i);
		assert_non_null(put(2, 100, 1));
		until_idle();
		store_close(store);
	}
	assert_ok(open_with(8 * SEGMENT));
}

static void a_flipped_bit_is_noticed(void **state)
{
	char path[128], b;
	struct check_sums sums;
	int fd;

	for (uint64_t i = 0; i < 6; i++) {
		assert_non_null(put(i, 3000, 1));
		until_idle();
	}
	store_close(store);
	snprintf(path, sizeof(path), "%s/seg-%08x", dir, 0);
	fd = open(path, O_RDWR);
	assert_int_equal(pread(fd, &b, 1, 4096 * 3 + 700), 1);
	b ^= 4;
	assert_int_equal(pwrite(fd, &b, 1, 4096 * 3 + 700), 1);
	close(fd);
	assert_ok(store_check(dir, NULL, NULL, &sums));
	assert_int_equal(sums.holes, 1);
	assert_int_equal(sums.messages, 5);
	assert_ok(open_with(8 * SEGMENT)); /* goes on, and keeps the five others */
	assert_int_equal(count(), 5);
}

/* One message in fifty stays; the ring turns many times; the stayers move forward and are whole. */
static void segments_are_recycled_and_stayers_move(void **state)
{
	uint64_t kept[64], nkept = 0;
	struct store_msg *m;
	struct check_sums sums;

	for (uint64_t i = 0; i < 1500; i++) {
		m = put(i, 40000, 1);
		for (int tries = 0; !m && tries < 200; tries++) { /* compaction, or a segment in the making */
			turn();
			assert_ok(uring_wait(&uring, 5 * NS_PER_MS));
			m = put(i, 40000, 1);
		}
		assert_non_null(m);
		until_idle();
		drain(STORE_DURABLE, NULL);
		if (i % 50 == 0) {
			kept[nkept++] = m->id;
			store_evict(m);
			continue;
		}
		store_rcpt(m, 0, RCPT_DELIVERED, NULL, 0);
		store_forget(m);
	}
	until_idle();
	assert_ok(store_check(dir, NULL, NULL, &sums));
	assert_true(sums.bytes <= 8 * (uint64_t)SEGMENT); /* 60 MB went through 32 MiB */
	reopen();
	for (uint64_t i = 0; i < nkept; i++) {
		m = awake(kept[i]);
		assert_non_null(m);
		check_body(m, i * 50, 40000);
	}
}

static void full_is_said_and_gets_free_again(void **state)
{
	struct store_msg *m[400];
	unsigned n = 0;

	while (n < 400 && (m[n] = put(n, 250000, 1))) {
		until_idle();
		drain(STORE_DURABLE, NULL);
		store_evict(m[n]);
		n++;
	}
	assert_in_range(n, 20, 399);
	assert_int_equal(store_room(store, 250000), ST_FULL);
	for (unsigned i = 0; i < n; i++) {
		store_rcpt(m[i], 0, RCPT_DELIVERED, NULL, 0);
		store_forget(m[i]);
	}
	until_idle();
	for (unsigned i = 0; i < 200 && store_room(store, 250000) != ST_OK; i++) { /* a checkpoint, as a rule */
		store_commit(store);
		assert_ok(uring_wait(&uring, 20 * NS_PER_MS));
	}
	assert_ok(store_room(store, 250000));
}

static void unknown_versions_are_refused(void **state)
{
	char path[128];
	struct seg_header h;
	int fd;

	assert_non_null(put(1, 100, 1));
	until_idle();
	store_close(store);
	store = NULL;
	snprintf(path, sizeof(path), "%s/seg-%08x", dir, 0);
	fd = open(path, O_RDWR);
	assert_int_equal(pread(fd, &h, sizeof(h), 0), sizeof(h));
	h.version = 99;
	h.checksum = XXH3_64bits(&h, offsetof(struct seg_header, checksum));
	assert_int_equal(pwrite(fd, &h, sizeof(h), 0), sizeof(h));
	close(fd);
	assert_int_equal(open_with(8 * SEGMENT), ST_UNSUPPORTED);
	store = NULL;
}

/* A partition as version 1 left it: other segment headers, no checkpoints. */
static void the_previous_version_is_read(void **state)
{
	uint64_t id;
	char path[128], block[4096];
	struct seg_header h;
	uint64_t sum;
	int fd;

	id = put(9, 70000, 1)->id;
	until_idle();
	store_close(store);
	for (unsigned i = 0; i < 8; i++) {
		snprintf(path, sizeof(path), "%s/seg-%08x", dir, i);
		fd = open(path, O_RDWR);
		if (fd < 0)
			break;
		assert_int_equal(pread(fd, &h, sizeof(h), 0), sizeof(h));
		if (h.magic) {
			h.version = 1;
			memset(block, 0, sizeof(block));
			memcpy(block, &h, offsetof(struct seg_header, stream));
			sum = XXH3_64bits(block, offsetof(struct seg_header, stream));
			memcpy(block + offsetof(struct seg_header, stream), &sum, sizeof(sum));
			assert_int_equal(pwrite(fd, block, sizeof(block), 0), sizeof(block));
		}
		close(fd);
	}
	snprintf(path, sizeof(path), "%s/checkpoint-0", dir);
	unlink(path);
	snprintf(path, sizeof(path), "%s/checkpoint-1", dir);
	unlink(path);
	assert_ok(open_with(8 * SEGMENT));
	check_body(awake(id), 9, 70000);
	assert_non_null(put(10, 100, 1)); /* and goes on in version 2 */
	until_idle();
	reopen();
	assert_int_equal(count(), 2);
}

/* Nobody but the owner reads or maps anything of it. */
static void files_are_private(void **state)
{
	struct dirent *d;
	struct stat st;
	DIR *all = opendir(dir);
	unsigned n = 0;

	assert_int_equal(stat(dir, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0700);
	while ((d = readdir(all)))
		if (d->d_name[0] != '.') {
			assert_int_equal(fstatat(dirfd(all), d->d_name, &st, 0), 0);
			assert_int_equal(st.st_mode & 0777, 0600);
			n++;
		}
	closedir(all);
	assert_true(n >= 5);
	assert_int_equal(fstat(arena_fd(arena), &st), 0);
	assert_int_equal(st.st_mode & 0077, 0);
	assert_true(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, arena_fd(arena), 0) == MAP_FAILED); /* sealed for everybody else */
}

/* Two newest checkpoints are gone: what is found is held for the postmaster, and nothing is recycled on their word. */
static void a_lost_checkpoint_holds_what_is_found(void **state)
{
	struct store_row row;
	char path[128];
	size_t pos = 0;
	unsigned n = 0;

	for (uint64_t i = 0; i < 700; i++) {
		struct store_msg *m = put(i, 40000, 1);

		assert_non_null(m);
		until_idle();
		drain(STORE_DURABLE, NULL);
		if (i % 100) {
			store_rcpt(m, 0, RCPT_DELIVERED, NULL, 0);
			store_forget(m);
		}
	}
	assert_true(counter_get(C_SPOOL_CHECKPOINTS) > 0);
	store_close(store);
	for (unsigned i = 0; i < 2; i++) {
		snprintf(path, sizeof(path), "%s/checkpoint-%u", dir, i);
		assert_int_equal(truncate(path, 0), 0);
	}
	assert_ok(open_with(8 * SEGMENT));
	while (store_next(store, &pos, &row)) {
		assert_int_equal(row.state, MSG_HELD);
		n++;
	}
	assert_true(n >= 7);
}

static void ids(void **state)
{
	char text[MSG_ID_TEXT + 1];
	uint64_t back;

	msg_id_text(UINT64_MAX, text);
	assert_ok(msg_id_parse(span_str(text), &back));
	assert_true(back == UINT64_MAX);
	assert_int_equal(msg_id_parse(SPAN("ZZZZZZZZZZZZZ"), &back), ST_INVALID);
	assert_int_equal(msg_id_parse(SPAN("123"), &back), ST_INVALID);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test_setup_teardown(bodies_of_all_sizes_survive_restart_and_eviction, begin, end),
		cmocka_unit_test_setup_teardown(outcomes_holds_and_done_survive, begin, end),
		cmocka_unit_test_setup_teardown(outcomes_around_a_checkpoint_are_counted_once, begin, end),
		cmocka_unit_test_setup_teardown(outcomes_in_turns_are_counted_once, begin, end),
		cmocka_unit_test_setup_teardown(half_a_segment_does_not_set_the_size, begin, end),
		cmocka_unit_test_setup_teardown(a_second_opener_is_refused, begin, end),
		cmocka_unit_test_setup_teardown(torn_tails_lose_only_what_was_not_durable, begin, end),
		cmocka_unit_test_setup_teardown(a_torn_body_stays_away, begin, end),
		cmocka_unit_test_setup_teardown(a_flipped_bit_is_noticed, begin, end),
		cmocka_unit_test_setup_teardown(segments_are_recycled_and_stayers_move, begin, end),
		cmocka_unit_test_setup_teardown(full_is_said_and_gets_free_again, begin, end),
		cmocka_unit_test_setup_teardown(unknown_versions_are_refused, begin, end),
		cmocka_unit_test_setup_teardown(the_previous_version_is_read, begin, end),
		cmocka_unit_test_setup_teardown(files_are_private, begin, end),
		cmocka_unit_test_setup_teardown(a_lost_checkpoint_holds_what_is_found, begin, end), cmocka_unit_test(ids) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
