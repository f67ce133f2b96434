/* AUTH in a server session (RFC 4954): what is answered when. */
#include "tests/support/unit.h"

#include <stdio.h>
#include <stdlib.h>
#include "dataplane/smtp/server.h"

static const struct smtp_server_config submission = { .hostname = { "relay.test", 10 }, .starttls = true, .auth = true };
static const struct smtp_server_config mx = { .hostname = { "relay.test", 10 }, .starttls = true };

static struct smtp_server s;
static char said[8192];

/* Gives a line and steps until the session waits; gives the last action that is not SRV_STEP or SRV_MORE. */
static enum server_action line(const char *text)
{
	char buf[8192];
	struct span in;
	enum server_action act, last = SRV_MORE;
	size_t used;

	snprintf(buf, sizeof(buf), "%s\r\n", text);
	in = span_str(buf);
	do {
		act = smtp_server_step(&s, in, &used);
		in = span_skip(in, used);
		last = act == SRV_STEP || act == SRV_MORE ? last : act;
	} while (act == SRV_STEP || (act != SRV_AUTH && act != SRV_MAIL && act != SRV_STARTTLS && in.n));
	return last;
}

/* What was said since last time, NUL-terminated. */
static const char *answer(void)
{
	struct span o = smtp_server_output(&s);

	assert_true(o.n < sizeof(said));
	memcpy(said, o.p, o.n);
	said[o.n] = '\0';
	smtp_server_sent(&s, o.n);
	return said;
}

static void begin(const struct smtp_server_config *cfg, bool tls)
{
	smtp_server_init(&s, cfg);
	s.auth_mechs = SASL_ALL;
	answer();
	if (tls)
		smtp_server_tls_started(&s);
	line("EHLO client.test");
	answer();
}

#define SAID(text) assert_memory_equal(answer(), text, sizeof(text) - 1)

static void offered_only_where_it_can_be_used(void **state)
{
	begin(&submission, false);
	line("EHLO client.test");
	assert_null(strstr(answer(), "AUTH"));
	line("AUTH PLAIN AHRpbQB4");
	SAID("538 5.7.11 ");
	line("MAIL FROM:<a@b.test>");
	SAID("530 5.7.0 ");
	smtp_server_tls_started(&s);
	line("AUTH PLAIN AHRpbQB4");
	SAID("503 5.5.1 ");
	line("EHLO client.test");
	assert_non_null(strstr(answer(), "250-AUTH PLAIN LOGIN SCRAM-SHA-256\r\n"));
	line("MAIL FROM:<a@b.test>");
	SAID("530 5.7.0 ");
	s.auth_mechs = SASL_SCRAM_SHA_256;
	line("EHLO client.test");
	assert_non_null(strstr(answer(), "250-AUTH SCRAM-SHA-256\r\n"));
	line("AUTH PLAIN AHRpbQB4");
	SAID("534 5.7.9 ");
	line("AUTH CRAM-MD5");
	SAID("504 5.5.4 ");
	line("AUTH");
	SAID("501 5.5.4 ");
	line("HELO client.test");
	answer();
	line("AUTH PLAIN");
	SAID("503 5.5.1 ");
	smtp_server_done(&s);
	begin(&mx, true);
	line("EHLO client.test");
	assert_null(strstr(answer(), "AUTH"));
	line("AUTH PLAIN AHRpbQB4");
	SAID("502 5.5.1 ");
	line("MAIL FROM:<a@b.test> AUTH=<>");
	SAID("555 5.5.4 ");
	assert_int_equal(line("MAIL FROM:<a@b.test>"), SRV_MAIL);
	smtp_server_done(&s);
}

static void a_login_and_what_follows(void **state)
{
	struct reply ok;

	begin(&submission, true);
	assert_int_equal(line("AUTH PLAIN AHRpbQB4"), SRV_AUTH);
	assert_int_equal(s.auth_ask, SASL_PASSWORD);
	assert_span(s.sasl->user, "tim");
	assert_span(s.sasl->password, "x");
	smtp_server_auth_ok(&s, SPAN("tim"));
	SAID("235 2.7.0 ");
	assert_null(s.sasl);
	line("AUTH PLAIN AHRpbQB4");
	SAID("503 5.5.1 ");
	assert_int_equal(line("MAIL FROM:<a@b.test> AUTH=a+2Bb@b.test"), SRV_MAIL);
	reply_set(&ok, 250, NULL, "ok");
	smtp_server_reply(&s, &ok);
	answer();
	line("AUTH PLAIN");
	SAID("503 5.5.1 ");
	line("RSET");
	answer();
	assert_span(s.auth_user, "tim");
	smtp_server_tls_started(&s); /* all from before is forgotten */
	assert_int_equal(s.auth_user.n, 0);
	smtp_server_done(&s);
}

static void exchanges_that_are_broken_off(void **state)
{
	char big[WIRE_LINE_MAX + 100];

	begin(&submission, true);
	line("AUTH LOGIN");
	SAID("334 VXNlcm5hbWU6\r\n");
	assert_int_equal(line("*"), SRV_RESET);
	SAID("501 5.7.0 ");
	line("AUTH PLAIN");
	SAID("334 \r\n");
	assert_int_equal(line("NOOP"), SRV_RESET); /* four letters of base64, but no PLAIN */
	SAID("501 5.5.2 ");
	line("AUTH PLAIN");
	answer();
	line("A===");
	SAID("501 5.5.2 ");
	line("NOOP");
	SAID("250 2.0.0 ");
	line("AUTH PLAIN =");
	SAID("501 5.5.2 "); /* empty, which PLAIN cannot be */
	line("AUTH LOGIN =");
	SAID("334 UGFzc3dvcmQ6\r\n");
	assert_int_equal(line(""), SRV_AUTH);
	assert_int_equal(s.auth_ask, SASL_REFUSED);
	smtp_server_done(&s);
	begin(&submission, true);
	memset(big, 'A', sizeof(big));
	big[sizeof(big) - 1] = '\0';
	line("AUTH PLAIN");
	answer();
	assert_int_equal(line(big), SRV_RESET);
	SAID("500 5.5.6 ");
	line("AUTH PLAIN");
	answer();
	big[SASL_MESSAGE_MAX / 3 * 4 + 8] = '\0';
	assert_int_equal(line(big), SRV_RESET);
	SAID("500 5.5.6 ");
	line("NOOP");
	SAID("250 2.0.0 ");
	smtp_server_done(&s);
}

static void refusals_count_as_errors(void **state)
{
	struct smtp_server_config cfg = submission;
	struct reply no;

	cfg.errors_max = 3;
	begin(&cfg, true);
	reply_set(&no, 535, "5.7.8", "no");
	for (int i = 0; i < 3; i++) {
		assert_int_equal(line("AUTH PLAIN AHRpbQB4"), SRV_AUTH);
		smtp_server_reply(&s, &no);
	}
	assert_non_null(strstr(answer(), "535 5.7.8 no\r\n421 4.7.0 "));
	assert_int_equal(line("NOOP"), SRV_CLOSE);
	smtp_server_done(&s);
	begin(&cfg, true);
	assert_int_equal(line("AUTH PLAIN AHRpbQB4"), SRV_AUTH);
	reply_set(&no, 454, "4.7.0", "later");
	smtp_server_reply(&s, &no);
	SAID("454 4.7.0 later\r\n");
	assert_int_equal(s.state.errors, 0);
	assert_int_equal(line("AUTH PLAIN AHRpbQB4"), SRV_AUTH); /* and the session goes on */
	reply_set(&no, 421, "4.7.0", "go away");
	smtp_server_reply(&s, &no);
	SAID("421 4.7.0 go away\r\n");
	assert_int_equal(line("NOOP"), SRV_CLOSE);
	smtp_server_done(&s);
}

static void scram_through_the_session(void **state)
{
	struct scram_verifier v = { .iterations = 4096, .salt_len = 1 };

	begin(&submission, true);
	assert_int_equal(line("AUTH SCRAM-SHA-256 biwsbj11c2VyLHI9YWJj"), SRV_AUTH); /* n,,n=user,r=abc */
	assert_int_equal(s.auth_ask, SASL_VERIFIER);
	smtp_server_auth_verifier(&s, &v, false, SPAN("123456789012345678901234"));
	SAID("334 cj1hYmMxMjM0NTY3ODkwMTIzNDU2Nzg5MDEyMzQscz1BQT09LGk9NDA5Ng==\r\n");
	assert_int_equal(line("*"), SRV_RESET);
	SAID("501 5.7.0 ");
	assert_int_equal(line("AUTH SCRAM-SHA-256 biwsbj11c2VyLHI9YWJj"), SRV_AUTH);
	assert_true(smtp_server_auth_relay(&s, SPAN("hello")));
	SAID("334 aGVsbG8=\r\n");
	assert_int_equal(line("d29ybGQ="), SRV_AUTH);
	assert_int_equal(s.auth_ask, SASL_RELAY);
	assert_span(s.sasl->message, "world");
	smtp_server_auth_ok(&s, SPAN("user"));
	SAID("235 2.7.0 ");
	smtp_server_done(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(offered_only_where_it_can_be_used), cmocka_unit_test(a_login_and_what_follows),
		cmocka_unit_test(exchanges_that_are_broken_off), cmocka_unit_test(refusals_count_as_errors),
		cmocka_unit_test(scram_through_the_session) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
