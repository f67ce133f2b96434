/* D2: findings are counted by rule, class and what was done, and what another version counted is not taken for them. */
#include "tests/support/unit.h"

#include "spool/mail/rule_counts.h"

static uint64_t all(void)
{
	uint64_t n = 0;

	for (unsigned r = 0; r < RULE_NRULE; r++)
		for (unsigned c = 0; c < CLASS_NCLASS; c++)
			for (unsigned m = 0; m < POLICY_NMODE; m++)
				n += rule_counts_get(counters_self, (enum rule)r, (enum snap_class)c, (enum policy_mode)m);
	return n;
}

static void each_has_a_place_of_its_own(void **state)
{
	uint64_t n = 0;

	assert_int_equal(all(), 0);
	for (unsigned r = 0; r < RULE_NRULE; r++)
		for (unsigned c = 0; c < CLASS_NCLASS; c++)
			for (unsigned m = POLICY_MONITOR; m < POLICY_NMODE; m++) {
				rule_count((enum rule)r, (enum snap_class)c, (enum policy_mode)m);
				assert_int_equal(rule_counts_get(counters_self, (enum rule)r, (enum snap_class)c, (enum policy_mode)m), 1);
				assert_int_equal(all(), ++n);
			}
}

static void a_table_of_another_version_is_begun_anew(void **state)
{
	rule_count(RULE_RATE, CLASS_MX, POLICY_DEFER);
	assert_true(all() > 0);
	atomic_fetch_add(&counters_self->table_layout, 2);
	assert_int_equal(all(), 0);
	rule_count(RULE_MALWARE, CLASS_ROBUST, POLICY_REJECT);
	assert_int_equal(all(), 1);
	assert_int_equal(rule_counts_get(counters_self, RULE_MALWARE, CLASS_ROBUST, POLICY_REJECT), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_has_a_place_of_its_own),
		cmocka_unit_test(a_table_of_another_version_is_begun_anew),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
