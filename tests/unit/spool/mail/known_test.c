/* B2: what is known of an address, as nodes share it. */
#include "tests/support/unit.h"

#include "spool/mail/known.h"

static struct span write(const struct known *k, char buf[KNOWN_MAX])
{
	struct out o = out_of(buf, KNOWN_MAX);

	known_write(k, &o);
	assert_false(o.over);
	return out_span(&o);
}

static void there_and_back(void **state)
{
	char buf[KNOWN_MAX];
	struct known k = { .kind = KNOWN_NO, .at_ms = 1732186000000 }, got;

	reply_set(&k.reply, 550, "5.1.1", "no such user\nask postmaster");
	assert_span(write(&k, buf), "W1 no 1732186000000 0 550 5.1.1 no such user\nask postmaster");
	assert_ok(known_parse(write(&k, buf), &got));
	assert_int_equal(got.kind, KNOWN_NO);
	assert_int_equal(got.at_ms, k.at_ms);
	assert_int_equal(got.reply.code, 550);
	assert_int_equal(got.reply.enhanced[1], 1);
	assert_span(reply_text(&got.reply), "no such user\nask postmaster");
	k = (struct known){ .kind = KNOWN_YES, .at_ms = 5 };
	assert_span(write(&k, buf), "W1 yes 5 0 0");
	k.tried_ms = 7;
	reply_set(&k.reply, 451, NULL, "later");
	assert_span(write(&k, buf), "W1 yes 5 7 451 - later");
	assert_ok(known_parse(write(&k, buf), &got));
	assert_int_equal(got.tried_ms, 7);
	assert_int_equal(got.reply.enhanced[0], 0);
}

/* Whatever a remote says, its record fits and is understood (P11). */
static void long_text_is_cut(void **state)
{
	struct known k = { .kind = KNOWN_NO, .at_ms = 4102444800000ull, .tried_ms = 0 }, got;
	char buf[KNOWN_MAX], text[REPLY_TEXT_MAX];

	memset(text, 'x', sizeof(text));
	k.reply.code = 599;
	reply_add_line(&k.reply, SPAN("5.255.255 begin\x01\xff"), true);
	reply_add_line(&k.reply, span_of(text, sizeof(text)), false);
	assert_ok(known_parse(write(&k, buf), &got));
	assert_int_equal(got.reply.text_len, KNOWN_TEXT_MAX);
	assert_memory_equal(got.reply.text, "begin??\nxxx", 11);
}

static void strange_records_are_nothing(void **state)
{
	static const char *const bad[] = { "", " ", "W", "W1", "W1 ", "W1 yes", "W1 yes 1", "W1 yes 1 0", "W1 yes 1 0 ", "W1 yes 0 0 0", "W1 yes 1 0 0 ", "W1 yes 1 0 0 x",
		"W1 YES 1 0 0", "W1 maybe 1 0 0", "W1 yes -1 0 0", "W1 yes 4102444800001 0 0", "W1 yes 18446744073709551617 0 0", "W1 yes 1 2 0", "W1 yes 1 0 451 - x",
		"W1 yes 1 2 550 5.1.1 x", "W1 no 1 0 0", "W1 no 1 0 250 2.1.5 x", "W1 no 1 0 450 4.2.0 x", "W1 no 1 0 600 - x", "W1 no 1 0 550", "W1 no 1 0 550 5.1.1",
		"W1 no 1 0 550 5.1 x", "W1 no 1 0 550 4.1.1 x", "W1 no 1 0 550 5.1.1x x", "W1 no 1 0 550 5.1.1 a\tb", "W1 no 1 0 550 5.1.1 a\rb", "W1 no 1 0 550 5.1.1 \xc3\xa4",
		"W1 all 1 1 0", "W1 forget 0 0 0", "W1 nothing 0 0 0", "W1 nothing 0 1 550 5.1.1 x", "w1 yes 1 0 0", "GET / HTTP/1.1" };
	struct known k;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		if (known_parse(span_str(bad[i]), &k) != ST_CORRUPT)
			fail_msg("\"%s\" is believed", bad[i]);
		assert_int_equal(k.kind, KNOWN_NOTHING);
	}
	assert_int_equal(known_parse(SPAN("W2 yes 1 0 0"), &k), ST_UNSUPPORTED);
	assert_int_equal(known_parse(SPAN("W1 no 1 0 550 5.1.1 a\0b"), &k), ST_CORRUPT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(there_and_back),
		cmocka_unit_test(long_text_is_cut),
		cmocka_unit_test(strange_records_are_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
