/* F1: how many connections a destination gets. */
#include "tests/support/unit.h"

#include "dataplane/pace.h"
#include "spool/base/clock.h"

static void grows_with_success_up_to_the_limit(void **state)
{
	struct pace p;

	pace_init(&p, 2);
	assert_int_equal(pace_limit(&p, 20), 2);
	pace_success(&p, 1, 20); /* one connection says nothing about three */
	assert_int_equal(pace_limit(&p, 20), 2);
	for (int i = 0; i < 100; i++)
		pace_success(&p, pace_limit(&p, 20), 20);
	assert_int_equal(pace_limit(&p, 20), 20);
	assert_int_equal(pace_limit(&p, 5), 5);
}

static void learns_what_is_refused(void **state)
{
	struct pace p;
	unsigned asked = 0;

	pace_init(&p, 5);
	for (int i = 0; i < 50; i++)
		pace_success(&p, p.limit, 20);
	assert_true(pace_refused(&p, 7, NS_PER_S));
	assert_int_equal(pace_limit(&p, 20), 7);
	assert_false(pace_is_stale(&p, NS_PER_S));
	/* a host with room for 7 is asked for an eighth now and then only */
	for (uint64_t i = 0; i < 1000; i++) {
		pace_success(&p, p.limit, 20);
		if (p.limit > 7) {
			asked++;
			pace_refused(&p, 7, (i + 2) * NS_PER_S);
		}
	}
	assert_in_range(asked, 1, 20);
}

static void halves_once_for_all_that_are_told_at_once(void **state)
{
	struct pace p;

	pace_init(&p, 16);
	assert_true(pace_slow_down(&p, 100 * NS_PER_S));
	for (uint64_t i = 0; i < 10; i++)
		assert_false(pace_slow_down(&p, 100 * NS_PER_S + i));
	assert_int_equal(pace_limit(&p, 20), 8);
	assert_true(pace_slow_down(&p, 102 * NS_PER_S));
	assert_int_equal(pace_limit(&p, 20), 4);
	for (uint64_t i = 0; i < 10; i++)
		pace_slow_down(&p, (104 + 2 * i) * NS_PER_S);
	assert_int_equal(pace_limit(&p, 20), 1); /* never none */
	assert_true(pace_is_stale(&p, 10000 * NS_PER_S));
}

static void nobody_else_works(void **state)
{
	struct pace p;

	pace_init(&p, 5);
	pace_refused(&p, 0, NS_PER_S);
	assert_int_equal(pace_limit(&p, 20), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(grows_with_success_up_to_the_limit), cmocka_unit_test(learns_what_is_refused),
		cmocka_unit_test(halves_once_for_all_that_are_told_at_once), cmocka_unit_test(nobody_else_works) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
