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

/* RFC 3207: what was said before the handshake goes before it, and in the clear. */
static void the_handshake_begins_when_the_220_was_taken(void **state)
{
	const struct smtp_server_config cfg = { .hostname = SPAN("relay.test"), .starttls = true };
	size_t used;

	smtp_server_init(&s, &cfg);
	assert_int_equal(say("EHLO client.test\r\n"), SRV_STEP);
	assert_int_equal(say("STARTTLS\r\n"), SRV_STEP);
	assert_int_equal(smtp_server_step(&s, SPAN_NONE, &used), SRV_MORE);
	assert_span(smtp_server_output(&s), "220 2.0.0 Ready to start TLS\r\n");
	smtp_server_sent(&s, 10);
	assert_int_equal(smtp_server_step(&s, SPAN("NOOP\r\n"), &used), SRV_MORE);
	assert_int_equal(used, 0);
	smtp_server_sent(&s, smtp_server_output(&s).n);
	assert_int_equal(smtp_server_step(&s, SPAN("NOOP\r\n"), &used), SRV_STARTTLS);
	assert_int_equal(used, 0);
	assert_int_equal(smtp_server_step(&s, SPAN_NONE, &used), SRV_MORE);
	smtp_server_tls_started(&s);
	assert_int_equal(say("EHLO client.test\r\n"), SRV_STEP);
	smtp_server_done(&s);
}

/* RFC 2033 4.2: a reply for each recipient, however many there are. */
static void an_lmtp_message_thrown_away_is_refused_for_every_recipient(void **state)
{
	enum { RCPTS = 500 };
	const struct smtp_server_config cfg = { .hostname = SPAN("relay.test"), .lmtp = true };
	struct span body = span_of("\0\r\n.\r\n", 6);
	unsigned said = 0, resets = 0;
	enum server_action act;
	size_t used;

	smtp_server_init(&s, &cfg);
	say("LHLO client.test\r\n");
	assert_int_equal(say("MAIL FROM:<s@x.example>\r\n"), SRV_MAIL);
	ok(250);
	for (unsigned i = 0; i < RCPTS; i++) {
		assert_int_equal(say("RCPT TO:<r@x.example>\r\n"), SRV_RCPT);
		ok(250);
	}
	assert_int_equal(say("DATA\r\n"), SRV_DATA);
	ok(354);
	smtp_server_sent(&s, smtp_server_output(&s).n);
	do {
		struct span out;

		act = smtp_server_step(&s, body, &used);
		body = span_skip(body, used);
		resets += act == SRV_RESET;
		out = smtp_server_output(&s);
		for (size_t i = 0; i + 4 <= out.n; i++)
			said += memcmp(out.p + i, "554 ", 4) == 0;
		smtp_server_sent(&s, out.n);
		act = out.n ? SRV_STEP : act;
	} while (act != SRV_MORE);
	assert_int_equal(body.n, 0);
	assert_int_equal(said, RCPTS);
	assert_int_equal(resets, 1);
	assert_false(s.state.out.over);
	assert_int_equal(say("MAIL FROM:<s@x.example>\r\n"), SRV_MAIL);
	smtp_server_done(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_recipient_is_replaced_by_others),
		cmocka_unit_test(without_room_the_envelope_stays_as_it_was),
		cmocka_unit_test(a_recipient_that_is_not_ascii_gets_no_orcpt),
		cmocka_unit_test(the_handshake_begins_when_the_220_was_taken),
		cmocka_unit_test(an_lmtp_message_thrown_away_is_refused_for_every_recipient),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
