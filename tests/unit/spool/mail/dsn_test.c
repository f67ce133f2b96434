/* Reports as mail (F3): lines and encodings. What is in them the fuzz target and the protocol tests look at. */
#include "tests/support/unit.h"

#include "spool/mail/dsn.h"

static char text[64 * 1024];

/* A report about one recipient, to whom the remote has said no in as many octets as are kept. */
static struct span report(struct span remote, struct span rcpt_addr, struct span head)
{
	struct envelope env = { .sender = SPAN("s@cam.example") };
	struct env_rcpt rcpt = { .addr = rcpt_addr };
	struct reply reply = { .code = 550 };
	struct dsn_rcpt row = { .rcpt = &rcpt, .action = DSN_FAILED, .reply = &reply, .remote = remote };
	struct dsn d = { .hostname = SPAN("relay.cam.example"), .id = SPAN("1"), .original_id = SPAN("2"), .to = SPAN("s@cam.example"),
		.from = SPAN("MAILER-DAEMON@relay.cam.example"), .original = &env, .rcpt = &row, .nrcpt = 1, .original_head = head };
	struct out o = out_of(text, sizeof(text));
	char said[2000];

	memset(said, 'y', sizeof(said));
	reply_add_line(&reply, span_of(said, sizeof(said)), true);
	dsn_write(&d, &o);
	assert_false(o.over);
	return out_span(&o);
}

static bool has(struct span s, const char *what)
{
	return memmem(s.p, s.n, what, strlen(what));
}

/* RFC 5322 2.1.1: 998 octets, whatever the remote is called and says. */
static void no_line_is_too_long(void **state)
{
	char host[255];
	struct span s;

	memset(host, 'h', sizeof(host));
	s = report(span_of(host, sizeof(host)), SPAN("r@far.example"), SPAN("Subject: x\r\n"));
	assert_true(has(s, "Diagnostic-Code: smtp;550 yyyy"));
	while (s.p)
		assert_true(span_cut(&s, '\n').n <= 998 + 1);
}

/* RFC 2045 6.4: a multipart says 8bit when a part of it is. */
static void eight_bits_are_announced_outside_too(void **state)
{
	static const char inside[] = "\r\nContent-Transfer-Encoding: 8bit\r\n\r\n--=_weir_";

	assert_false(has(report(SPAN("far.example"), SPAN("r@far.example"), SPAN("Subject: x\r\n")), "8bit"));
	assert_true(has(report(SPAN("far.example"), SPAN("r@far.example"), SPAN("Subject: \xe4\r\n")), inside));
	assert_true(has(report(SPAN("far.example"), SPAN("r\xc3\xa4@far.example"), SPAN("Subject: x\r\n")), inside));
}

/* RFC 3464 2.3.6: the diagnosis is the remote's; that the time is over is our Status, and a person reads both. */
static void time_that_is_over(void **state)
{
	static const struct {
		uint64_t s;
		const char *remote, *says;
	} row[] = {
		{ 4 * 86400 + 7000, "mx.example", "It could not be delivered for 4 days; the last answer of mx.example was:\r\n    450 4.2.0 full\r\n" },
		{ 2 * 86400 - 1, "mx.example", " 47 hours; " },
		{ 7199, "mx.example", " 119 minutes; " },
		{ 119, "", "It could not be delivered for 119 seconds; the last reason was:\r\n    450 4.2.0 full\r\n" },
	};
	struct envelope env = { .sender = SPAN("s@cam.example") };
	struct env_rcpt rcpt = { .addr = SPAN("r@far.example") };
	struct reply reply;

	reply_set(&reply, 450, "4.2.0", "full");
	for (size_t i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
		struct dsn_rcpt r = { .rcpt = &rcpt, .action = DSN_FAILED, .reply = &reply, .remote = span_str(row[i].remote), .expired_ns = row[i].s * 1000000000 };
		struct dsn d = { .hostname = SPAN("relay.cam.example"), .original = &env, .rcpt = &r, .nrcpt = 1 };
		struct out o = out_of(text, sizeof(text));

		dsn_write(&d, &o);
		assert_true(has(out_span(&o), row[i].says));
		assert_true(has(out_span(&o), "Action: failed\r\nStatus: 5.4.7\r\n"));
		assert_int_equal(has(out_span(&o), "Remote-MTA: dns;mx.example\r\nDiagnostic-Code: smtp;450 4.2.0 full\r\n"), *row[i].remote != '\0');
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(no_line_is_too_long),
		cmocka_unit_test(eight_bits_are_announced_outside_too),
		cmocka_unit_test(time_that_is_over),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
