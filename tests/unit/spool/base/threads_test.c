/* What processes share, between two threads: for ThreadSanitizer, and for the hardware's own ideas of order. */
#include "tests/support/unit.h"

#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "spool/base/counters.h"
#include "spool/base/ring.h"

enum { ENTRIES = 8, PUSHES = 60000, WORDS = 8 };

struct pair {
	void *memory;
	int to_consumer, to_producer;
};

struct entry {
	uint64_t word[WORDS];
};

static void make(struct pair *p)
{
	size_t n = (2 * ring_bytes(ENTRIES, sizeof(struct entry)) + 4095) & ~(size_t)4095;

	p->memory = aligned_alloc(4096, n);
	assert_non_null(p->memory);
	memset(p->memory, 0, n);
	p->to_consumer = eventfd(0, EFD_CLOEXEC);
	p->to_producer = eventfd(0, EFD_CLOEXEC);
}

static void drop(struct pair *p)
{
	free(p->memory);
	close(p->to_consumer);
	close(p->to_producer);
}

static void *second(const struct pair *p)
{
	return (char *)p->memory + ((ring_bytes(ENTRIES, sizeof(struct entry)) + 63) & ~(size_t)63);
}

static void wake(int fd)
{
	uint64_t one = 1;

	CHECK(write(fd, &one, sizeof(one)) == sizeof(one));
}

/* Sleeps until woken; a wakeup that is lost is seen as a sleep without end. */
static void sleep_on(struct ring *r, int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	uint64_t v;

	if (ring_sleep(r)) {
		CHECK(poll(&p, 1, 10000) == 1);
		CHECK(read(fd, &v, sizeof(v)) == sizeof(v));
	}
	ring_awake(r);
}

/* Sends back all that comes, as a scanner its verdicts. */
static void *echo(void *arg)
{
	const struct pair *p = arg;
	struct ring in, out;
	struct entry e;
	bool wants;

	ring_init(&in, p->memory, ENTRIES, sizeof(e));
	ring_init(&out, second(p), ENTRIES, sizeof(e));
	for (int i = 0; i < PUSHES;) {
		if (ring_pop(&in, &e) != ST_OK) {
			sleep_on(&in, p->to_consumer);
			continue;
		}
		CHECK(ring_push(&out, &e, &wants) == ST_OK); /* as many as were asked have room */
		if (wants)
			wake(p->to_producer);
		i++;
	}
	return NULL;
}

static void entries_go_round_through_sleep_and_wake(void **state)
{
	struct pair p;
	struct ring out, in;
	struct entry e;
	pthread_t t;
	uint64_t sent = 0, got = 0;
	bool wants;

	make(&p);
	ring_init(&out, p.memory, ENTRIES, sizeof(e));
	ring_init(&in, second(&p), ENTRIES, sizeof(e));
	assert_int_equal(pthread_create(&t, NULL, echo, &p), 0);
	while (got < PUSHES) {
		uint64_t burst = 1 + got % ENTRIES;

		while (sent < PUSHES && sent - got < burst) {
			for (int i = 0; i < WORDS; i++)
				e.word[i] = sent;
			assert_ok(ring_push(&out, &e, &wants));
			if (wants)
				wake(p.to_consumer);
			sent++;
		}
		if (ring_pop(&in, &e) != ST_OK) {
			sleep_on(&in, p.to_producer);
			continue;
		}
		for (int i = 0; i < WORDS; i++)
			assert_int_equal(e.word[i], got);
		got++;
	}
	pthread_join(t, NULL);
	drop(&p);
}

static _Atomic bool counted;

static void *count(void *arg)
{
	for (int i = 0; i < PUSHES; i++)
		counter_add(C_MSG_ACCEPTED, 3);
	atomic_store(&counted, true);
	return NULL;
}

/* A reader of another process's page sees whole numbers that only grow. */
static void counters_are_read_while_they_grow(void **state)
{
	char dir[] = "/tmp/weir-counters-XXXXXX", path[64];
	const struct counters_page *page;
	uint64_t last = 0, v;
	pthread_t t;

	assert_non_null(mkdtemp(dir));
	assert_ok(counters_open(dir, "threads", 0));
	snprintf(path, sizeof(path), "%s/threads-0", dir);
	assert_ok(counters_map(path, &page));
	assert_int_equal(pthread_create(&t, NULL, count, NULL), 0);
	while (!atomic_load(&counted)) {
		v = atomic_load_explicit(&page->v[C_MSG_ACCEPTED], memory_order_relaxed);
		assert_true(v >= last && v % 3 == 0);
		last = v;
	}
	pthread_join(t, NULL);
	assert_int_equal(atomic_load_explicit(&page->v[C_MSG_ACCEPTED], memory_order_relaxed), 3 * PUSHES);
	counters_unmap(page);
	unlink(path);
	rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(entries_go_round_through_sleep_and_wake),
		cmocka_unit_test(counters_are_read_while_they_grow) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
