#include "tests/support/unit.h"

#include <stdlib.h>
#include "dataplane/smtp/sasl.h"
#include "dataplane/smtp/server.h"
#include "spool/base/base64.h"

/* ---- base64 ---- */

static void base64_has_one_spelling(void **state)
{
	static const struct {
		const char *raw, *text;
	} row[] = { { "", "" }, { "f", "Zg==" }, { "fo", "Zm8=" }, { "foo", "Zm9v" }, { "foob", "Zm9vYg==" }, { "fooba", "Zm9vYmE=" },
		{ "foobar", "Zm9vYmFy" } }; /* RFC 4648 section 10 */
	static const char *const bad[] = { "Z", "Zg", "Zg=", "Zg===", "=", "====", "Zh==", "Zm9=", "Zg==Zg==", "Zm9v Zm9v", "Zm9v\r\n", "Zm9*", "Z=9v" };
	char buf[64];
	struct out o;

	for (size_t i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
		o = out_of(buf, sizeof(buf));
		base64_encode(span_str(row[i].raw), &o);
		assert_span(out_span(&o), row[i].text);
		o = out_of(buf, sizeof(buf));
		assert_ok(base64_decode(span_str(row[i].text), &o));
		assert_span(out_span(&o), row[i].raw);
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		o = out_of(buf, sizeof(buf));
		assert_int_equal(base64_decode(span_str(bad[i]), &o), ST_INVALID);
	}
}

/* ---- PLAIN, LOGIN ---- */

#define MESSAGE(lit) SPAN(lit)

static enum sasl_action plain(struct sasl *a, struct span m)
{
	sasl_init(a, SASL_PLAIN);
	return sasl_step(a, m);
}

static void plain_messages(void **state)
{
	struct sasl a;
	char big[SASL_MESSAGE_MAX];

	assert_int_equal(plain(&a, MESSAGE("\0tim\0tanstaaftanstaaf")), SASL_PASSWORD); /* RFC 4616 section 4 */
	assert_span(a.user, "tim");
	assert_span(a.password, "tanstaaftanstaaf");
	assert_int_equal(plain(&a, MESSAGE("tim\0tim\0x")), SASL_PASSWORD);
	assert_int_equal(plain(&a, MESSAGE("Ursel\0Kurt\0xipj3plmq")), SASL_REFUSED); /* nobody acts for another */
	assert_int_equal(plain(&a, MESSAGE("")), SASL_MALFORMED);
	assert_int_equal(plain(&a, MESSAGE("tim")), SASL_MALFORMED);
	assert_int_equal(plain(&a, MESSAGE("\0tim")), SASL_MALFORMED);
	assert_int_equal(plain(&a, MESSAGE("\0\0secret")), SASL_MALFORMED);
	assert_int_equal(plain(&a, MESSAGE("\0tim\0sec\0ret")), SASL_MALFORMED);
	assert_int_equal(plain(&a, MESSAGE("\0tim\0")), SASL_REFUSED);
	assert_int_equal(plain(&a, MESSAGE("\0t:m\0x")), SASL_REFUSED);
	assert_int_equal(plain(&a, MESSAGE("\0t\xff\0x")), SASL_REFUSED);
	memset(big, 'x', sizeof(big));
	big[0] = big[300] = '\0';
	assert_int_equal(plain(&a, span_of(big, 600)), SASL_REFUSED);
	big[300] = 'x';
	big[256] = '\0';
	assert_int_equal(plain(&a, span_of(big, 257 + 255)), SASL_PASSWORD);
	assert_int_equal(a.user.n, 255);
	assert_int_equal(plain(&a, span_of(big, 257 + 256)), SASL_REFUSED);
	assert_int_equal(plain(&a, SPAN_NONE), SASL_CHALLENGE);
	assert_span(a.challenge, "");
	assert_int_equal(sasl_step(&a, MESSAGE("\0tim\0x")), SASL_PASSWORD);
}

static void login_messages(void **state)
{
	struct sasl a;

	sasl_init(&a, SASL_LOGIN);
	assert_int_equal(sasl_step(&a, SPAN_NONE), SASL_CHALLENGE);
	assert_span(a.challenge, "Username:");
	assert_int_equal(sasl_step(&a, SPAN("tim")), SASL_CHALLENGE);
	assert_span(a.challenge, "Password:");
	assert_int_equal(sasl_step(&a, SPAN("x")), SASL_PASSWORD);
	assert_span(a.user, "tim");
	assert_span(a.password, "x");
	sasl_init(&a, SASL_LOGIN);
	assert_int_equal(sasl_step(&a, SPAN("tim")), SASL_CHALLENGE); /* the name as an initial response */
	assert_span(a.challenge, "Password:");
	assert_int_equal(sasl_step(&a, MESSAGE("x\0y")), SASL_MALFORMED);
	sasl_init(&a, SASL_LOGIN);
	assert_int_equal(sasl_step(&a, SPAN("")), SASL_CHALLENGE); /* no name: the password is asked for all the same */
	assert_int_equal(sasl_step(&a, SPAN("x")), SASL_REFUSED);
}

/* ---- SCRAM-SHA-256 ---- */

#define NONCE "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
#define FIRST "n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
#define FINAL "c=biws,r=rOprNGfwEbeRWgbNEkqO" NONCE ",p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="

static struct scram_verifier pencil(void)
{
	struct scram_verifier v = { .iterations = 4096 };
	struct out o = out_of(v.salt, sizeof(v.salt));

	assert_ok(base64_decode(SPAN("W22ZaJ0SNY7soEsUEjb6gQ=="), &o));
	v.salt_len = (uint32_t)o.n;
	scram_derive(SPAN("pencil"), &v);
	return v;
}

/* Up to the client's final message. */
static void scram_begin(struct sasl *a, bool decoy)
{
	struct scram_verifier v = pencil();

	sasl_init(a, SASL_SCRAM_SHA_256);
	assert_int_equal(sasl_step(a, SPAN(FIRST)), SASL_VERIFIER);
	assert_span(a->user, "user");
	assert_int_equal(sasl_verifier(a, &v, decoy, SPAN(NONCE)), SASL_CHALLENGE);
}

static void the_vector_of_rfc_7677(void **state)
{
	struct sasl a;

	scram_begin(&a, false);
	assert_span(a.challenge, "r=rOprNGfwEbeRWgbNEkqO" NONCE ",s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096");
	assert_int_equal(sasl_step(&a, SPAN(FINAL)), SASL_CHALLENGE);
	assert_span(a.challenge, "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
	assert_int_equal(sasl_step(&a, SPAN("")), SASL_DONE);
	assert_span(a.user, "user");
	scram_begin(&a, true);
	assert_int_equal(sasl_step(&a, SPAN(FINAL)), SASL_REFUSED); /* a right proof of nobody */
	scram_begin(&a, false);
	assert_int_equal(sasl_step(&a, SPAN(FINAL)), SASL_CHALLENGE);
	assert_int_equal(sasl_step(&a, SPAN("x")), SASL_MALFORMED);
}

static void scram_first_messages(void **state)
{
	static const struct {
		const char *message;
		enum sasl_action act;
	} row[] = {
		{ "y,,n=user,r=abc", SASL_VERIFIER },
		{ "n,a=user,n=user,r=abc", SASL_VERIFIER },
		{ "n,,n=user,r=abc,x=later", SASL_VERIFIER },
		{ "n,a=other,n=user,r=abc", SASL_REFUSED },
		{ "p=tls-unique,,n=user,r=abc", SASL_MALFORMED },
		{ "p=tls-exporter,,n=user,r=abc", SASL_MALFORMED },
		{ "n,,m=must,n=user,r=abc", SASL_MALFORMED },
		{ "n,,n=user", SASL_MALFORMED },
		{ "n,,n=user,r=", SASL_MALFORMED },
		{ "n,,n=,r=abc", SASL_MALFORMED },
		{ "n,,r=abc,n=user", SASL_MALFORMED },
		{ "n,,n=us=er,r=abc", SASL_MALFORMED },
		{ "n,,n=us=2,r=abc", SASL_MALFORMED },
		{ "n,a=,n=user,r=abc", SASL_MALFORMED },
		{ "n,user,n=user,r=abc", SASL_MALFORMED },
		{ "n,,n=user,r=a\tc", SASL_MALFORMED },
		{ "n=user,r=abc", SASL_MALFORMED },
		{ "n", SASL_MALFORMED },
		{ "", SASL_MALFORMED },
		{ "N,,n=user,r=abc", SASL_MALFORMED },
	};
	struct sasl a;

	for (size_t i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
		sasl_init(&a, SASL_SCRAM_SHA_256);
		assert_int_equal(sasl_step(&a, span_str(row[i].message)), row[i].act);
	}
	sasl_init(&a, SASL_SCRAM_SHA_256);
	assert_int_equal(sasl_step(&a, SPAN("n,,n=a=2Cb=3Dc,r=abc")), SASL_VERIFIER);
	assert_span(a.user, "a,b=c");
}

static void scram_final_messages(void **state)
{
	static const char proof[] = ",p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
	static const struct {
		const char *message;
		enum sasl_action act;
	} row[] = {
		{ "c=eSws,r=rOprNGfwEbeRWgbNEkqO" NONCE, SASL_MALFORMED },  /* "y,,": not what was said first */
		{ "c=biws,r=rOprNGfwEbeRWgbNEkqO", SASL_MALFORMED },         /* without our part */
		{ "c=biws,r=" NONCE, SASL_MALFORMED },
		{ "c=biws,r=rOprNGfwEbeRWgbNEkqO" NONCE "x", SASL_MALFORMED },
		{ "r=rOprNGfwEbeRWgbNEkqO" NONCE ",c=biws", SASL_MALFORMED },
		{ "c=biws", SASL_MALFORMED },
		{ "c=biws,r=rOprNGfwEbeRWgbNEkqO" NONCE ",x=y", SASL_REFUSED }, /* the proof is of something else */
	};
	char text[512];
	struct out o;
	struct sasl a;

	for (size_t i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
		o = out_of(text, sizeof(text));
		out_str(&o, row[i].message);
		out_str(&o, proof);
		scram_begin(&a, false);
		assert_int_equal(sasl_step(&a, out_span(&o)), row[i].act);
	}
	scram_begin(&a, false);
	assert_int_equal(sasl_step(&a, SPAN("c=biws,r=rOprNGfwEbeRWgbNEkqO" NONCE ",p=")), SASL_MALFORMED);
	scram_begin(&a, false);
	assert_int_equal(sasl_step(&a, SPAN("c=biws,r=rOprNGfwEbeRWgbNEkqO" NONCE ",p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=,x=y")), SASL_MALFORMED);
	scram_begin(&a, false);
	assert_int_equal(sasl_step(&a, SPAN("c=biws,r=rOprNGfwEbeRWgbNEkqO" NONCE ",p=eHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=")), SASL_REFUSED);
}

static void a_relayed_exchange(void **state)
{
	struct sasl a;
	char big[SASL_CHALLENGE_MAX + 1] = "";

	sasl_init(&a, SASL_SCRAM_SHA_256);
	assert_int_equal(sasl_step(&a, SPAN(FIRST)), SASL_VERIFIER);
	assert_span(a.message, FIRST);
	assert_int_equal(sasl_relay(&a, SPAN("challenge")), SASL_CHALLENGE);
	assert_span(a.challenge, "challenge");
	assert_int_equal(sasl_step(&a, SPAN("whatever")), SASL_RELAY);
	assert_span(a.message, "whatever");
	assert_int_equal(sasl_relay(&a, span_of(big, sizeof(big))), SASL_MALFORMED);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(base64_has_one_spelling), cmocka_unit_test(plain_messages),
		cmocka_unit_test(login_messages), cmocka_unit_test(the_vector_of_rfc_7677), cmocka_unit_test(scram_first_messages),
		cmocka_unit_test(scram_final_messages), cmocka_unit_test(a_relayed_exchange) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
