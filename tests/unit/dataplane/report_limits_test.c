/* P10, A10: how many reports are made. */
#include "tests/support/unit.h"

#include <stdio.h>
#include "dataplane/report_limits.h"
#include "spool/base/clock.h"

static struct snap_settings set = { .reports_per_sender = 3, .reports_per_host = 10, .reports_total = 25, .reports_double = 4,
	.reports_period_ns = 3600 * NS_PER_S };
static const uint8_t host[3][16] = { { 1 }, { 2 }, { 3 } };

static const char *ask(struct report_limits *l, const char *to, unsigned from, uint64_t s)
{
	return report_limit(l, &(struct report_ask){ .set = &set, .now_ns = s * NS_PER_S, .to = span_str(to), .host = host[from] });
}

static const char *ask_double(struct report_limits *l, const char *failed, unsigned from)
{
	return report_limit(l, &(struct report_ask){ .set = &set, .now_ns = NS_PER_S, .to = SPAN("postmaster"), .host = host[from], .double_bounce = true,
		.failed_rcpt = span_str(failed) });
}

static void each_limit(void **state)
{
	struct report_limits *l;
	char to[32];

	assert_ok(report_limits_new(&l));
	for (int i = 0; i < 3; i++)
		assert_null(ask(l, i % 2 ? "A@x.example" : "a@X.example", 0, 1));
	assert_string_equal(ask(l, "a@x.example", 1, 1), "reports.per_sender");
	for (int i = 0; i < 7; i++) {
		snprintf(to, sizeof(to), "b%d@x.example", i);
		assert_null(ask(l, to, 0, 1));
	}
	assert_string_equal(ask(l, "c@x.example", 0, 1), "reports.per_host");
	for (int i = 0; i < 15; i++) {
		snprintf(to, sizeof(to), "d%d@x.example", i);
		assert_null(ask(l, to, 1 + (unsigned)i % 2, 1));
	}
	assert_string_equal(ask(l, "e@x.example", 2, 3600), "reports.total");
	assert_null(ask(l, "e@x.example", 2, 3602)); /* the next window */
	report_limits_free(l);
}

static void double_bounces(void **state)
{
	struct report_limits *l;
	char to[32];

	assert_ok(report_limits_new(&l));
	assert_null(ask_double(l, "a@x.example", 0));
	assert_string_equal(ask_double(l, "a@x.example", 0), "duplicate");
	assert_null(ask_double(l, "a@x.example", 1)); /* of another host it is another matter */
	for (int i = 0; i < 3; i++) {
		snprintf(to, sizeof(to), "b%d@x.example", i);
		assert_null(ask_double(l, to, 0));
	}
	assert_string_equal(ask_double(l, "c@x.example", 0), "reports.double");
	assert_null(ask(l, "postmaster", 0, 1)); /* counted for themselves */
	report_limits_free(l);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(each_limit), cmocka_unit_test(double_bounces) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
