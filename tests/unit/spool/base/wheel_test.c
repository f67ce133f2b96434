/* The wheel against an array of due times: every timer comes once, in the turn in which it is due, whatever the jumps. */
#include "tests/support/unit.h"

#include <stdlib.h>
#include "spool/base/clock.h"
#include "spool/base/wheel.h"

enum { TIMERS = 300, TURNS = 3000 };
#define TICK (10 * NS_PER_MS)

static struct wheel *wheel;
static struct timer timer[TIMERS];
static uint64_t due[TIMERS]; /* 0: not armed */
static uint64_t now;

static uint64_t in_ticks(uint64_t ns)
{
	return ns / TICK + (ns % TICK != 0);
}

/* From the next nanosecond to years away: about as often in each level of the wheel. */
static uint64_t some_time(void)
{
	unsigned bits = (unsigned)random() % 56;
	uint64_t r = (uint64_t)random() << 31 ^ (uint64_t)random();

	return 1 + (r & ((1ull << bits) - 1));
}

static void arm(int i, uint64_t at)
{
	due[i] = at;
	wheel_set(wheel, &timer[i], at);
	assert_true(timer_armed(&timer[i]));
}

static void disarm(int i)
{
	due[i] = 0;
	wheel_cancel(wheel, &timer[i]);
	assert_false(timer_armed(&timer[i]));
}

/* Takes out what is due; in the middle of it, cancels and moves others. */
static void expire(void)
{
	struct timer *t;

	while ((t = wheel_expire(wheel, now))) {
		int i = (int)(t - timer), other = (int)(random() % TIMERS);

		assert_false(timer_armed(t));
		assert_true(due[i] && in_ticks(due[i]) <= now / TICK); /* once, and not early */
		due[i] = 0;
		if (random() % 4 == 0)
			disarm(other);
		else if (random() % 4 == 0)
			arm(other, now + some_time());
		if (random() % 3 == 0)
			arm(i, now + some_time());
	}
	for (int i = 0; i < TIMERS; i++) /* and not late */
		assert_true(!due[i] || in_ticks(due[i]) > now / TICK);
}

static void begin(uint64_t at)
{
	now = at;
	memset(timer, 0, sizeof(timer));
	memset(due, 0, sizeof(due));
	wheel = wheel_new(now);
	assert_non_null(wheel);
}

/* The next due time, or 0. */
static uint64_t next_due(void)
{
	uint64_t first = 0;

	for (int i = 0; i < TIMERS; i++)
		if (due[i] && (!first || due[i] < first))
			first = due[i];
	return first;
}

static void jumps_of_any_length(void **state)
{
	srandom(21);
	begin(123456789);
	for (int turn = 0; turn < TURNS; turn++) {
		uint64_t wait, first;

		for (int k = 0; k < 3; k++)
			arm((int)(random() % TIMERS), random() % 20 ? now + some_time() : now);
		expire();
		first = next_due();
		wait = wheel_wait_ns(wheel, now);
		assert_int_equal(wait == UINT64_MAX, first == 0);
		assert_true(!first || wait <= in_ticks(first) * TICK - now); /* it is looked at in time */
		/* hours at the most: a wheel that was asleep for longer goes through every 256th tick of it */
		now += (random() % 2 ? wait : some_time()) % (10000 * NS_PER_S);
		expire();
	}
	wheel_free(wheel);
}

/* Around the ends of rounds of every level, one tick at a time. */
static void edges_of_every_level(void **state)
{
	static const uint64_t round[] = { 1ull << 8, 1ull << 16, 1ull << 24, 1ull << 32 };

	for (size_t r = 0; r < sizeof(round) / sizeof(round[0]); r++)
		for (uint64_t start = round[r] - 3; start <= round[r] + 3; start++) {
			int n = 0;

			begin(start * TICK);
			for (int level = 0; level < 3; level++)
				for (uint64_t k = 1; k <= 7; k++)
					arm(n++, (start + (1ull << (8 * level)) + k) * TICK);
			while (next_due()) {
				struct timer *t;

				now += TICK;
				while ((t = wheel_expire(wheel, now))) {
					assert_int_equal(in_ticks(due[t - timer]), now / TICK); /* to the tick */
					due[t - timer] = 0;
				}
			}
			assert_true(wheel_wait_ns(wheel, now) == UINT64_MAX);
			wheel_free(wheel);
		}
}

static void the_farthest_time(void **state)
{
	begin(5);
	arm(0, UINT64_MAX);
	arm(1, UINT64_MAX - 1);
	arm(2, 20 * TICK);
	now = 30 * TICK;
	assert_ptr_equal(wheel_expire(wheel, now), &timer[2]);
	assert_null(wheel_expire(wheel, now));
	disarm(0);
	disarm(1);
	assert_true(wheel_wait_ns(wheel, now) == UINT64_MAX);
	wheel_free(wheel);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(jumps_of_any_length), cmocka_unit_test(edges_of_every_level),
		cmocka_unit_test(the_farthest_time) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
