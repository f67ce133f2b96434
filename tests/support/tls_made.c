#include "tests/support/tls_made.h"

#include <openssl/x509v3.h>
#include "tests/support/unit.h"

static void add_extension(X509 *x, X509 *issuer, int nid, const char *value)
{
	X509V3_CTX v;
	X509_EXTENSION *e;

	X509V3_set_ctx(&v, issuer, x, NULL, NULL, 0);
	e = X509V3_EXT_conf_nid(NULL, &v, nid, value);
	assert_non_null(e);
	X509_add_ext(x, e, -1);
	X509_EXTENSION_free(e);
}

struct made make_cert_of(EVP_PKEY *key, const char *name, const char *alt, const struct made *by, long from, long to)
{
	struct made m = { key, X509_new() };
	X509 *issuer = by ? by->cert : m.cert;
	static long serial;

	X509_set_version(m.cert, 2);
	ASN1_INTEGER_set(X509_get_serialNumber(m.cert), ++serial);
	X509_gmtime_adj(X509_getm_notBefore(m.cert), from);
	X509_gmtime_adj(X509_getm_notAfter(m.cert), to);
	X509_set_pubkey(m.cert, m.key);
	X509_NAME_add_entry_by_txt(X509_get_subject_name(m.cert), "CN", MBSTRING_ASC, (const unsigned char *)name, -1, -1, 0);
	X509_set_issuer_name(m.cert, X509_get_subject_name(issuer));
	add_extension(m.cert, issuer, NID_basic_constraints, alt ? "CA:FALSE" : "critical,CA:TRUE");
	if (alt && *alt)
		add_extension(m.cert, issuer, NID_subject_alt_name, alt);
	assert_true(X509_sign(m.cert, by ? by->key : m.key, EVP_sha256()) > 0);
	return m;
}

struct made make_cert(const char *name, const char *alt, const struct made *by, long from, long to)
{
	return make_cert_of(EVP_EC_gen("P-256"), name, alt, by, from, to);
}

void unmake_cert(struct made *m)
{
	EVP_PKEY_free(m->key);
	X509_free(m->cert);
}

void tls_carry(struct tls_session *from, struct tls_session *to)
{
	char buf[16384];
	size_t n;

	while ((n = tls_session_take(from, buf, sizeof(buf))) > 0)
		assert_true(tls_session_feed(to, span_of(buf, n)));
}

enum tls_result tls_shake(struct tls_session *client, struct tls_session *server)
{
	enum tls_result r = TLS_MORE;
	char buf[64];
	size_t n;

	for (int i = 0; i < 10 && r == TLS_MORE; i++) {
		r = tls_session_read(client, buf, sizeof(buf), &n);
		tls_carry(client, server);
		(void)tls_session_read(server, buf, sizeof(buf), &n);
		tls_carry(server, client);
	}
	if (r == TLS_ON)
		(void)tls_session_read(client, buf, sizeof(buf), &n);
	return r;
}
