/* F4: every combination of facts, by the rules that must hold for it. */
#include "tests/support/unit.h"

#include "dataplane/policy/tls_policy.h"

typedef void check_fn(const struct tls_facts *f, const struct tls_decision *d);

static void each(check_fn *check)
{
	for (int c = SNAP_TLS_NEVER; c <= SNAP_TLS_VERIFY; c++)
		for (int t = TLS_TLSA_NONE; t <= TLS_TLSA_FAILED; t++)
			for (int s = TLS_STS_NONE; s <= TLS_STS_ENFORCE; s++)
				for (int n = 0; n < 2; n++) {
					struct tls_facts f = { (enum snap_tls)c, (enum tls_tlsa)t, (enum tls_sts)s, n, SPAN("mx.cam.example") };
					struct tls_decision d = tls_policy(&f);

					assert_non_null(d.name);
					assert_int_equal(d.refuse, d.reply.code == 451);
					check(&f, &d);
				}
}

static void never_means_never(const struct tls_facts *f, const struct tls_decision *d)
{
	if (f->configured == SNAP_TLS_NEVER)
		assert_true(d->level == TLS_LEVEL_NEVER && !d->refuse && !d->trial);
}

static void dane_comes_first(const struct tls_facts *f, const struct tls_decision *d)
{
	if (f->configured == SNAP_TLS_NEVER)
		return;
	assert_int_equal(d->level == TLS_LEVEL_DANE, f->tlsa == TLS_TLSA_USABLE || f->tlsa == TLS_TLSA_FAILED);
	if (f->tlsa == TLS_TLSA_USABLE)
		assert_false(d->refuse);
	if (f->tlsa == TLS_TLSA_FAILED)
		assert_true(d->refuse);
}

static void unusable_records_make_it_mandatory(const struct tls_facts *f, const struct tls_decision *d)
{
	if (f->configured != SNAP_TLS_NEVER && f->tlsa == TLS_TLSA_UNUSABLE)
		assert_true(d->level >= TLS_LEVEL_MUST);
}

static void sts_is_enforced_and_tested(const struct tls_facts *f, const struct tls_decision *d)
{
	if (f->configured == SNAP_TLS_NEVER || f->tlsa == TLS_TLSA_USABLE || f->tlsa == TLS_TLSA_FAILED)
		return;
	if (f->sts == TLS_STS_ENFORCE) {
		assert_int_equal(d->level, TLS_LEVEL_VERIFY);
		assert_int_equal(d->refuse, !f->sts_names_host);
		assert_int_equal(d->origin, TLS_BY_STS);
	} else {
		assert_false(d->refuse);
	}
	if (d->trial)
		assert_int_equal(f->sts, TLS_STS_TESTING);
}

static void never_weaker_than_configured(const struct tls_facts *f, const struct tls_decision *d)
{
	static const enum tls_level least[] = { TLS_LEVEL_NEVER, TLS_LEVEL_MAY, TLS_LEVEL_MUST, TLS_LEVEL_VERIFY };

	assert_true(d->level >= least[f->configured]);
}

static void f4_all_combinations(void **state)
{
	each(never_means_never);
	each(dane_comes_first);
	each(unusable_records_make_it_mandatory);
	each(sts_is_enforced_and_tested);
	each(never_weaker_than_configured);
}

static void f4_names_for_the_log(void **state)
{
	struct tls_facts f = { .configured = SNAP_TLS_MAY, .host = SPAN("mx") };

	assert_string_equal(tls_policy(&f).name, "may");
	f.sts = TLS_STS_TESTING;
	assert_string_equal(tls_policy(&f).name, "mta-sts-testing");
	assert_true(tls_policy(&f).trial && tls_policy(&f).level == TLS_LEVEL_MAY);
	f.tlsa = TLS_TLSA_UNUSABLE;
	assert_string_equal(tls_policy(&f).name, "dane-unusable");
	f.tlsa = TLS_TLSA_USABLE;
	assert_string_equal(tls_policy(&f).name, "dane");
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(f4_all_combinations), cmocka_unit_test(f4_names_for_the_log) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
