/* The ring in every execution: the real ring.c, compiled with atomics that ask the explorer. Each of its memory orders is then taken away in turn, and
 * must be missed: a check that cannot fail proves nothing. */
#include "tests/support/unit.h"

#include <stdatomic.h>
#include "spool/base/ring.h"
#include "tests/support/explore.h"

enum { HEAD, TAIL, SLEEPING, ENTRIES, RING_MAX = 2, PRODUCER = 0, CONSUMER = 1 };

static _Alignas(64) unsigned char memory[sizeof(struct ring_shared) + RING_MAX * 8]; /* only its addresses are used */

static int location(const volatile void *at)
{
	size_t off = (size_t)((const volatile unsigned char *)at - memory);

	return off < sizeof(struct ring_shared) ? (int)(off / 64) : ENTRIES + (int)((off - sizeof(struct ring_shared)) / 8);
}

static uint64_t model_load(const volatile void *at, int order)
{
	return ex_do((struct ex_step){ .kind = EX_LOAD, .loc = location(at), .order = order });
}

static void model_store(volatile void *at, uint64_t value, int order)
{
	ex_do((struct ex_step){ .kind = EX_STORE, .loc = location(at), .order = order, .value = (uint32_t)value });
}

static uint32_t model_swap(volatile void *at, uint32_t value, int order)
{
	return ex_do((struct ex_step){ .kind = EX_SWAP, .loc = location(at), .order = order, .value = value });
}

static void model_fence(int order)
{
	ex_do((struct ex_step){ .kind = EX_FENCE, .order = order });
}

static void model_copy(void *to, const void *from, size_t n)
{
	uintptr_t base = (uintptr_t)memory;
	uint64_t value;

	CHECK(n == sizeof(value));
	if ((uintptr_t)to >= base && (uintptr_t)to < base + sizeof(memory)) {
		__builtin_memcpy(&value, from, 8);
		ex_do((struct ex_step){ .kind = EX_WRITE, .loc = location(to), .value = (uint32_t)value });
	} else {
		value = ex_do((struct ex_step){ .kind = EX_READ, .loc = location(from) });
		__builtin_memcpy(to, &value, 8);
	}
}

#undef atomic_load_explicit
#undef atomic_store_explicit
#undef atomic_exchange_explicit
#undef atomic_thread_fence
#undef memcpy
#define atomic_load_explicit(at, order) model_load(at, order)
#define atomic_store_explicit(at, value, order) model_store(at, value, order)
#define atomic_exchange_explicit(at, value, order) model_swap(at, value, order)
#define atomic_thread_fence(order) model_fence(order)
#define memcpy(to, from, n) model_copy(to, from, n)
#include "spool/base/ring.c"

static uint32_t entries, pushes;

static void producer(void)
{
	struct ring r;
	bool wake;

	ring_init(&r, memory, entries, 8);
	for (uint64_t i = 0; i < pushes;) {
		uint64_t v = 100 + i;

		if (ring_push(&r, &v, &wake) == ST_OK)
			i++;
		else if (!ex_do((struct ex_step){ .kind = EX_AWAIT, .loc = TAIL }))
			return;
		if (wake)
			ex_do((struct ex_step){ .kind = EX_WAKE });
	}
}

/* Takes what is there. */
static uint64_t drain(struct ring *r, uint64_t next)
{
	enum status st;
	uint64_t v;

	while ((st = ring_pop(r, &v)) == ST_OK) {
		if (v != 100 + next)
			ex_fault("an entry is not the one that was pushed");
		next++;
		ex_do((struct ex_step){ .kind = EX_COUNT });
	}
	if (st != ST_AGAIN)
		ex_fault("an honest producer is taken for a liar");
	return next;
}

/* As worker_loop and the scanner's wait_for_work do it: drain, say that it sleeps, sleep, awake. A death is told by the socket; the last words count. */
static void consumer(void)
{
	struct ring r;
	uint64_t next = 0;

	ring_init(&r, memory, entries, 8);
	while ((next = drain(&r, next)) < pushes) {
		bool alive = true;

		if (ring_sleep(&r))
			alive = ex_do((struct ex_step){ .kind = EX_BLOCK });
		ring_awake(&r);
		if (!alive) {
			drain(&r, next);
			return;
		}
	}
}

/* One that looks before it says that it sleeps. */
static void hasty_consumer(void)
{
	struct ring r;
	uint64_t next = 0;

	ring_init(&r, memory, entries, 8);
	while ((next = drain(&r, next)) < pushes) {
		atomic_thread_fence(memory_order_seq_cst);
		atomic_store_explicit(&r.shared->sleeping, 1, memory_order_relaxed);
		if (!ex_do((struct ex_step){ .kind = EX_BLOCK }))
			return;
		ring_awake(&r);
	}
}

static const char *judge(const struct ex_end *e)
{
	if (e->blocked[CONSUMER])
		return "a wakeup is lost";
	if (e->blocked[PRODUCER])
		return "the producer waits for room for ever";
	if (e->dead[CONSUMER])
		return NULL;
	if (e->dead[PRODUCER])
		return e->count[CONSUMER] == e->last[HEAD] ? NULL : "the last words of the dead are lost";
	return e->count[CONSUMER] == pushes && e->last[TAIL] == pushes ? NULL : "an entry is lost";
}

static struct ex_report run(uint32_t size, uint32_t n, int deaths, void (*bend)(int, struct ex_step *), void (*consume)(void))
{
	static struct ex_report r;
	struct ex_config c = { .thread = { producer, consume }, .judge = judge, .bend = bend, .deaths = deaths };

	entries = size;
	pushes = n;
	explore(&c, &r);
	print_message("ring of %u, %u entries, %d deaths: %llu states, %llu ends: %s\n", size, n, deaths, (unsigned long long)r.states,
		(unsigned long long)r.ends, r.fault ? r.fault : "right");
	return r;
}

static void right(uint32_t size, uint32_t n, int deaths)
{
	struct ex_report r = run(size, n, deaths, NULL, consumer);

	if (r.fault)
		fail_msg("%s\n%s", r.fault, r.trace);
	assert_true(r.ends > 0);
}

static void every_execution_is_right(void **state)
{
	right(2, 1, 0);
	right(2, 2, 0);
	right(2, 3, 0);
}

static void either_side_may_die_at_any_step(void **state)
{
	right(1, 2, 1);
	right(2, 2, 2);
	right(1, 3, 1);
}

static void no_head_release(int t, struct ex_step *s)
{
	if (s->kind == EX_STORE && s->loc == HEAD)
		s->order = memory_order_relaxed;
}

static void no_head_acquire(int t, struct ex_step *s)
{
	if (s->kind == EX_LOAD && s->loc == HEAD)
		s->order = memory_order_relaxed;
}

static void no_tail_release(int t, struct ex_step *s)
{
	if (s->kind == EX_STORE && s->loc == TAIL)
		s->order = memory_order_relaxed;
}

static void no_tail_acquire(int t, struct ex_step *s)
{
	if (s->kind == EX_LOAD && s->loc == TAIL)
		s->order = memory_order_relaxed;
}

static void weak_producer_fence(int t, struct ex_step *s)
{
	if (s->kind == EX_FENCE && t == PRODUCER)
		s->order = memory_order_acq_rel;
}

static void weak_consumer_fence(int t, struct ex_step *s)
{
	if (s->kind == EX_FENCE && t == CONSUMER)
		s->order = memory_order_acq_rel;
}

static void missed(void (*bend)(int, struct ex_step *), void (*consume)(void))
{
	struct ex_report r = run(1, 2, 0, bend, consume);

	assert_non_null(r.fault);
	assert_true(r.trace[0]);
}

static void every_order_is_needed(void **state)
{
	missed(no_head_release, consumer);
	missed(no_head_acquire, consumer);
	missed(no_tail_release, consumer);
	missed(no_tail_acquire, consumer);
	missed(weak_producer_fence, consumer);
	missed(weak_consumer_fence, consumer);
	missed(NULL, hasty_consumer);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(every_execution_is_right), cmocka_unit_test(either_side_may_die_at_any_step),
		cmocka_unit_test(every_order_is_needed) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
