/* The walk over a DNS message, and what of TLSA records is usable. */
#include "tests/support/unit.h"

#include "dataplane/lookup/rr.h"
#include "dataplane/lookup/tlsa.h"

/* AD set; one question; a CNAME by pointer, a TXT of two strings in another class's place, a TXT. */
static const char message[] = "\x12\x34\x81\xa0\0\1\0\3\0\0\0\0"
			      "\1a\7example\0\0\x10\0\1"
			      "\xc0\x0c\0\5\0\1\0\0\1\0\0\4\1b\xc0\x0e"
			      "\xc0\x0c\0\x10\0\3\0\0\0\1\0\2\1x"
			      "\1b\xc0\x0e\0\x10\0\1\0\0\0\x3c\0\6\2hi\2!!";

static void walk(void **state)
{
	struct span m = span_of(message, sizeof(message) - 1);
	struct rr_walk w;
	struct rr rr;
	char buf[16];
	struct out o = out_of(buf, sizeof(buf));

	assert_true(rr_authentic(m));
	assert_int_equal(rr_rcode(m), 0);
	assert_int_equal(rr_count(m), 3);
	rr_begin(&w, m);
	assert_true(rr_next(&w, &rr));
	assert_int_equal(rr.type, 5);
	assert_int_equal(rr.ttl_s, 256);
	assert_true(rr_next(&w, &rr)); /* the one of class 3 is passed over */
	assert_int_equal(rr.type, 16);
	assert_int_equal(rr.ttl_s, 60);
	rr_txt(rr.data, &o);
	assert_span(out_span(&o), "hi!!");
	assert_false(rr_next(&w, &rr));
}

static void cut_messages_end(void **state)
{
	for (size_t n = 0; n < sizeof(message); n++) {
		struct rr_walk w;
		struct rr rr;
		int found = 0;

		rr_begin(&w, span_of(message, n));
		while (rr_next(&w, &rr))
			found++;
		assert_in_range(found, 0, 2);
	}
	assert_int_equal(rr_rcode(SPAN("short")), 2);
	assert_false(rr_authentic(SPAN("short")));
}

static char digest[2][67] = { { 3, 1, 1 }, { 2, 0, 2 } };

static void tlsa_records(void **state)
{
	struct tlsa t;
	char buf[200];
	struct out o = out_of(buf, sizeof(buf));

	assert_true(tlsa_parse(span_of(digest[0], 35), &t));
	assert_int_equal(t.usage, TLSA_DANE_EE);
	tlsa_write(&t, &o);
	assert_span(out_span(&o), "3 1 1 0000000000000000000000000000000000000000000000000000000000000000");
	assert_false(tlsa_parse(span_of(digest[0], 34), &t));
	assert_false(tlsa_parse(span_of(digest[0], 36), &t));
	assert_true(tlsa_parse(span_of(digest[1], 67), &t));
	assert_false(tlsa_parse(SPAN("\1\0\0x"), &t)); /* PKIX-EE */
	assert_false(tlsa_parse(SPAN("\3\2\0x"), &t));
	assert_false(tlsa_parse(SPAN("\3\1\3x"), &t));
	assert_false(tlsa_parse(SPAN("\3\1\0"), &t));
	assert_true(tlsa_parse(SPAN("\2\0\0x"), &t));
}

static void tlsa_states(void **state)
{
	struct span bad = SPAN("\1\0\0x"), rr[2] = { bad, span_of(digest[0], 35) };
	struct dns_answer a = { .result = DNS_FOUND, .secure = true, .nrr = 2, .rr = rr };
	struct tlsa_set set;

	tlsa_read(&a, &set);
	assert_int_equal(set.state, TLSA_USABLE);
	assert_int_equal(set.n, 1);
	a.nrr = 1;
	tlsa_read(&a, &set);
	assert_int_equal(set.state, TLSA_UNUSABLE);
	a.secure = false;
	tlsa_read(&a, &set);
	assert_int_equal(set.state, TLSA_NONE);
	a.result = DNS_TEMPFAIL;
	tlsa_read(&a, &set);
	assert_int_equal(set.state, TLSA_FAILED);
	a.result = DNS_NODATA;
	tlsa_read(&a, &set);
	assert_int_equal(set.state, TLSA_NONE);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(walk), cmocka_unit_test(cut_messages_end), cmocka_unit_test(tlsa_records),
		cmocka_unit_test(tlsa_states) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
