/* Senders that can be answered, from facts alone (A6). */
#include "tests/support/tables_fixture.h"

#include "dataplane/policy/policy.h"

static const char config[] = "local_domains: [cam.example]\n"
			     "mail_domains: [{domain: dept.example, aliases: dept}, {domain: old.example, retired: closed}]\n"
			     "routes: [{domain: .routed.example, to: \"smtp:in.cam.example:25\"}, {domain: partner.example, to: \"smtp:p.example:25\"}, {domain: \"*\", to: mx}]\n";

static struct fixture x;
static struct policy_facts f;

static int begin(void **state)
{
	fixture_begin(&x);
	fixture_file(&x, "dept", "bob: bob@cam.example\n");
	if (!fixture_compile(&x, config))
		fail_msg("%s", x.errors);
	f = (struct policy_facts){ .snap = &x.snap, .tables = &x.tables };
	return 0;
}

static int end(void **state)
{
	fixture_end(&x);
	return 0;
}

static void domains_that_are_ours(void **state)
{
	static const char *const own[] = { "cam.example", "pc.cam.example", "a.b.cam.example", "dept.example", "x.old.example", "routed.example", "x.routed.example" };
	static const char *const others[] = { "example", "xcam.example", "partner.example", "cam.example.org", "" };

	for (size_t i = 0; i < sizeof(own) / sizeof(own[0]); i++)
		assert_true(policy_is_own(&f, span_str(own[i])));
	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
		assert_false(policy_is_own(&f, span_str(others[i])));
}

/* The reply's first words; "" when it is accepted. */
static const char *answer(const char *sender, enum domain_is is, enum fact_exists known)
{
	static char text[64];
	char key[ADDRESS_DOMAIN_MAX + 1], code[12];
	struct out k = out_of(key, sizeof(key));
	struct fact_domain domain = { .is = is, .why = "server failure" };
	struct address a = { 0 };
	struct decision d;

	if (*sender)
		assert_ok(address_parse(span_str(sender), 0, &a));
	if (policy_sender_asks(&a, &k))
		domain.name = out_span(&k);
	f.sender_domain = domain.name.n ? &domain : NULL;
	f.sender_known = known;
	d = policy_sender_domain(&f, &a);
	if (d.accept)
		d = policy_sender_exists(&f, &a);
	f.sender_domain = NULL;
	assert_true(d.accept || d.undecided == (is == DOMAIN_IS_UNDECIDED && *sender));
	if (d.accept)
		return "";
	assert_true(rule_is_meant(d.rule, span_str(reply_status(&d.reply, code)))); /* the table has it */
	snprintf(text, sizeof(text), "%s %u %s", rule_row[d.rule].name, d.reply.code, code);
	return text;
}

static void every_fact_has_its_answer(void **state)
{
	assert_string_equal(answer("", DOMAIN_IS_MISSING, EXISTS_UNASKED), "");
	assert_string_equal(answer("a@cam.example", DOMAIN_IS_MX, EXISTS_UNKNOWN), "");
	assert_string_equal(answer("a@pc.cam.example", DOMAIN_IS_ADDRESS, EXISTS_UNKNOWN), "sender-host-name 550 5.1.8");
	assert_string_equal(answer("a@pc.cam.example", DOMAIN_IS_EMPTY, EXISTS_UNKNOWN), "sender-domain 550 5.1.8");
	assert_string_equal(answer("a@x.org", DOMAIN_IS_ADDRESS, EXISTS_UNKNOWN), "");
	assert_string_equal(answer("a@x.org", DOMAIN_IS_EMPTY, EXISTS_UNKNOWN), "sender-domain 550 5.1.8");
	assert_string_equal(answer("a@x.org", DOMAIN_IS_MISSING, EXISTS_UNKNOWN), "sender-domain 550 5.1.8");
	assert_string_equal(answer("a@x.org", DOMAIN_IS_NULL_MX, EXISTS_UNKNOWN), "sender-domain 550 5.7.27");
	assert_string_equal(answer("a@x.org", DOMAIN_IS_UNDECIDED, EXISTS_UNKNOWN), "sender-domain 451 4.4.3");
	assert_string_equal(answer("a@x.org", DOMAIN_IS_UNASKED, EXISTS_UNASKED), "");
	assert_string_equal(answer("a@x", DOMAIN_IS_MX, EXISTS_UNKNOWN), "sender-domain 550 5.1.8");
	assert_string_equal(answer("a@[192.0.2.1]", DOMAIN_IS_MX, EXISTS_UNKNOWN), "sender-domain 550 5.1.8");
	assert_string_equal(answer("alice@dept.example", DOMAIN_IS_MX, EXISTS_NO), "sender-unknown 550 5.1.7");
	assert_string_equal(answer("alice@dept.example", DOMAIN_IS_MX, EXISTS_YES), "");
}

static char asked[400]; /* whom to ask for the last one */

static enum fact_exists known(const char *text)
{
	struct span ask;
	enum fact_exists k;
	struct address a;
	struct pool work;

	assert_ok(address_parse(span_str(text), ADDRESS_ALLOW_BARE, &a));
	pool_init(&work, 1 << 20);
	k = policy_known(&f, &a, &work, &ask);
	snprintf(asked, sizeof(asked), "%.*s", SPAN_FMT(ask));
	pool_reset(&work);
	return k;
}

static void what_the_tables_know(void **state)
{
	assert_int_equal(known("Bob@Dept.Example"), EXISTS_YES);
	assert_string_equal(asked, "bob@cam.example"); /* as at RCPT */
	assert_int_equal(known("postmaster@dept.example"), EXISTS_YES); /* B4 */
	assert_int_equal(known("alice@dept.example"), EXISTS_NO);
	assert_string_equal(asked, "");
	assert_int_equal(known("bob@old.example"), EXISTS_NO);
	assert_int_equal(known("a@cam.example"), EXISTS_UNKNOWN); /* for whoever asks the destination */
	assert_string_equal(asked, "a@cam.example");
	assert_int_equal(known("a@x.org"), EXISTS_UNKNOWN);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(domains_that_are_ours),
		cmocka_unit_test(every_fact_has_its_answer),
		cmocka_unit_test(what_the_tables_know),
	};

	return cmocka_run_group_tests(tests, begin, end);
}
