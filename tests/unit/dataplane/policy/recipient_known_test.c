/* B2: what is known, for how long, and what is learnt from a destination's answers. */
#include "tests/support/unit.h"

#include "dataplane/policy/recipient_known.h"
#include "spool/base/clock.h"

#define HOUR (3600 * NS_PER_S)
#define NOW 3600000000ull

static const struct snap_settings set = { .verify_address_yes_ns = 24 * HOUR, .verify_address_no_ns = 2 * HOUR, .verify_domain_yes_ns = 168 * HOUR,
	.verify_domain_no_ns = 3 * HOUR, .verify_retry_ns = 60 * NS_PER_S };

static struct known ago(enum known_kind kind, uint64_t hours)
{
	struct known k = { .kind = kind, .at_ms = (uint64_t)NOW - hours * 3600 * 1000 };

	if (kind == KNOWN_NOTHING)
		k.at_ms = 0;
	if (kind == KNOWN_NO || kind == KNOWN_MUTE)
		reply_set(&k.reply, 550, "5.1.1", "said so");
	return k;
}

static enum recipient_say ask(struct known addr, struct known domain, struct known forget)
{
	struct recipient_facts f = { &set, &addr, &domain, &forget, NOW };
	const struct reply *r;
	const char *why = NULL;
	enum recipient_say say = recipient_known(&f, &r, &why);

	assert_non_null(why);
	if (say == RECIPIENT_NO)
		assert_true(reply_is_permanent(r));
	if (say == RECIPIENT_UNKNOWN)
		assert_true(reply_is_temporary(r));
	return say;
}

static const struct known nothing;

/* The times of B2: address yes 24 h, no 2 h, domain yes 7 d, no 3 h. */
static void the_times(void **state)
{
	static const struct {
		enum known_kind addr, domain;
		uint64_t hours;
		enum recipient_say before, after;
	} row[] = {
		{ KNOWN_YES, KNOWN_NOTHING, 24, RECIPIENT_YES, RECIPIENT_ASK },
		{ KNOWN_NO, KNOWN_NOTHING, 2, RECIPIENT_NO, RECIPIENT_ASK },
		{ KNOWN_NOTHING, KNOWN_ALL, 168, RECIPIENT_YES, RECIPIENT_ASK },
		{ KNOWN_NOTHING, KNOWN_NO, 3, RECIPIENT_NO, RECIPIENT_ASK },
		{ KNOWN_NOTHING, KNOWN_MUTE, 3, RECIPIENT_YES, RECIPIENT_ASK },
		{ KNOWN_NOTHING, KNOWN_YES, 1, RECIPIENT_ASK, RECIPIENT_ASK },
	};

	for (size_t i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
		assert_int_equal(ask(ago(row[i].addr, row[i].hours - 1), ago(row[i].domain, row[i].hours - 1), nothing), row[i].before);
		assert_int_equal(ask(ago(row[i].addr, row[i].hours), ago(row[i].domain, row[i].hours), nothing), row[i].after);
		/* forgotten since */
		assert_int_equal(ask(ago(row[i].addr, 1), ago(row[i].domain, 1), ago(KNOWN_FORGET, 0)), RECIPIENT_ASK);
	}
	/* what a delivery has shown is more than what the whole domain is believed to do */
	assert_int_equal(ask(ago(KNOWN_NO, 1), ago(KNOWN_ALL, 1), nothing), RECIPIENT_NO);
	assert_int_equal(ask(ago(KNOWN_YES, 1), ago(KNOWN_NO, 1), nothing), RECIPIENT_NO);
}

static void learn(struct known *addr, struct known *domain, unsigned a, const char *ea, unsigned b, const char *eb, bool mail)
{
	struct reply ra = { 0 }, rb = { 0 }, lost;
	struct recipient_heard h = { .addr = &ra, .invented = &rb, .failure = &lost, .mail_refused = mail };
	bool wa, wd;

	reply_set(&lost, 451, "4.4.2", "lost");
	if (a)
		reply_set(&ra, a, ea, "a");
	if (b)
		reply_set(&rb, b, eb, "b");
	recipient_learn(&h, NOW, addr, domain, &wa, &wd);
	assert_true(wa || wd);
	assert_int_equal(wd, domain->kind != KNOWN_NOTHING);
}

static void what_answers_teach(void **state)
{
	static const struct {
		unsigned a, b;
		const char *ea, *eb;
		bool mail;
		enum known_kind addr, domain;
		enum recipient_say say;
	} row[] = {
		{ 250, 550, "2.1.5", "5.1.1", false, KNOWN_YES, KNOWN_YES, RECIPIENT_YES },
		{ 250, 250, "2.1.5", "2.1.5", false, KNOWN_YES, KNOWN_ALL, RECIPIENT_YES },
		{ 250, 450, "2.1.5", "4.2.0", false, KNOWN_YES, KNOWN_NOTHING, RECIPIENT_YES },
		{ 250, 0, "2.1.5", NULL, false, KNOWN_YES, KNOWN_NOTHING, RECIPIENT_YES },
		{ 550, 550, "5.1.1", "5.1.1", false, KNOWN_NO, KNOWN_YES, RECIPIENT_NO },
		{ 550, 550, "5.4.1", "5.4.1", false, KNOWN_NO, KNOWN_YES, RECIPIENT_NO },
		{ 550, 550, NULL, NULL, false, KNOWN_NO, KNOWN_YES, RECIPIENT_NO },
		{ 550, 250, "5.1.1", "2.1.5", false, KNOWN_NO, KNOWN_YES, RECIPIENT_NO },
		{ 550, 550, "5.1.2", "5.1.2", false, KNOWN_NO, KNOWN_NO, RECIPIENT_NO },
		{ 552, 550, "5.2.2", "5.1.1", false, KNOWN_NOTHING, KNOWN_YES, RECIPIENT_UNKNOWN }, /* full: it is there, but would bounce */
		{ 554, 554, "5.3.0", "5.3.0", false, KNOWN_NOTHING, KNOWN_NOTHING, RECIPIENT_UNKNOWN },
		{ 450, 450, "4.2.0", "4.2.0", false, KNOWN_NOTHING, KNOWN_NOTHING, RECIPIENT_UNKNOWN },
		{ 0, 0, NULL, NULL, false, KNOWN_NOTHING, KNOWN_NOTHING, RECIPIENT_UNKNOWN },
		{ 550, 550, "5.7.1", "5.7.1", true, KNOWN_NOTHING, KNOWN_MUTE, RECIPIENT_YES },
		{ 451, 451, "4.7.1", "4.7.1", true, KNOWN_NOTHING, KNOWN_NOTHING, RECIPIENT_UNKNOWN },
	};

	for (size_t i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
		struct known addr = { 0 }, domain = { 0 }, back;
		char buf[KNOWN_MAX];
		struct out o = out_of(buf, sizeof(buf));

		learn(&addr, &domain, row[i].a, row[i].ea, row[i].b, row[i].eb, row[i].mail);
		assert_int_equal(addr.kind, row[i].addr);
		assert_int_equal(domain.kind, row[i].domain);
		assert_int_equal(ask(addr, domain, nothing), row[i].say);
		/* what is learnt can be told to other nodes */
		if (addr.kind || addr.tried_ms) {
			known_write(&addr, &o);
			assert_ok(known_parse(out_span(&o), &back));
			assert_true(recipient_life_ns(&set, &addr, false, NOW) > 0);
		}
	}
}

/* An address that was good is good for as long as domain yes, while nothing clear is heard; after a refusal it is not. */
static void an_outage(void **state)
{
	struct known addr = ago(KNOWN_YES, 30), domain = { 0 };

	assert_int_equal(ask(addr, domain, nothing), RECIPIENT_ASK);
	learn(&addr, &domain, 0, NULL, 0, NULL, false);
	assert_int_equal(addr.kind, KNOWN_YES);
	assert_int_equal(ask(addr, domain, nothing), RECIPIENT_YES);
	assert_int_equal(ask(addr, domain, ago(KNOWN_FORGET, 0)), RECIPIENT_ASK);
	assert_true(recipient_life_ns(&set, &addr, false, NOW) == 138 * HOUR);
	learn(&addr, &domain, 550, "5.1.1", 0, NULL, false);
	assert_int_equal(ask(addr, domain, nothing), RECIPIENT_NO);
	addr = ago(KNOWN_YES, 168);
	learn(&addr, &domain, 421, "4.3.2", 0, NULL, false);
	assert_int_equal(ask(addr, domain, nothing), RECIPIENT_UNKNOWN);
}

static void the_destination_itself(void **state)
{
	struct known addr = ago(KNOWN_YES, 30), domain = { 0 };
	struct reply none = { 0 }, null_mx;
	bool wa, wd;

	reply_set(&null_mx, 556, "5.1.10", "null MX");
	recipient_learn(&(struct recipient_heard){ .addr = &none, .failure = &null_mx, .dest_refused = true }, NOW, &addr, &domain, &wa, &wd);
	assert_true(wd && !wa);
	assert_int_equal(ask(addr, domain, nothing), RECIPIENT_NO);
	assert_int_equal(domain.reply.code, 556);
}

static void deliveries(void **state)
{
	struct known k;
	struct reply r;

	reply_set(&r, 250, "2.0.0", "taken");
	assert_true(recipient_learn_delivery(&r, NOW, &k));
	assert_int_equal(k.kind, KNOWN_YES);
	reply_set(&r, 550, "5.1.1", "gone");
	assert_true(recipient_learn_delivery(&r, NOW, &k));
	assert_int_equal(k.kind, KNOWN_NO);
	for (unsigned i = 0; i < 4; i++) {
		static const char *const other[] = { "5.7.1", "5.2.2", "5.6.0", NULL };

		reply_set(&r, 550, other[i], "something else");
		assert_false(recipient_learn_delivery(&r, NOW, &k));
	}
	reply_set(&r, 450, "4.1.1", "later");
	assert_false(recipient_learn_delivery(&r, NOW, &k));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_times),
		cmocka_unit_test(what_answers_teach),
		cmocka_unit_test(an_outage),
		cmocka_unit_test(the_destination_itself),
		cmocka_unit_test(deliveries),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
