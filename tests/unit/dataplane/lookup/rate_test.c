/* The vectors of rule D1. */
#include "tests/support/unit.h"

#include "dataplane/lookup/rate.h"

static int first_over(double spacing, int most)
{
	struct rate_state s = { 0 };
	bool over;

	for (int i = 1; i <= most; i++) {
		rate_event(&s, 1e9 + i * spacing, 1, 3600, 60, false, &over);
		if (over)
			return i;
	}
	return 0;
}

static void d1_the_61st_of_a_burst_is_the_first_over(void **state)
{
	assert_int_equal(first_over(0.001, 100), 61);
	assert_int_equal(first_over(0, 100), 61);
}

static void d1_one_in_59_s_trips_at_250_and_one_in_60_s_never(void **state)
{
	assert_int_equal(first_over(59, 100000), 250);
	assert_int_equal(first_over(60, 100000), 0);
}

static void d1_a_burst_of_600_is_under_again_after_8289_s(void **state)
{
	struct rate_state s = { 0 };
	bool over;
	double last = 0, low = 0, high = 20000;

	for (int i = 0; i < 600; i++)
		rate_event(&s, last = 1e9 + i * 0.001, 1, 3600, 60, false, &over);
	while (high - low > 0.01) {
		double mid = (low + high) / 2;

		if (rate_is_over(rate_after(&s, last + mid, 0, 3600), 60))
			low = mid;
		else
			high = mid;
	}
	assert_int_equal((int)(low + 0.5), 8289);
	assert_in_range((int)rate_wait_s(&s, last, 3600, 60), 8289, 8420); /* one more message needs a little longer */
}

static void leaky_counts_accepted_ones_only(void **state)
{
	struct rate_state s = { 0 };
	bool over;
	int taken = 0;

	for (int i = 0; i < 1000; i++) {
		rate_event(&s, 1e9 + i * 0.001, 1, 3600, 60, true, &over);
		taken += !over;
	}
	assert_int_equal(taken, 60);
}

static void what_is_taken_back_was_never_there(void **state)
{
	struct rate_state s = { 0 };
	bool over;

	rate_event(&s, 1e9, -1, 3600, 20, false, &over);
	assert_false(s.known); /* nothing to take back from */
	for (int i = 0; i < 1000; i++) { /* logins that succeed a tenth of a second later */
		rate_event(&s, 1e9 + i, 1, 3600, 20, true, &over);
		assert_false(over);
		rate_event(&s, 1e9 + i + 0.1, -1, 3600, 20, false, &over);
		assert_true(s.r >= 0);
	}
	assert_true(s.r < 0.1);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(d1_the_61st_of_a_burst_is_the_first_over),
		cmocka_unit_test(d1_one_in_59_s_trips_at_250_and_one_in_60_s_never), cmocka_unit_test(d1_a_burst_of_600_is_under_again_after_8289_s),
		cmocka_unit_test(leaky_counts_accepted_ones_only), cmocka_unit_test(what_is_taken_back_was_never_there) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
