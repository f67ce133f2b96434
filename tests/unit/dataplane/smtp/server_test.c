#include "tests/support/unit.h"

#include "dataplane/smtp/server.h"

static struct smtp_server s;

static enum server_action say(const char *line)
{
	size_t used;
	enum server_action act;
	struct span in = span_str(line);

	smtp_server_sent(&s, smtp_server_output(&s).n);
	do {
		act = smtp_server_step(&s, in, &used);
		in = span_skip(in, used);
	} while (act == SRV_STEP && in.n);
	return act;
}

static void ok(unsigned code)
{
	struct reply r;

	reply_set(&r, code, code < 300 ? "2.0.0" : NULL, "x");
	smtp_server_reply(&s, &r);
}

static void begin(const struct smtp_server_config *cfg)
{
	smtp_server_init(&s, cfg);
	say("EHLO client.test\r\n");
	assert_int_equal(say("MAIL FROM:<s@x.example>\r\n"), SRV_MAIL);
	ok(250);
}

static void a_recipient_is_replaced_by_others(void **state)
{
	const struct smtp_server_config cfg = { .hostname = SPAN("relay.test"), .rcpt_max = 3, .transaction_max = 1 << 20 };
	const struct span two[] = { SPAN("a@y.example"), SPAN("b@y.example") };
	struct span many[100];

	begin(&cfg);
	assert_int_equal(say("RCPT TO:<List@x.example> NOTIFY=FAILURE\r\n"), SRV_RCPT);
	assert_true(smtp_server_rcpt_replace(&s, two, 2));
	ok(250);
	assert_int_equal(s.env.nrcpt, 2);
	assert_span(s.env.rcpt[1].addr, "b@y.example");
	assert_span(s.env.rcpt[1].orcpt, "rfc822;List@x.example");
	assert_int_equal(s.env.rcpt[0].notify, NOTIFY_FAILURE);
	assert_int_equal(say("RCPT TO:<other@x.example> ORCPT=rfc822;first@z.example\r\n"), SRV_RCPT);
	for (int i = 0; i < 100; i++)
		many[i] = SPAN("c@y.example");
	assert_true(smtp_server_rcpt_replace(&s, many, 100));
	ok(250);
	assert_int_equal(s.env.nrcpt, 102);
	assert_span(s.env.rcpt[0].addr, "a@y.example");
	assert_span(s.env.rcpt[101].orcpt, "rfc822;first@z.example");
	/* all of it is there already */
	assert_int_equal(say("RCPT TO:<again@x.example>\r\n"), SRV_RCPT);
	assert_true(smtp_server_rcpt_replace(&s, NULL, 0));
	ok(250);
	assert_int_equal(s.env.nrcpt, 102);
	/* the limit counts what the client said, not what came of it */
	assert_int_equal(say("RCPT TO:<fourth@x.example>\r\n"), SRV_STEP);
	assert_memory_equal(smtp_server_output(&s).p, "452 4.5.3", 9);
	assert_int_equal(say("DATA\r\n"), SRV_DATA);
	smtp_server_done(&s);
}

static void without_room_the_envelope_stays_as_it_was(void **state)
{
	const struct smtp_server_config cfg = { .hostname = SPAN("relay.test"), .transaction_max = 4096 };
	struct span many[200];

	begin(&cfg);
	assert_int_equal(say("RCPT TO:<one@x.example>\r\n"), SRV_RCPT);
	ok(250);
	assert_int_equal(say("RCPT TO:<list@x.example>\r\n"), SRV_RCPT);
	for (int i = 0; i < 200; i++)
		many[i] = SPAN("c@y.example");
	assert_false(smtp_server_rcpt_replace(&s, many, 200));
	assert_span(s.env.rcpt[1].addr, "list@x.example");
	smtp_server_reply(&s, &(struct reply){ .code = 452 });
	assert_int_equal(s.env.nrcpt, 1);
	assert_span(s.env.rcpt[0].addr, "one@x.example");
	smtp_server_done(&s);
}

static void a_recipient_that_is_not_ascii_gets_no_orcpt(void **state)
{
	const struct smtp_server_config cfg = { .hostname = SPAN("relay.test"), .transaction_max = 1 << 20 };

	smtp_server_init(&s, &cfg);
	say("EHLO client.test\r\n");
	assert_int_equal(say("MAIL FROM:<s@x.example> SMTPUTF8\r\n"), SRV_MAIL);
	ok(250);
	assert_int_equal(say("RCPT TO:<\xc3\xa9@x.example>\r\n"), SRV_RCPT);
	assert_true(smtp_server_rcpt_replace(&s, &SPAN("a@y.example"), 1));
	assert_int_equal(s.env.rcpt[0].orcpt.n, 0);
	smtp_server_done(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_recipient_is_replaced_by_others),
		cmocka_unit_test(without_room_the_envelope_stays_as_it_was),
		cmocka_unit_test(a_recipient_that_is_not_ascii_gets_no_orcpt),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
