/* Full queues: nothing that was submitted is lost. */
#include "tests/support/unit.h"

#include <stdlib.h>
#include "spool/base/clock.h"
#include "spool/base/uring.h"

enum { ENTRIES = 8, MANY = 20000 };

static struct uring u;
static unsigned char times[MANY];
static unsigned done, fanned;

static void count(void *ctx, const struct uring_event *ev)
{
	uint32_t i = ev->gen;

	assert_int_equal(ev->op, i & 0xff);
	assert_int_equal(ev->slot, i ^ 0xffffff);
	times[i]++;
	done++;
	(void)ctx;
}

static void nop(uint32_t i)
{
	struct io_uring_sqe *sqe = uring_sqe(&u);

	io_uring_prep_nop(sqe);
	uring_tag(sqe, URING_NET, (uint8_t)i, i ^ 0xffffff, i);
}

static void wait_for_all(void)
{
	for (int i = 0; i < 10000 && done < MANY; i++)
		assert_ok(uring_wait(&u, NS_PER_MS));
	assert_int_equal(done, MANY);
	for (int i = 0; i < MANY; i++)
		assert_int_equal(times[i], 1);
}

/* Far more than both queues hold, before any completion is looked at. */
static void more_than_the_queues_hold(void **state)
{
	for (uint32_t i = 0; i < MANY; i++)
		nop(i);
	wait_for_all();
}

/* Handlers that submit more than fits, while completions wait. */
static void fan_out(void *ctx, const struct uring_event *ev)
{
	count(ctx, ev);
	for (int k = 0; k < 40 && fanned < MANY; k++)
		nop(fanned++);
}

static void handlers_that_submit(void **state)
{
	uring_handle(&u, URING_NET, fan_out, NULL);
	nop(fanned++);
	wait_for_all();
}

static void time_outs_end_a_wait(void **state)
{
	uint64_t start = clock_mono_ns();

	assert_ok(uring_wait(&u, 30 * NS_PER_MS));
	assert_true(clock_mono_ns() - start >= 30 * NS_PER_MS);
	assert_ok(uring_wait(&u, 0));
}

static int begin(void **state)
{
	memset(times, 0, sizeof(times));
	done = fanned = 0;
	if (uring_init(&u, ENTRIES) != ST_OK)
		return -1;
	uring_handle(&u, URING_NET, count, NULL);
	return 0;
}

static int end(void **state)
{
	uring_done(&u);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test_setup_teardown(more_than_the_queues_hold, begin, end),
		cmocka_unit_test_setup_teardown(handlers_that_submit, begin, end), cmocka_unit_test_setup_teardown(time_outs_end_a_wait, begin, end) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
