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

static void lmtp_begin(unsigned rcpts)
{
	static const struct smtp_server_config cfg = { .hostname = SPAN("relay.test"), .lmtp = true };

	smtp_server_init(&s, &cfg);
	say("LHLO client.test\r\n");
	assert_int_equal(say("MAIL FROM:<s@x.example>\r\n"), SRV_MAIL);
	ok(250);
	for (unsigned i = 0; i < rcpts; i++) {
		assert_int_equal(say("RCPT TO:<r@x.example>\r\n"), SRV_RCPT);
		ok(250);
	}
}

struct lmtp_said {
	unsigned lines, like; /* replies, and those that begin as expected */
	unsigned resets;
};

/* Feeds it all, lets the client take at most `most` octets of the replies at a time, and answers the end of data with r. */
static struct lmtp_said lmtp_talk(struct span in, size_t most, const struct reply *r, const char *like)
{
	static char said[1 << 17];
	struct out o = out_of(said, sizeof(said));
	struct lmtp_said n = { 0 };
	enum server_action act;
	struct span rest;
	size_t used;
	bool talked;

	smtp_server_sent(&s, smtp_server_output(&s).n);
	do {
		struct span out;

		act = smtp_server_step(&s, in, &used);
		in = span_skip(in, used);
		n.resets += act == SRV_RESET;
		if (act == SRV_DATA)
			ok(354);
		if (act == SRV_BODY_END)
			smtp_server_reply(&s, r);
		out = smtp_server_output(&s);
		talked = out.n > 0;
		out.n = out.n < most ? out.n : most;
		out_add(&o, out);
		smtp_server_sent(&s, out.n);
		assert_false(s.state.out.over);
	} while (act != SRV_MORE || in.n || talked);
	for (rest = out_span(&o); rest.n;) {
		struct span line = span_cut(&rest, '\n');

		n.lines++;
		n.like += span_starts_nocase(line, span_str(like)) && line.n < 512;
	}
	return n;
}

enum { LMTP_RCPTS = 500 };

/* RFC 2033 4.2: a reply for each recipient, however many there are, and however slowly they are taken. */
static void an_lmtp_message_is_answered_for_every_recipient(void **state)
{
	static const size_t most[] = { 1, 7, 511, 100000 };
	struct lmtp_said n;
	struct reply r;

	reply_set(&r, 250, "2.0.0", "Ok, queued as 0123456789");
	for (size_t i = 0; i < sizeof(most) / sizeof(most[0]); i++) {
		lmtp_begin(LMTP_RCPTS);
		n = lmtp_talk(SPAN("DATA\r\nx\r\n.\r\nNOOP\r\n"), most[i], &r, "250 2.0.0 Ok");
		assert_int_equal(n.lines, LMTP_RCPTS + 2); /* 354 and that of NOOP */
		assert_int_equal(n.like, LMTP_RCPTS + 1);
		assert_int_equal(n.resets, 0);
		assert_int_equal(say("MAIL FROM:<s@x.example>\r\n"), SRV_MAIL);
		smtp_server_done(&s);
	}
}

static void an_lmtp_message_thrown_away_is_refused_for_every_recipient(void **state)
{
	struct lmtp_said n;

	lmtp_begin(LMTP_RCPTS);
	n = lmtp_talk(SPAN("DATA\r\n\0\r\n.\r\n"), 1000, NULL, "554 5.6.0 ");
	assert_int_equal(n.lines, LMTP_RCPTS + 1);
	assert_int_equal(n.like, LMTP_RCPTS);
	assert_int_equal(n.resets, 1);
	assert_int_equal(say("MAIL FROM:<s@x.example>\r\n"), SRV_MAIL);
	smtp_server_done(&s);
}

/* The remote's text of a refusal may be longer than what is kept of it. */
static void a_long_lmtp_answer_is_cut(void **state)
{
	struct lmtp_said n;
	struct reply r;
	char text[901];

	memset(text, 'x', sizeof(text) - 1);
	text[900] = '\0';
	text[600] = '\n';
	reply_set(&r, 550, "5.7.1", "%s", text);
	lmtp_begin(3);
	n = lmtp_talk(SPAN("DATA\r\nx\r\n.\r\n"), 1000, &r, "550 5.7.1 xxx");
	assert_int_equal(n.lines, 4);
	assert_int_equal(n.like, 3);
	smtp_server_done(&s);
}

/* One for each RCPT that was accepted, not for what aliases made of it; and none but the last chunk has one for each. */
static void an_lmtp_reply_is_for_what_the_client_said(void **state)
{
	const struct span three[] = { SPAN("a@y.example"), SPAN("b@y.example"), SPAN("c@y.example") };
	struct lmtp_said n;
	struct reply r;

	reply_set(&r, 250, "2.0.0", "Ok");
	lmtp_begin(1);
	assert_int_equal(say("RCPT TO:<list@x.example>\r\n"), SRV_RCPT);
	assert_true(smtp_server_rcpt_replace(&s, three, 3));
	ok(250);
	assert_int_equal(say("RCPT TO:<unknown@x.example>\r\n"), SRV_RCPT);
	smtp_server_reply(&s, &(struct reply){ .code = 550 });
	n = lmtp_talk(SPAN("BDAT 3\r\na\r\nBDAT 0 LAST\r\n"), 1000, &r, "250 2.0.0 Ok");
	assert_int_equal(n.lines, 3);
	assert_int_equal(n.like, 2);
	smtp_server_done(&s);
	lmtp_begin(2);
	n = lmtp_talk(SPAN("BDAT 1\r\n\0BDAT 1 LAST\r\nx"), 1000, NULL, "554 5.6.0");
	assert_int_equal(n.lines, 2); /* the other is the 503 of a chunk without a message */
	assert_int_equal(n.like, 1);
	smtp_server_done(&s);
}

/* RFC 2033 4.2 */
static void lmtp_without_recipients_is_503(void **state)
{
	lmtp_begin(0);
	assert_int_equal(lmtp_talk(SPAN("DATA\r\nBDAT 5 LAST\r\nNOOP\r"), 1000, NULL, "503 5.5.1").like, 2);
	smtp_server_done(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_recipient_is_replaced_by_others),
		cmocka_unit_test(without_room_the_envelope_stays_as_it_was),
		cmocka_unit_test(a_recipient_that_is_not_ascii_gets_no_orcpt),
		cmocka_unit_test(the_handshake_begins_when_the_220_was_taken),
		cmocka_unit_test(an_lmtp_message_is_answered_for_every_recipient),
		cmocka_unit_test(an_lmtp_message_thrown_away_is_refused_for_every_recipient),
		cmocka_unit_test(a_long_lmtp_answer_is_cut),
		cmocka_unit_test(an_lmtp_reply_is_for_what_the_client_said),
		cmocka_unit_test(lmtp_without_recipients_is_503),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
