/* MTA-STS records and policies (RFC 8461 3.1, 3.2, 4.1). */
#include "tests/support/unit.h"

#include "spool/mail/mta_sts.h"

#define GOOD "version: STSv1\r\nmode: enforce\r\nmx: mail.cam.example\r\nmx: *.cam.example\r\nmax_age: 604800\r\n"

static void records(void **state)
{
	struct span id;

	assert_ok(mta_sts_record(SPAN("v=STSv1; id=20160831085700Z;"), &id));
	assert_span(id, "20160831085700Z");
	assert_ok(mta_sts_record(SPAN("v=STSv1 ;future=1;id=a ; "), &id));
	assert_span(id, "a");
	assert_int_equal(mta_sts_record(SPAN("v=spf1 -all"), &id), ST_NOT_FOUND);
	assert_int_equal(mta_sts_record(SPAN("v=STSv10; id=1"), &id), ST_NOT_FOUND);
	assert_int_equal(mta_sts_record(SPAN(""), &id), ST_NOT_FOUND);
	assert_int_equal(mta_sts_record(SPAN("v=STSv1;"), &id), ST_INVALID);
	assert_int_equal(mta_sts_record(SPAN("v=STSv1; id="), &id), ST_INVALID);
	assert_int_equal(mta_sts_record(SPAN("v=STSv1; id=a b"), &id), ST_INVALID);
	assert_int_equal(mta_sts_record(SPAN("v=STSv1; id=012345678901234567890123456789012"), &id), ST_INVALID);
}

static void policies(void **state)
{
	struct mta_sts_policy p;

	assert_ok(mta_sts_parse(SPAN(GOOD), &p));
	assert_int_equal(p.mode, MTA_STS_ENFORCE);
	assert_int_equal(p.max_age_s, 604800);
	assert_int_equal(p.nmx, 2);
	assert_span(p.mx[1], "*.cam.example");
	assert_int_equal(mta_sts_parse(SPAN("version: STSv1\nmode: none\nmax_age: 99999999999"), &p), ST_INVALID);
	assert_ok(mta_sts_parse(SPAN("version: STSv1\nmode: none\nmax_age: 9999999999"), &p));
	assert_int_equal(p.max_age_s, MTA_STS_AGE_MAX_S);
	/* of repeated fields the first counts; unknown ones are passed over */
	assert_ok(mta_sts_parse(SPAN("version: STSv1\nmode: testing\nmode: enforce\nx-new: 1\n\nmx: a.example\nmax_age: 1\n"), &p));
	assert_int_equal(p.mode, MTA_STS_TESTING);
}

static void bad_policies(void **state)
{
	static const char *const bad[] = { "", "version: STSv1\n", "version: STSv2\nmode: none\nmax_age: 1\n", "<html>\n</html>\n",
		"version: STSv1\nmode: enforce\nmax_age: 1\n", "version: STSv1\nmode: force\nmx: a.example\nmax_age: 1\n",
		"version: STSv1\nmode: enforce\nmx: a.example\nmax_age: soon\n", "version: STSv1\nmode: enforce\nmx: *\nmax_age: 1\n",
		"version: STSv1\nmode: enforce\nmx: a.*.example\nmax_age: 1\n", "version: STSv1\nmode: enforce\nmx:\nmax_age: 1\n",
		"mode: none\nmax_age: 1\n" };
	struct mta_sts_policy p;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(mta_sts_parse(span_str(bad[i]), &p), ST_INVALID);
}

static void names(void **state)
{
	struct mta_sts_policy p;

	assert_ok(mta_sts_parse(SPAN("version: STSv1\nmode: enforce\nmx: MAIL.one.example\nmx: *.two.example\nmax_age: 1\n"), &p));
	assert_true(mta_sts_matches(&p, SPAN("mail.one.example")));
	assert_true(mta_sts_matches(&p, SPAN("mail.one.example.")));
	assert_true(mta_sts_matches(&p, SPAN("a.TWO.example")));
	assert_false(mta_sts_matches(&p, SPAN("a.b.two.example")));
	assert_false(mta_sts_matches(&p, SPAN("two.example")));
	assert_false(mta_sts_matches(&p, SPAN("one.example")));
	assert_false(mta_sts_matches(&p, SPAN("xmail.one.example")));
	assert_false(mta_sts_matches(&p, SPAN("")));
}

static void normal_form(void **state)
{
	char buf[MTA_STS_WRITTEN_MAX];
	struct out o = out_of(buf, sizeof(buf));
	struct mta_sts_policy p;

	assert_ok(mta_sts_parse(SPAN(GOOD), &p));
	mta_sts_write(&p, &o);
	assert_span(out_span(&o), "version: STSv1\nmode: enforce\nmx: mail.cam.example\nmx: *.cam.example\nmax_age: 604800\n");
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(records), cmocka_unit_test(policies), cmocka_unit_test(bad_policies),
		cmocka_unit_test(names), cmocka_unit_test(normal_form) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
