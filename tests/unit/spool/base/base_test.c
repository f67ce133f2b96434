#include "tests/support/unit.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "spool/base/clock.h"
#include "spool/base/file.h"
#include "spool/base/log.h"
#include "spool/base/map.h"
#include "spool/base/pool.h"
#include "spool/base/ring.h"
#include "spool/base/thread.h"
#include "spool/base/wheel.h"

static void spans(void **state)
{
	struct span s = SPAN("a,b,,c"), rest = s;
	uint64_t v;
	char buf[4];
	struct out o = out_of(buf, sizeof(buf));

	assert_span(span_cut(&rest, ','), "a");
	assert_span(span_cut(&rest, ','), "b");
	assert_span(span_cut(&rest, ','), "");
	assert_span(span_cut(&rest, ','), "c");
	assert_null(rest.p);
	assert_true(span_u64(SPAN("18446744073709551615"), UINT64_MAX, &v) && v == UINT64_MAX);
	assert_false(span_u64(SPAN("18446744073709551616"), UINT64_MAX, &v));
	assert_false(span_u64(SPAN("-1"), 9, &v) || span_u64(SPAN(""), 9, &v) || span_u64(SPAN("10"), 9, &v));
	out_fmt(&o, "%s", "abcd"); /* just fits, without room for a NUL */
	assert_false(o.over);
	assert_span(out_span(&o), "abcd");
	out_char(&o, 'e');
	assert_true(o.over);
	assert_true(span_eq_nocase(SPAN("PostMaster"), SPAN("postmaster")) && !span_eq_nocase(SPAN("a"), SPAN("ab")));
}

static void reading_never_passes_the_end(void **state)
{
	char buf[64];
	struct out o = out_of(buf, sizeof(buf));
	struct in i;

	out_le32(&o, 7);
	out_field(&o, SPAN("hello"));
	for (size_t n = 0; n < o.n; n++) {
		i = in_of(span_of(buf, n));
		in_le32(&i);
		in_field(&i);
		assert_true(i.bad);
	}
	i = in_of(out_span(&o));
	assert_int_equal(in_le32(&i), 7);
	assert_span(in_field(&i), "hello");
	assert_false(i.bad);
	memset(buf, 0xff, sizeof(buf));
	i = in_of(span_of(buf, sizeof(buf)));
	assert_int_equal(in_field(&i).n, 0);
	assert_true(i.bad);
}

static void pool_has_a_ceiling(void **state)
{
	struct pool p;
	size_t n = 0;

	pool_init(&p, 100000);
	while (pool_alloc(&p, 1000))
		n++;
	assert_in_range(n, 90, 100);
	assert_null(pool_alloc(&p, SIZE_MAX));
	pool_reset(&p);
	assert_span(pool_span(&p, SPAN("kept")), "kept");
	pool_reset(&p);
}

static void map_holds_many(void **state)
{
	struct map *m;
	struct span k;
	void *v;
	size_t pos = 0, n = 0;

	assert_ok(map_new(&m));
	for (uintptr_t i = 1; i <= 100000; i++)
		assert_ok(map_set(m, span_of(&i, sizeof(i)), (void *)i));
	for (uintptr_t i = 1; i <= 100000; i += 2)
		assert_ptr_equal(map_del(m, span_of(&i, sizeof(i))), (void *)i);
	assert_int_equal(map_len(m), 50000);
	for (uintptr_t i = 1; i <= 100000; i++)
		assert_ptr_equal(map_get(m, span_of(&i, sizeof(i))), i % 2 ? NULL : (void *)i);
	while (map_next(m, &pos, &k, &v))
		n++;
	assert_int_equal(n, 50000);
	map_free(m);
}

static void wheel_is_never_early(void **state)
{
	uint64_t now = 123456789 * NS_PER_MS;
	struct wheel *w = wheel_new(now);
	static struct timer t[2000];
	static uint64_t due[2000];
	size_t fired = 0;
	struct timer *x;

	srandom(7);
	for (int i = 0; i < 2000; i++) {
		due[i] = now + (uint64_t)random() % (i % 3 == 0 ? 3000 * NS_PER_S : i % 3 == 1 ? 5 * NS_PER_S : 400 * NS_PER_MS);
		wheel_set(w, &t[i], due[i]);
	}
	for (int i = 0; i < 2000; i += 10) {
		wheel_cancel(w, &t[i]);
		assert_false(timer_armed(&t[i]));
	}
	while (fired < 1800) {
		uint64_t wait = wheel_wait_ns(w, now);

		assert_true(wait != UINT64_MAX);
		now += wait ? wait : 1;
		while ((x = wheel_expire(w, now))) {
			assert_true(due[x - t] <= now);
			assert_true(now - due[x - t] <= 20 * NS_PER_MS);
			fired++;
		}
	}
	assert_true(wheel_wait_ns(w, now) == UINT64_MAX);
	wheel_free(w);
}

enum { RING_N = 200000 };
static char *ring_mem;

static void *produce(void *arg)
{
	struct ring r;
	bool wake;

	(void)arg;
	ring_init(&r, ring_mem, 64, 8);
	for (uint64_t i = 0; i < RING_N;)
		if (ring_push(&r, &i, &wake) == ST_OK)
			i++;
	return NULL;
}

static void ring_keeps_order_between_threads(void **state)
{
	pthread_t t;
	struct ring r;
	uint64_t v;

	ring_mem = aligned_alloc(64, (ring_bytes(64, 8) + 63) & ~(size_t)63);
	memset(ring_mem, 0, ring_bytes(64, 8));
	ring_init(&r, ring_mem, 64, 8);
	pthread_create(&t, NULL, produce, NULL);
	for (uint64_t i = 0; i < RING_N;)
		if (ring_pop(&r, &v) == ST_OK)
			assert_int_equal(v, i++);
	pthread_join(t, NULL);
	free(ring_mem);
}

/* Every interleaving of a producer's push and a consumer's going to sleep: the consumer either sees the entry or is woken. */
static void ring_never_sleeps_through_an_entry(void **state)
{
	for (int push_first = 0; push_first < 2; push_first++) {
		char *mem = aligned_alloc(64, 4096);
		struct ring p, c;
		uint64_t v = 1;
		bool wake = false, asleep;

		memset(mem, 0, 4096);
		ring_init(&p, mem, 4, 8);
		ring_init(&c, mem, 4, 8);
		if (push_first)
			assert_ok(ring_push(&p, &v, &wake));
		asleep = ring_sleep(&c);
		if (!push_first)
			assert_ok(ring_push(&p, &v, &wake));
		assert_true(!asleep || wake);
		free(mem);
	}
}

static void ring_survives_a_lying_peer(void **state)
{
	char *mem = aligned_alloc(64, 4096);
	struct ring_shared *s = (struct ring_shared *)(void *)mem;
	struct ring p, c;
	uint64_t v = 1;
	bool wake;

	memset(mem, 0, 4096);
	ring_init(&p, mem, 4, 8);
	ring_init(&c, mem, 4, 8);
	atomic_store(&s->head, 1000);
	assert_int_equal(ring_pop(&c, &v), ST_CORRUPT);
	atomic_store(&s->tail, 77);
	assert_int_equal(ring_push(&p, &v, &wake), ST_FULL);
	free(mem);
}

static void rows_cannot_be_forged(void **state)
{
	struct logline l;
	struct span rest, k, v;
	char buf[256], nasty[] = "x\r\nevent=delivered \"\\\x01\xff=";

	row_begin(&l);
	log_span(&l, "a", span_of(nasty, sizeof(nasty) - 1));
	log_u64(&l, "n", 42);
	rest = row_text(&l);
	for (size_t i = 0; i < rest.n; i++)
		assert_in_range((unsigned char)rest.p[i], ' ', 0x7e);
	assert_true(row_next(&rest, &k, &v, buf, sizeof(buf)));
	assert_span(k, "a");
	assert_int_equal(v.n, sizeof(nasty) - 1);
	assert_memory_equal(v.p, nasty, v.n);
	assert_true(row_next(&rest, &k, &v, buf, sizeof(buf)));
	assert_span(v, "42");
	assert_false(row_next(&rest, &k, &v, buf, sizeof(buf)));
}

static void files_are_read_whole_or_not_at_all(void **state)
{
	char path[] = "/tmp/weir-file-XXXXXX", *bytes = NULL;
	int fd = mkstemp(path);
	struct stat sb;
	size_t n;

	assert_true(fd >= 0 && write(fd, "a\n\0b", 4) == 4);
	assert_ok(file_read(path, 4, &sb, &bytes, &n));
	assert_int_equal(n, 4);
	assert_memory_equal(bytes, "a\n\0b", 4);
	assert_int_equal(sb.st_size, 4);
	free(bytes);
	assert_int_equal(file_read(path, 3, NULL, &bytes, &n), ST_TOO_BIG);
	assert_int_equal(ftruncate(fd, 0), 0);
	assert_ok(file_read(path, 3, NULL, &bytes, &n));
	assert_int_equal(n, 0);
	free(bytes);
	assert_int_equal(file_read("/tmp", 3, NULL, &bytes, &n), ST_INVALID);
	close(fd);
	unlink(path);
	assert_int_equal(file_read(path, 3, NULL, &bytes, &n), ST_IO);
	assert_string_equal(trail_text(), "No such file or directory");
}

static void *signals_of_a_thread(void *arg)
{
	pthread_sigmask(SIG_SETMASK, NULL, arg);
	return NULL;
}

static void helper_threads_take_no_signals(void **state)
{
	sigset_t helper, ours;
	pthread_t t;

	assert_ok(thread_start(&t, signals_of_a_thread, &helper));
	assert_int_equal(pthread_join(t, NULL), 0);
	pthread_sigmask(SIG_SETMASK, NULL, &ours);
	assert_true(sigismember(&helper, SIGTERM) && sigismember(&helper, SIGHUP));
	assert_false(sigismember(&ours, SIGTERM));
}

static void a_map_is_emptied_by_a_loop(void **state)
{
	for (unsigned round = 0; round < 3000; round++) {
		struct map *m;
		struct span key;
		size_t pos = 0, given = 0;
		char name[32];
		void *v;

		assert_ok(map_new(&m));
		for (unsigned i = 0; i < 12 + round % 50; i++) {
			int n = snprintf(name, sizeof(name), "%u/%u", round, i);

			assert_ok(map_set(m, span_of(name, (size_t)n), m));
		}
		for (; map_next(m, &pos, &key, &v); given++)
			map_del(m, key);
		assert_int_equal(given, 12 + round % 50);
		assert_int_equal(map_len(m), 0);
		map_free(m);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(spans), cmocka_unit_test(reading_never_passes_the_end),
		cmocka_unit_test(pool_has_a_ceiling), cmocka_unit_test(map_holds_many), cmocka_unit_test(wheel_is_never_early),
		cmocka_unit_test(ring_keeps_order_between_threads), cmocka_unit_test(ring_never_sleeps_through_an_entry),
		cmocka_unit_test(ring_survives_a_lying_peer), cmocka_unit_test(a_map_is_emptied_by_a_loop), cmocka_unit_test(rows_cannot_be_forged),
		cmocka_unit_test(files_are_read_whole_or_not_at_all), cmocka_unit_test(helper_threads_take_no_signals) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
