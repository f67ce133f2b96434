/* Names of addresses (A2): the question's name, and what is taken from an answer. */
#include "tests/support/unit.h"

#include <stdlib.h>
#include "dataplane/lookup/answer.h"
#include "spool/mail/address.h"

static void reverse_names(void **state)
{
	static const char *const want[][2] = { { "192.0.2.7", "7.2.0.192.in-addr.arpa" },
		{ "2001:db8::1", "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa" } };

	for (size_t i = 0; i < 2; i++) {
		char buf[80];
		struct out o = out_of(buf, sizeof(buf));
		uint8_t ip[16];

		assert_ok(ip_parse(span_str(want[i][0]), ip));
		answer_reverse_name(ip, &o);
		assert_false(o.over);
		assert_span(out_span(&o), want[i][1]);
	}
}

/* One question, then records; each is "\xc0\x0c", type PTR, class IN, TTL, its length and name. */
#define HEAD(n) "\0\0\x81\x80\0\1\0" n "\0\0\0\0\1a\4arpa\0\0\x0c\0\1"
#define PTR(len, name) "\xc0\x0c\0\x0c\0\1\0\0\0\x3c\0" len name

static void names_of_hosts_are_taken(void **state)
{
	static const char message[] = HEAD("\7") PTR("\x0b", "\4Good\4Host\0") /* in look-up form */
		PTR("\x06", "\4a_b!\0")          /* not a host name */
		PTR("\x02", "\xc0\x52")          /* a pointer to itself: the record's data is at 0x52 */
		PTR("\x01", "\0")                /* the root */
		PTR("\x06", "\4a\0bc\0")         /* NUL */
		PTR("\x04", "\2xy\0")
		"\xc0\x0c\0\5\0\1\0\0\0\x3c\0\2\xc0\x0c"; /* a CNAME */
	struct dns_answer *a = calloc(1, sizeof(*a));

	a->refs = 1;
	answer_take_ptr(a, span_of(message, sizeof(message) - 1));
	assert_int_equal(a->nrr, 2);
	assert_span(a->rr[0], "good.host");
	assert_span(a->rr[1], "xy");
	dns_answer_release(a);
}

static void there_is_an_end_to_names_and_cut_answers(void **state)
{
	static const char one[] = PTR("\x04", "\2xy\0");
	char message[2048];
	struct out o = out_of(message, sizeof(message));

	out_add(&o, span_of(HEAD("\x40"), sizeof(HEAD("\x40")) - 1));
	for (int i = 0; i < 64; i++)
		out_add(&o, span_of(one, sizeof(one) - 1));
	for (size_t n = 0; n <= o.n; n++) {
		struct dns_answer *a = calloc(1, sizeof(*a));

		a->refs = 1;
		answer_take_ptr(a, span_of(message, n));
		assert_in_range(a->nrr, 0, DNS_PTR_USED);
		if (n == o.n)
			assert_int_equal(a->nrr, DNS_PTR_USED);
		dns_answer_release(a);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reverse_names),
		cmocka_unit_test(names_of_hosts_are_taken),
		cmocka_unit_test(there_is_an_end_to_names_and_cut_answers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
