/* What a client takes for its peer: handshakes in memory with certificates made here, of every fault. */
#include "tests/support/unit.h"

#include <openssl/pem.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "tests/support/tls_made.h"

static struct made ca;
static struct tls_context *client;
static char dir[64];

/* ---- certificates ---- */

/* A server with this certificate; with the authority's behind it when chain is set. */
static struct tls_context *server_of(const struct made *m, bool chain)
{
	char cert[128], key[128];
	struct tls_context *t = NULL;
	FILE *f;

	snprintf(cert, sizeof(cert), "%s/cert", dir);
	snprintf(key, sizeof(key), "%s/key", dir);
	f = fopen(cert, "w");
	assert_non_null(f);
	PEM_write_X509(f, m->cert);
	if (chain)
		PEM_write_X509(f, ca.cert);
	fclose(f);
	f = fopen(key, "w");
	assert_non_null(f);
	PEM_write_PrivateKey(f, m->key, NULL, NULL, 0, NULL, NULL);
	fclose(f);
	assert_ok(tls_server_new(cert, key, &t));
	return t;
}

/* ---- handshakes ---- */

/* True when the client takes the server. */
static bool shake(const struct made *m, bool chain, const struct tls_peer *peer, enum tls_fault *ret_fault)
{
	struct tls_context *st = server_of(m, chain);
	struct tls_session *c = tls_session_new(client, peer), *s = tls_session_new(st, NULL);
	enum tls_result r;
	const char *text;

	assert_non_null(s);
	assert_non_null(c);
	r = tls_shake(c, s);
	*ret_fault = tls_session_fault(c, &text);
	assert_non_null(text);
	tls_session_free(c);
	tls_session_free(s);
	tls_context_free(st);
	return r == TLS_ON;
}

#define DAY 86400L

static void expect(const char *alt, const struct made *by, long to, const char *name, enum tls_fault fault)
{
	struct made m = make_cert("server", alt, by, -2 * DAY, to);
	struct tls_peer peer = { .check = TLS_CHECK_NAME, .name = span_str(name) };
	enum tls_fault got;

	assert_int_equal(shake(&m, false, &peer, &got), fault == TLS_FAULT_NONE);
	assert_int_equal(got, fault);
	peer.check = TLS_CHECK_TRIAL; /* notes the same and goes on */
	assert_true(shake(&m, false, &peer, &got));
	assert_int_equal(got, fault);
	peer.check = TLS_CHECK_NONE;
	assert_true(shake(&m, false, &peer, &got));
	unmake_cert(&m);
}

static void names(void **state)
{
	expect("DNS:mx.cam.example", &ca, DAY, "mx.cam.example", TLS_FAULT_NONE);
	expect("DNS:MX.cam.example", &ca, DAY, "mx.CAM.example", TLS_FAULT_NONE);
	expect("DNS:*.cam.example", &ca, DAY, "mx.cam.example", TLS_FAULT_NONE);
	expect("DNS:*.cam.example", &ca, DAY, "a.mx.cam.example", TLS_FAULT_NAME);
	expect("DNS:m*.cam.example", &ca, DAY, "mx.cam.example", TLS_FAULT_NAME);
	expect("DNS:mx.cam.example.evil.example", &ca, DAY, "mx.cam.example", TLS_FAULT_NAME);
	expect("DNS:other.example", &ca, DAY, "server", TLS_FAULT_NAME); /* the common name does not count beside alternative ones */
	expect("IP:192.0.2.1", &ca, DAY, "[192.0.2.1]", TLS_FAULT_NONE);
	expect("IP:192.0.2.1", &ca, DAY, "192.0.2.2", TLS_FAULT_NAME);
	expect("DNS:192.0.2.1", &ca, DAY, "192.0.2.1", TLS_FAULT_NAME);
}

static void dates_and_authorities(void **state)
{
	struct made other = make_cert("Other Authority", NULL, NULL, -DAY, DAY);

	expect("DNS:mx.cam.example", &ca, -DAY, "mx.cam.example", TLS_FAULT_EXPIRED);
	expect("DNS:mx.cam.example", &other, DAY, "mx.cam.example", TLS_FAULT_NOT_TRUSTED);
	expect("DNS:mx.cam.example", NULL, DAY, "mx.cam.example", TLS_FAULT_NOT_TRUSTED);
	unmake_cert(&other);
}

/* ---- DANE ---- */

static unsigned char full[4096], digest[64];

static struct tlsa tlsa_of(X509 *x, uint8_t usage, uint8_t selector, uint8_t matching)
{
	unsigned char *p = full;
	int n = selector ? i2d_X509_PUBKEY(X509_get_X509_PUBKEY(x), &p) : i2d_X509(x, &p);

	assert_true(n > 0);
	if (matching == 1)
		SHA256(full, (size_t)n, digest);
	else if (matching == 2)
		SHA512(full, (size_t)n, digest);
	return (struct tlsa){ usage, selector, matching, matching ? span_of(digest, matching == 1 ? 32 : 64) : span_of(full, (size_t)n) };
}

static void dane(const struct made *m, bool chain, const struct tlsa *t, const char *also, enum tls_fault fault)
{
	struct tls_peer peer = { .check = TLS_CHECK_TLSA, .name = SPAN("mx.cam.example"), .also = span_str(also), .tlsa = t, .ntlsa = 1 };
	enum tls_fault got;

	assert_int_equal(shake(m, chain, &peer, &got), fault == TLS_FAULT_NONE);
	assert_int_equal(got, fault);
}

static void dane_ee_wants_the_key_and_nothing_else(void **state)
{
	struct made old = make_cert("elsewhere", "DNS:elsewhere.example", NULL, -2 * DAY, -DAY), other = make_cert("x", "DNS:mx.cam.example", &ca, -DAY, DAY);

	for (uint8_t selector = 0; selector < 2; selector++)
		for (uint8_t matching = 0; matching < 3; matching++) {
			struct tlsa t = tlsa_of(old.cert, TLSA_DANE_EE, selector, matching);

			dane(&old, false, &t, NULL, TLS_FAULT_NONE);
			dane(&other, false, &t, NULL, TLS_FAULT_TLSA);
			dane(&other, true, &t, NULL, TLS_FAULT_TLSA); /* an authority's word is nothing here */
		}
	unmake_cert(&old);
	unmake_cert(&other);
}

static void dane_ta_wants_chain_name_and_dates(void **state)
{
	struct made good = make_cert("m", "DNS:mx.cam.example", &ca, -DAY, DAY), name = make_cert("m", "DNS:other.example", &ca, -DAY, DAY),
		    late = make_cert("m", "DNS:mx.cam.example", &ca, -2 * DAY, -DAY), self = make_cert("m", "DNS:mx.cam.example", NULL, -DAY, DAY);
	struct tlsa t = tlsa_of(ca.cert, TLSA_DANE_TA, 1, 1);

	dane(&good, true, &t, NULL, TLS_FAULT_NONE);
	dane(&name, true, &t, NULL, TLS_FAULT_NAME);
	dane(&name, true, &t, "other.example", TLS_FAULT_NONE); /* the next-hop domain will do (RFC 7672 3.2.2) */
	dane(&late, true, &t, NULL, TLS_FAULT_EXPIRED);
	{
		struct tls_peer peer = { .check = TLS_CHECK_TLSA, .name = SPAN("mx.cam.example"), .tlsa = &t, .ntlsa = 1 };
		enum tls_fault got;

		assert_false(shake(&self, true, &peer, &got));
	}
	unmake_cert(&good);
	unmake_cert(&name);
	unmake_cert(&late);
	unmake_cert(&self);
}

static void what_cannot_be_checked_is_not_begun(void **state)
{
	struct tls_peer peer = { .check = TLS_CHECK_TLSA, .name = SPAN("mx.cam.example") };

	assert_null(tls_session_new(client, &peer)); /* no record */
	peer = (struct tls_peer){ .check = TLS_CHECK_NAME };
	assert_null(tls_session_new(client, &peer)); /* no name */
	peer.name = SPAN("mx\0.cam.example");
	assert_null(tls_session_new(client, &peer));
}

static int begin(void **state)
{
	char path[128];
	FILE *f;

	snprintf(dir, sizeof(dir), "/tmp/weir-tls-XXXXXX");
	assert_non_null(mkdtemp(dir));
	ca = make_cert("Test Authority", NULL, NULL, -DAY, DAY);
	snprintf(path, sizeof(path), "%s/ca", dir);
	f = fopen(path, "w");
	assert_non_null(f);
	PEM_write_X509(f, ca.cert);
	fclose(f);
	assert_ok(tls_client_new(path, &client));
	return 0;
}

static int end(void **state)
{
	static const char *const file[] = { "ca", "cert", "key" };
	char path[128];

	for (size_t i = 0; i < 3; i++) {
		snprintf(path, sizeof(path), "%s/%s", dir, file[i]);
		unlink(path);
	}
	rmdir(dir);
	tls_context_free(client);
	unmake_cert(&ca);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(names), cmocka_unit_test(dates_and_authorities),
		cmocka_unit_test(dane_ee_wants_the_key_and_nothing_else), cmocka_unit_test(dane_ta_wants_chain_name_and_dates),
		cmocka_unit_test(what_cannot_be_checked_is_not_begun) };

	return cmocka_run_group_tests(tests, begin, end);
}
