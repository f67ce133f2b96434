/* Modes of rules for each class, and what class fragile is promised (D2, A5, A12). */
#include "tests/support/tables_fixture.h"

#include "dataplane/policy/policy.h"

static const char config[] = "local_domains: [cam.example]\n"
			     "relay_clients: [{network: 192.0.2.0/25, class: robust}, {network: 192.0.2.128/25, class: fragile}]\n"
			     "policy:\n"
			     "  help_url: \"https://help.cam.example/{code}.html\"\n"
			     "  rules:\n"
			     "    - {rule: rate, class: robust, mode: reject}\n"
			     "    - {rule: sender-domain, class: [mx, fragile], mode: defer}\n"
			     "    - {rule: header-from, mode: hold}\n"
			     "    - {rule: client-dns, class: mx, mode: tag}\n";

static struct fixture x;

static int begin(void **state)
{
	fixture_begin(&x);
	if (!fixture_compile(&x, config))
		fail_msg("%s", x.errors);
	return 0;
}

static int end(void **state)
{
	fixture_end(&x);
	return 0;
}

static struct policy_facts client(enum snap_class class)
{
	struct policy_facts f = { .snap = &x.snap, .tables = &x.tables };

	assert_ok(ip_parse(span_str(class == CLASS_ROBUST ? "192.0.2.1" : class == CLASS_FRAGILE ? "192.0.2.200" : "198.51.100.1"), f.client_ip));
	f.net = snap_find_net(&x.snap, f.client_ip);
	if (class == CLASS_SUBMISSION)
		f.auth_user = SPAN("bob");
	assert_int_equal(policy_class(&f), class);
	return f;
}

static struct decision finding(enum rule r, unsigned code, const char *enhanced)
{
	struct decision d = { .accept = false, .rule = r };

	reply_set(&d.reply, code, enhanced, "no");
	return d;
}

static void what_was_not_found_is_not_applied(void **state)
{
	struct policy_facts f = client(CLASS_MX);
	struct decision d = { .accept = true, .rule = RULE_RELAY_DENIED };

	assert_int_equal(policy_apply(&f, &d), POLICY_OFF);
	assert_true(d.accept);
}

static void a_mode_changes_the_reply(void **state)
{
	struct policy_facts robust = client(CLASS_ROBUST), mx = client(CLASS_MX);
	struct decision d = finding(RULE_RATE, 450, "4.7.1");
	char line[600];
	struct out o = out_of(line, sizeof(line));

	assert_int_equal(policy_apply(&robust, &d), POLICY_REJECT);
	assert_false(d.accept);
	reply_line(&d.reply, &o);
	assert_span(out_span(&o), "550 5.7.1 no [rate] https://help.cam.example/rate.html");
	d = finding(RULE_SENDER_DOMAIN, 550, "5.1.8");
	assert_int_equal(policy_apply(&mx, &d), POLICY_DEFER);
	assert_int_equal(d.reply.code, 450);
	assert_memory_equal(d.reply.enhanced, ((uint8_t[]){ 4, 1, 8 }), 3);
	d = finding(RULE_CLIENT_DNS, 550, "5.7.25");
	assert_int_equal(policy_apply(&mx, &d), POLICY_TAG);
	assert_true(d.accept);
	assert_int_equal(d.reply.code, 550); /* what it would have been */
	assert_int_equal(policy_line(&mx, RULE_CLIENT_DNS), 9);
	assert_int_equal(policy_line(&robust, RULE_CLIENT_DNS), 0);
}

static void what_is_undecided_is_never_permanent_and_never_held_against_anybody(void **state)
{
	struct policy_facts robust = client(CLASS_ROBUST), fragile = client(CLASS_FRAGILE);
	struct decision d = finding(RULE_SENDER_DOMAIN, 451, "4.4.3");

	d.undecided = true;
	assert_int_equal(policy_apply(&robust, &d), POLICY_REJECT);
	assert_int_equal(d.reply.code, 451);
	d = finding(RULE_HEADER_FROM, 451, "4.4.3");
	d.undecided = true;
	assert_int_equal(policy_apply(&robust, &d), POLICY_MONITOR);
	d = finding(RULE_SENDER_DOMAIN, 451, "4.4.3");
	d.undecided = true;
	assert_int_equal(policy_apply(&fragile, &d), POLICY_MONITOR);
	assert_true(d.accept);
}

/* A5 as a table: every rule, each class at its default and at its worst. */
static void class_fragile_is_refused_only_what_cannot_be_sorted_out_later(void **state)
{
	static const enum rule may_refuse[] = { RULE_RELAY_DENIED, RULE_ROUTE_SIZE, RULE_TABLES_MISSING, RULE_NO_ROOM };

	for (unsigned r = 0; r < RULE_NRULE; r++) {
		struct policy_facts f = client(CLASS_FRAGILE);
		bool may = false;

		for (size_t i = 0; i < sizeof(may_refuse) / sizeof(may_refuse[0]); i++)
			may = may || may_refuse[i] == r;
		for (unsigned mode = 0; mode < POLICY_NMODE; mode++) {
			struct snap_header h = *x.snap.h;
			struct snapshot s = { .h = &h };
			struct decision d = finding((enum rule)r, 550, "5.7.1");

			if (!(rule_row[r].allowed & 1u << mode))
				continue;
			h.settings.policy_mode[r][CLASS_FRAGILE] = (uint8_t)mode;
			h.settings.policy_help_url = (struct snap_str){ 0 };
			f.snap = &s;
			policy_apply(&f, &d);
			if (mode < POLICY_DEFER || !may)
				assert_true(d.accept);
			else
				assert_false(d.accept);
		}
	}
}

static void defaults_are_allowed_and_codes_are_found(void **state)
{
	unsigned found = 0;

	for (unsigned r = 0; r < RULE_NRULE; r++) {
		for (unsigned c = 0; c < CLASS_NCLASS; c++)
			assert_true(rule_row[r].allowed & 1u << rule_row[r].mode[c]);
		assert_int_equal(rule_find(span_str(rule_row[r].name)), r);
		found += rule_is_meant((enum rule)r, SPAN("4.1.8"));
	}
	assert_int_equal(found, 3); /* those that answer 5.1.8, when they only defer */
	assert_true(rule_is_meant(RULE_CLIENT_DNS, SPAN("a2")));
	assert_false(rule_is_meant(RULE_CLIENT_DNS, SPAN("5.7.2")));
	assert_int_equal(rule_find(SPAN("client")), RULE_NRULE);
}

static void long_texts_leave_room_for_the_help(void **state)
{
	struct decision d = { .accept = false, .rule = RULE_RELAY_DENIED };
	char line[600];
	struct out o = out_of(line, sizeof(line));
	char text[900];

	memset(text, 'x', sizeof(text));
	text[sizeof(text) - 1] = '\0';
	reply_set(&d.reply, 550, "5.7.1", "%s", text);
	policy_help(&x.snap, d.rule, &d.reply);
	reply_write(&d.reply, &o);
	assert_true(o.n <= 512);
	assert_true(span_ends_nocase(out_span(&o), SPAN("xx [relay-denied] https://help.cam.example/relay-denied.html\r\n")));
}

static void mistakes(void **state)
{
	static const struct {
		const char *text, *complaint;
	} bad[] = {
		{ "policy: {rules: [{rule: sender-doman, mode: tag}]}\n", "there is no rule \"sender-doman\"; there are relay-denied, client-dns," },
		{ "policy: {rules: [{rule: relay-denied, class: mx, mode: off}]}\n", "mode \"off\" is not possible for relay-denied; there is only reject" },
		{ "policy: {rules: [{rule: rate, mode: refuse}]}\n", "mode \"refuse\" is not possible for rate; there are off, monitor, tag, hold, defer, reject" },
		{ "policy: {rules: [{rule: rate, class: printer, mode: tag}]}\n", "class \"printer\" is not possible; write robust, fragile, submission or mx" },
		{ "policy: {rules: [{rule: rate, class: mx, mode: tag}, {rule: rate, mode: hold}]}\n", "rate has a mode for class mx already (line 1)" },
		{ "policy: {rules: [rate]}\n", "an entry is {rule: NAME, class: CLASS, mode: MODE}" },
		{ "policy: {rules: [{rule: rate, mod: tag, mode: tag}]}\n", "unknown key \"mod\"" },
		{ "policy: {help_url: \"help me\"}\n", "policy.help_url: \"help me\" is not a page; write for example https://help.cam.example/mail/{code}" },
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct fixture y;

		fixture_begin(&y);
		assert_false(fixture_compile(&y, bad[i].text));
		if (!strstr(y.errors, bad[i].complaint))
			fail_msg("%s: %s", bad[i].text, y.errors);
		fixture_end(&y);
	}
}

/* B4: mail for postmaster alone is not refused for its client, its sender or its header; the rest of the rules hold. */
static void postmaster_is_reached(void **state)
{
	static const struct {
		enum rule r;
		enum policy_mode mode;
	} want[] = { { RULE_CLIENT_DNS, POLICY_TAG }, { RULE_SENDER_DOMAIN, POLICY_TAG }, { RULE_SENDER_HOST_NAME, POLICY_TAG }, { RULE_SENDER_UNKNOWN, POLICY_TAG },
		{ RULE_HEADER_FROM, POLICY_TAG }, { RULE_MALWARE, POLICY_HOLD }, { RULE_RELAY_DENIED, POLICY_REJECT }, { RULE_SENDER_OWNER, POLICY_REJECT },
		{ RULE_MAIL_LOOP, POLICY_REJECT }, { RULE_ROUTE_SIZE, POLICY_REJECT }, { RULE_UNSCANNED, POLICY_DEFER } };
	struct policy_facts f = client(CLASS_ROBUST), fragile = client(CLASS_FRAGILE);

	f.to_postmaster = fragile.to_postmaster = true;
	for (size_t i = 0; i < sizeof(want) / sizeof(want[0]); i++)
		assert_int_equal(policy_mode(&f, want[i].r), want[i].mode);
	assert_int_equal(policy_mode(&fragile, RULE_SENDER_DOMAIN), POLICY_TAG); /* configured as defer, which is hold for others */
	assert_int_equal(policy_mode(&fragile, RULE_SENDER_UNKNOWN), POLICY_MONITOR);
	f = client(CLASS_MX);
	f.to_postmaster = true;
	assert_int_equal(policy_mode(&f, RULE_DICTIONARY), POLICY_MONITOR);
	assert_int_equal(policy_mode(&f, RULE_RATE), POLICY_OFF);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(postmaster_is_reached),
		cmocka_unit_test(what_was_not_found_is_not_applied),
		cmocka_unit_test(a_mode_changes_the_reply),
		cmocka_unit_test(what_is_undecided_is_never_permanent_and_never_held_against_anybody),
		cmocka_unit_test(class_fragile_is_refused_only_what_cannot_be_sorted_out_later),
		cmocka_unit_test(defaults_are_allowed_and_codes_are_found),
		cmocka_unit_test(long_texts_leave_room_for_the_help),
		cmocka_unit_test(mistakes),
	};

	return cmocka_run_group_tests(tests, begin, end);
}
