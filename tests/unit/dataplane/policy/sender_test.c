#include "tests/support/tables_fixture.h"

#include "dataplane/policy/policy.h"

static const char config[] = "local_domains: [cam.example]\n"
			     "mail_domains:\n"
			     "  - {domain: dept.example, aliases: dept}\n"
			     "  - {domain: long.example, long_form_of: dept.example}\n"
			     "auth:\n"
			     "  senders: [{user: web, senders: [Web@cam.example, \"@news.example\"]}]\n";

static struct fixture x;

static int begin(void **state)
{
	fixture_begin(&x);
	fixture_file(&x, "dept", "bob: bob@cam.example\n");
	if (!fixture_compile(&x, config))
		fail_msg("%s", x.errors);
	return 0;
}

static int end(void **state)
{
	fixture_end(&x);
	return 0;
}

static bool may(const char *user, const char *sender)
{
	struct policy_facts f = { .snap = &x.snap, .tables = &x.tables, .auth_user = span_str(user) };
	struct address a = { 0 };

	if (*sender)
		assert_ok(address_parse(span_str(sender), 0, &a));
	return policy_sender(&f, &a).accept;
}

static void a_user_sends_as_any_of_our_domains(void **state)
{
	assert_true(may("bob", "bob@cam.example"));
	assert_true(may("bob", "bob@Dept.Example"));
	assert_true(may("bob", "bob@long.example"));
	assert_true(may("bob", "")); /* notifications */
	assert_false(may("bob", "bob@other.example"));
	assert_false(may("bob", "bob@sub.dept.example"));
	assert_false(may("bob", "bob@[192.0.2.1]"));
}

static void a_user_with_senders_has_only_these(void **state)
{
	assert_true(may("web", "web@CAM.example"));
	assert_true(may("web", "any@news.example"));
	assert_false(may("web", "bob@cam.example"));
	assert_false(may("web", "bob@dept.example"));
}

static void who_did_not_log_in_sends_as_anybody(void **state)
{
	assert_true(may("", "bob@other.example"));
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(a_user_sends_as_any_of_our_domains),
		cmocka_unit_test(a_user_with_senders_has_only_these), cmocka_unit_test(who_did_not_log_in_sends_as_anybody) };

	return cmocka_run_group_tests(tests, begin, end);
}
