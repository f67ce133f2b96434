/* P19: the time of a failure is one of few, all of them counted from when the client's message came. */
#include "tests/support/unit.h"

#include "dataplane/auth_delay.h"
#include "spool/base/clock.h"

#define MS NS_PER_MS

static void whatever_it_took_the_answer_leaves_at_the_same_time(void **state)
{
	const uint64_t begun = 123 * NS_PER_S + 7, delay = NS_PER_S;

	for (uint64_t took = 0; took < delay; took += 10 * MS)
		assert_int_equal(auth_delay_due(begun, begun + took, delay), begun + delay);
	assert_int_equal(auth_delay_due(begun, begun + delay - 1, delay), begun + delay);
}

static void what_took_longer_waits_for_a_multiple(void **state)
{
	const uint64_t begun = 5, delay = 250 * MS;

	/* Dovecot delays failures by two seconds and what the hash took */
	for (uint64_t took = 2000 * MS; took < 2250 * MS; took += MS)
		assert_int_equal(auth_delay_due(begun, begun + took, delay), begun + 2250 * MS);
	assert_int_equal(auth_delay_due(begun, begun + 2250 * MS, delay), begun + 2500 * MS);
}

static void without_a_delay_it_goes_at_once(void **state)
{
	assert_int_equal(auth_delay_due(3, 9, 0), 9);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(whatever_it_took_the_answer_leaves_at_the_same_time),
		cmocka_unit_test(what_took_longer_waits_for_a_multiple),
		cmocka_unit_test(without_a_delay_it_goes_at_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
