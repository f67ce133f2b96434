/* MTA-STS policies on disk hold for their time, and damage is no policy. */
#include "tests/support/unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include "control/sts_cache.h"
#include "spool/base/clock.h"

static char dir[64];

static enum status put(const char *domain, const char *id, const char *text)
{
	struct mta_sts_policy p;

	assert_ok(mta_sts_parse(span_str(text), &p));
	return sts_cache_put(domain, id, &p);
}

static void holds_for_its_time(void **state)
{
	struct sts_cached c;
	uint64_t now = 1800000000ull * NS_PER_S;

	clock_fake(1, now);
	assert_false(sts_cache_get("cam.example", &c));
	assert_ok(put("cam.example", "one", "version: STSv1\nmode: enforce\nmx: mx.cam.example\nmax_age: 100\n"));
	clock_fake(1, now + 50 * NS_PER_S);
	assert_true(sts_cache_get("cam.example", &c) && !c.old);
	clock_fake(1, now + 99 * NS_PER_S);
	assert_true(sts_cache_get("cam.example", &c) && c.old);
	assert_string_equal(c.id, "one");
	assert_int_equal(c.left_s, 1);
	assert_span(span_of(c.text, c.len), "version: STSv1\nmode: enforce\nmx: mx.cam.example\nmax_age: 100\n");
	clock_fake(1, now + 100 * NS_PER_S);
	assert_false(sts_cache_get("cam.example", &c));
	clock_fake_off();
}

static void a_new_one_replaces_it_and_age_zero_ends_it(void **state)
{
	struct sts_cached c;

	assert_ok(put("cam.example", "one", "version: STSv1\nmode: enforce\nmx: mx.cam.example\nmax_age: 100\n"));
	assert_ok(put("cam.example", "two", "version: STSv1\nmode: none\nmax_age: 100\n"));
	assert_true(sts_cache_get("cam.example", &c));
	assert_string_equal(c.id, "two");
	assert_ok(put("cam.example", "three", "version: STSv1\nmode: none\nmax_age: 0\n"));
	assert_false(sts_cache_get("cam.example", &c));
}

static void damage_is_no_policy(void **state)
{
	static const char *const bad[] = { "", "id=x until_s=99999999999\n", "id=x until_s=zzz\nversion: STSv1\nmode: none\nmax_age: 1\n",
		"id=x until_s=99999999999\nversion: STSv1\nmode: none\nmax_age: 1\n", "\n\n\n", "version: STSv1\nmode: none\nmax_age: 1\n" };
	struct sts_cached c;
	char path[200];

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		FILE *f;

		snprintf(path, sizeof(path), "%s/mta-sts-policies/bad.example", dir);
		f = fopen(path, "w");
		assert_non_null(f);
		fputs(bad[i], f);
		fclose(f);
		assert_false(sts_cache_get("bad.example", &c));
	}
}

static int begin(void **state)
{
	snprintf(dir, sizeof(dir), "/tmp/weir-sts-XXXXXX");
	assert_non_null(mkdtemp(dir));
	assert_ok(sts_cache_open(dir));
	return 0;
}

static int end(void **state)
{
	char path[200];

	snprintf(path, sizeof(path), "%s/mta-sts-policies", dir);
	return rmdir(path) == 0 && rmdir(dir) == 0 ? 0 : -1; /* nothing is left behind */
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(holds_for_its_time), cmocka_unit_test(a_new_one_replaces_it_and_age_zero_ends_it),
		cmocka_unit_test(damage_is_no_policy) };

	return cmocka_run_group_tests(tests, begin, end);
}
