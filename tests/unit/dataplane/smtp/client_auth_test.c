/* The client logs in (RFC 4954): what it says to which server, and what of a server's it does not take. The honest server is our own machine (sasl.h). */
#include "tests/support/unit.h"

#include <stdio.h>
#include "dataplane/smtp/client.h"
#include "spool/base/base64.h"

#define NONCE "abcdefghijklmnopqrstuvwx"
#define THEIRS "ABCDEFGHIJKLMNOPQRSTUVWX"

static char said[16384];
static struct out out;
static struct smtp_client c;
static enum client_action last;

static struct span take_output(void)
{
	size_t at = out.n;
	struct span o;

	while ((o = smtp_client_output(&c)).n) {
		out_add(&out, o);
		smtp_client_sent(&c, o.n);
	}
	assert_false(out.over);
	return span_of(said + at, out.n - at);
}

/* The server says that; what the client says to it. */
static struct span hear(const char *text)
{
	struct span in = span_str(text);
	size_t n;

	do {
		last = smtp_client_step(&c, in, &n);
		in = span_skip(in, n);
	} while (in.n && last == CLI_MORE);
	return take_output();
}

static struct span challenge(struct span text)
{
	char line[4096];
	struct out o = out_of(line, sizeof(line) - 1);

	out_str(&o, "334 ");
	base64_encode(text, &o);
	out_str(&o, "\r\n");
	line[o.n] = '\0';
	return hear(line);
}

/* As far as the answer to EHLO under TLS, which offers this. */
static struct span meet(const struct sasl_login *login, const char *offer)
{
	static struct smtp_client_config cfg;
	char ehlo[512];

	cfg = (struct smtp_client_config){ .hostname = SPAN("me.example"), .tls = CLIENT_TLS_MUST, .login = login };
	out = out_of(said, sizeof(said) - 1);
	smtp_client_init(&c, &cfg);
	hear("220 x\r\n");
	hear("250-x\r\n250-AUTH LOGIN PLAIN\r\n250 STARTTLS\r\n"); /* what is offered in the clear counts for nothing */
	assert_int_equal(last, CLI_MORE);
	hear("220 go\r\n");
	assert_int_equal(last, CLI_STARTTLS);
	smtp_client_tls_done(&c, true);
	take_output();
	snprintf(ehlo, sizeof(ehlo), "250-x\r\n250 %s\r\n", offer);
	return hear(ehlo);
}

static void assert_failed(enum client_auth_fault fault)
{
	assert_int_equal(last, CLI_CLOSE);
	assert_int_equal(c.auth_fault, fault);
	assert_int_equal(c.failure.code, 451);
	assert_false(c.logged_in);
	smtp_client_done(&c);
}

static void assert_logged_in(void)
{
	assert_true(c.logged_in);
	assert_int_equal(last, CLI_READY);
	assert_int_equal(c.auth_fault, AUTH_FAULT_NONE);
	/* no secret stays there */
	assert_null(memmem(c.state.out_buf, sizeof(c.state.out_buf), "AHUAc", 5));
	assert_null(memmem(c.state.out_buf, sizeof(c.state.out_buf), "cA==", 4));
	smtp_client_done(&c);
}

static struct sasl_login login(const char *user, const char *password)
{
	return (struct sasl_login){ .user = span_str(user), .password = span_str(password), .nonce = SPAN(NONCE) };
}

static void plain(void **state)
{
	struct sasl_login l = login("u", "p");

	assert_span(meet(&l, "AUTH PLAIN X-NEW"), "AUTH PLAIN AHUAcA==\r\n");
	hear("235 2.7.0 ok\r\n");
	assert_logged_in();
}

static void login_word_by_word(void **state)
{
	struct sasl_login l = login("u", "p");

	assert_span(meet(&l, "auth login"), "AUTH LOGIN\r\n");
	assert_span(challenge(SPAN("whatever it says")), "dQ==\r\n");
	assert_span(challenge(SPAN_NONE), "cA==\r\n");
	hear("235 2.7.0 ok\r\n");
	assert_logged_in();

	meet(&l, "AUTH LOGIN");
	challenge(SPAN("Username:"));
	hear("235 2.7.0 ok\r\n");
	assert_failed(AUTH_FAULT_BROKEN);

	meet(&l, "AUTH LOGIN");
	for (int i = 0; i < 3; i++)
		challenge(SPAN("Username:"));
	assert_failed(AUTH_FAULT_BROKEN);
}

/* RFC 7677 section 3. */
static void the_vector_of_the_standard(void **state)
{
	struct sasl_login l = { .user = SPAN("user"), .password = SPAN("pencil"), .nonce = SPAN("rOprNGfwEbeRWgbNEkqO") };
	struct sasl_client a;
	char buf[SASL_RESPONSE_MAX];
	struct out o = out_of(buf, sizeof(buf));

	sasl_client_init(&a, SASL_SCRAM_SHA_256, &l);
	assert_null(sasl_client_step(&a, SPAN_NONE, &o));
	assert_span(out_span(&o), "n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
	o.n = 0;
	assert_null(sasl_client_step(&a, SPAN("r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"), &o));
	assert_span(out_span(&o), "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=");
	assert_false(sasl_client_complete(&a));
	o.n = 0;
	assert_null(sasl_client_step(&a, SPAN("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="), &o));
	assert_int_equal(o.n, 0);
	assert_true(sasl_client_complete(&a));
	assert_non_null(sasl_client_step(&a, SPAN_NONE, &o));
	assert_false(sasl_client_complete(&a));
}

static struct span decoded(struct span line, const char *before)
{
	static char buf[2048];
	struct out o = out_of(buf, sizeof(buf));
	size_t n = strlen(before);

	assert_true(line.n > n + 2 && memcmp(line.p, before, n) == 0);
	assert_ok(base64_decode(span_of(line.p + n, line.n - n - 2), &o));
	return out_span(&o);
}

/* With our own server, and a name that must be written in another way. */
static void scram_with_our_own_server(void **state)
{
	static const char *const names[] = { "u", "a=b,c", "gr\xc3\xbcn", "salted", NULL };
	struct sasl_known known = { 0 };

	for (size_t i = 0; names[i]; i++) {
		struct sasl_login l = login(names[i], "p w");
		struct scram_verifier v = { .iterations = 4096, .salt_len = 4, .salt = "salt" };
		struct sasl server;

		if (i == 3) { /* the same password, another salt than the one known: what is known must not be used */
			memcpy(v.salt, "pepper", 6);
			v.salt_len = 6;
		}
		l.known = &known;
		scram_derive(SPAN("p w"), &v);
		sasl_init(&server, SASL_SCRAM_SHA_256);
		assert_int_equal(sasl_step(&server, decoded(meet(&l, "AUTH LOGIN PLAIN SCRAM-SHA-256"), "AUTH SCRAM-SHA-256 ")), SASL_VERIFIER);
		assert_span(server.user, names[i]);
		assert_int_equal(sasl_verifier(&server, &v, false, SPAN(THEIRS)), SASL_CHALLENGE);
		assert_int_equal(sasl_step(&server, decoded(challenge(server.challenge), "")), SASL_CHALLENGE);
		assert_span(challenge(server.challenge), "\r\n");
		assert_int_equal(sasl_step(&server, SPAN("")), SASL_DONE);
		hear("235 2.7.0 ok\r\n");
		assert_logged_in();
		assert_memory_equal(known.server_key, v.server_key, SCRAM_KEY);
		sasl_wipe(&server);
	}
}

static void what_of_a_scram_server_is_not_taken(void **state)
{
	static const char *const first[] = { "r=" NONCE "X,s=c2FsdA==,i=4095", "r=" NONCE "X,s=c2FsdA==,i=100001", "r=" NONCE "X,s=c2FsdA==,i=99999999999999999999",
		"r=" NONCE "X,s=c2FsdA==,i=", "r=" NONCE "X,s=c2FsdA==", "r=" NONCE "X,s=,i=4096", "r=" NONCE "X,s=?,i=4096", "r=" NONCE ",s=c2FsdA==,i=4096", "r=other,s=c2FsdA==,i=4096",
		"r=" NONCE "\xff,s=c2FsdA==,i=4096", "r=" NONCE " ,s=c2FsdA==,i=4096", "m=x,r=" NONCE "X,s=c2FsdA==,i=4096", "s=c2FsdA==,r=" NONCE "X,i=4096", "e=other-error", "", ",", "r",
		"r=" NONCE "X,s=c2FsdHNhbHRzYWx0c2FsdHNhbHRzYWx0c2FsdHNhbHRzYWx0c2FsdHNhbHRzYWx0c2FsdHNhbHRzYWx0c2FsdHNhbHQ=,i=4096", NULL };
	static const char *const end[] = { "v=", "v=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "v=AAAA", "e=invalid-proof", "", "v=?", NULL };
	struct sasl_login l = login("u", "p");

	for (size_t i = 0; first[i]; i++) {
		meet(&l, "AUTH SCRAM-SHA-256");
		challenge(span_str(first[i]));
		assert_failed(AUTH_FAULT_BROKEN);
	}
	for (size_t i = 0; end[i]; i++) {
		meet(&l, "AUTH SCRAM-SHA-256");
		challenge(SPAN("r=" NONCE "X,s=c2FsdA==,i=4096"));
		assert_int_equal(last, CLI_MORE);
		challenge(span_str(end[i]));
		assert_failed(AUTH_FAULT_BROKEN);
	}
	for (unsigned steps = 0; steps < 2; steps++) { /* that it is good is not for the server to say before its proof */
		meet(&l, "AUTH SCRAM-SHA-256");
		if (steps)
			challenge(SPAN("r=" NONCE "X,s=c2FsdA==,i=4096"));
		hear("235 2.7.0 ok\r\n");
		assert_failed(AUTH_FAULT_BROKEN);
	}
}

static void challenges_that_are_none(void **state)
{
	static char line[2000] = "334 ";
	static const char *const bad[] = { "334 ?\r\n", "334 AAA\r\n", "334-AAAA\r\n334 A===\r\n", "334 AA AA\r\n", NULL };
	struct sasl_login l = login("u", "p");

	memset(line + 4, 'A', 1600);
	strcpy(line + 1604, "\r\n");
	for (size_t i = 0; bad[i]; i++) {
		meet(&l, "AUTH LOGIN");
		hear(bad[i]);
		assert_failed(AUTH_FAULT_BROKEN);
	}
	meet(&l, "AUTH LOGIN");
	hear(line);
	assert_int_equal(last, CLI_CLOSE);
	meet(&l, "AUTH PLAIN");
	challenge(SPAN("more?"));
	assert_failed(AUTH_FAULT_BROKEN);
}

/* RFC 5321: no command is longer than 512 octets; what does not fit comes when the server asks for it. */
static void a_long_login_is_not_in_the_first_line(void **state)
{
	char user[256], name[256];
	struct sasl_login l;

	memset(user, 'u', sizeof(user));
	for (size_t n = 170; n < 190; n++) { /* where the limit is */
		struct span s;

		snprintf(name, sizeof(name), "%.*s", (int)n, user);
		l = login(name, name);
		s = meet(&l, "AUTH PLAIN");
		assert_true(s.n <= 512);
		assert_int_equal(s.n > 20, 11 + BASE64_LEN(2 * n + 2) + 2 <= 512);
		if (s.n <= 20) {
			assert_span(s, "AUTH PLAIN\r\n");
			assert_int_equal(decoded(challenge(SPAN_NONE), "").n, 2 * n + 2);
		}
		hear("235 ok\r\n");
		assert_logged_in();
	}
	meet(&l, "AUTH PLAIN");
	challenge(SPAN("not empty"));
	assert_failed(AUTH_FAULT_BROKEN);
}

static void refusals(void **state)
{
	static const struct {
		const char *reply, *text;
	} row[] = { { "535 5.7.8 bad\r\n", "535 bad" }, { "454 4.7.0 later\r\n", "454 later" }, { "504 5.5.4 no\r\n", "504 " }, { "500 AHUAcA==\r\n", "500 " },
		{ "250 AHUAcA==\r\n", "250 " }, { "432 4.7.12 change it\r\n", "432 change it" } };
	struct sasl_login l = login("u", "p"), unknown = login("u", "");

	for (size_t i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
		meet(&l, "AUTH PLAIN");
		hear(row[i].reply);
		assert_span(reply_text(&c.failure), row[i].text);
		assert_failed(AUTH_FAULT_REFUSED);
	}
	assert_span(meet(&l, "AUTH PLAIN LOGIN"), "AUTH PLAIN AHUAcA==\r\n");
	assert_span(hear("504 5.5.4 not this one\r\n"), "AUTH LOGIN\r\n");
	hear("534 5.7.9 nor this\r\n");
	assert_failed(AUTH_FAULT_REFUSED);
	assert_int_equal(meet(&l, "AUTH GSSAPI").n, 0);
	assert_failed(AUTH_FAULT_NOT_OFFERED);
	assert_int_equal(meet(&l, "AUTH=PLAIN").n, 0); /* of before RFC 2554 */
	assert_failed(AUTH_FAULT_NOT_OFFERED);
	assert_int_equal(meet(&l, "HELP").n, 0);
	assert_failed(AUTH_FAULT_NOT_OFFERED);
	assert_int_equal(meet(&unknown, "AUTH PLAIN").n, 0);
	assert_failed(AUTH_FAULT_NOT_OFFERED);
	meet(&l, "AUTH PLAIN");
	hear("421 4.3.2 bye\r\n");
	assert_int_equal(last, CLI_CLOSE);
	assert_false(c.logged_in);
}

static void nothing_without_tls(void **state)
{
	static const enum client_tls tls[] = { CLIENT_TLS_NEVER, CLIENT_TLS_MAY };
	struct sasl_login l = login("u", "p");

	for (size_t i = 0; i < 2; i++) {
		struct smtp_client_config cfg = { .hostname = SPAN("me.example"), .tls = tls[i], .login = &l };

		out = out_of(said, sizeof(said) - 1);
		smtp_client_init(&c, &cfg);
		hear("220 x\r\n");
		assert_int_equal(hear("250-x\r\n250 AUTH PLAIN\r\n").n, 0);
		assert_failed(AUTH_FAULT_NOT_OFFERED);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(plain), cmocka_unit_test(login_word_by_word), cmocka_unit_test(the_vector_of_the_standard),
		cmocka_unit_test(scram_with_our_own_server), cmocka_unit_test(what_of_a_scram_server_is_not_taken), cmocka_unit_test(challenges_that_are_none),
		cmocka_unit_test(a_long_login_is_not_in_the_first_line), cmocka_unit_test(refusals), cmocka_unit_test(nothing_without_tls) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
