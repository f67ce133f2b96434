/* Server certificates by name (SNI), tickets over servers that share keys, and what a client resumes: never more than was proved (F4, P23). */
#include "tests/support/unit.h"

#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <stdlib.h>
#include "dataplane/net/tls_cache.h"
#include "dataplane/net/tls_context.h"
#include "spool/base/clock.h"
#include "tests/support/tls_made.h"

#define DAY 86400L

static struct made ca;
static char ca_file[64];

/* ---- servers ---- */

struct pem {
	char *p;
	size_t n;
};

static struct pem pem_of(const struct made *m, bool key)
{
	struct pem r;
	FILE *f = open_memstream(&r.p, &r.n);

	assert_non_null(f);
	if (key)
		PEM_write_PrivateKey(f, m->key, NULL, NULL, 0, NULL, NULL);
	else
		PEM_write_X509(f, m->cert);
	fclose(f);
	return r;
}

static void add(struct tls_file *f, const struct made *m)
{
	struct pem chain = pem_of(m, false), key = pem_of(m, true);

	f->cert[f->ncert++] = (struct tls_pem){ span_of(chain.p, chain.n), span_of(key.p, key.n) };
}

static void done(struct tls_file *f)
{
	for (uint32_t i = 0; i < f->ncert; i++) {
		free((void *)(uintptr_t)f->cert[i].chain.p);
		free((void *)(uintptr_t)f->cert[i].key.p);
	}
}

static void ticket_key(struct tls_file *f, uint8_t fill)
{
	struct tls_ticket_key *k = &f->ticket[f->nticket++];

	memset(k, fill, sizeof(*k));
}

static struct tls_context *server(const struct tls_file *f)
{
	struct tls_context *t;

	assert_ok(tls_server_make(f, &(struct tls_server_options){ 0 }, &t));
	return t;
}

/* ---- names ---- */

/* The common name of the certificate that an OpenSSL client gets; rsa: it signs with RSA only. */
static void served(struct tls_context *t, const char *name, bool rsa, const char *expected)
{
	SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
	SSL *ssl = SSL_new(ctx);
	BIO *in = BIO_new(BIO_s_mem()), *out = BIO_new(BIO_s_mem());
	struct tls_session *s = tls_session_new(t, NULL);
	char buf[8192], cn[128] = "";
	X509 *x;
	size_t n;
	int r;

	BIO_set_mem_eof_return(in, -1);
	SSL_set_bio(ssl, in, out);
	SSL_set_connect_state(ssl);
	assert_int_equal(SSL_set1_sigalgs_list(ssl, rsa ? "RSA-PSS+SHA256:RSA+SHA256" : "ECDSA+SHA256:RSA-PSS+SHA256"), 1);
	if (name)
		assert_int_equal(SSL_set_tlsext_host_name(ssl, name), 1);
	for (int i = 0; i < 6 && SSL_do_handshake(ssl) != 1; i++) {
		while ((r = BIO_read(out, buf, sizeof(buf))) > 0)
			assert_true(tls_session_feed(s, span_of(buf, (size_t)r)));
		(void)tls_session_read(s, buf, sizeof(buf), &n);
		while ((n = tls_session_take(s, buf, sizeof(buf))) > 0)
			BIO_write(in, buf, (int)n);
	}
	x = SSL_get1_peer_certificate(ssl);
	if (x)
		X509_NAME_get_text_by_NID(X509_get_subject_name(x), NID_commonName, cn, sizeof(cn));
	assert_string_equal(cn, expected);
	X509_free(x);
	tls_session_free(s);
	SSL_free(ssl);
	SSL_CTX_free(ctx);
}

static void the_name_chooses_the_certificate(void **state)
{
	struct made one = make_cert("one", "DNS:mx.cam.example,DNS:relay.cam.example", &ca, -DAY, DAY),
		    wild = make_cert("wild", "DNS:*.dept.example,DNS:MX.Upper.Example", &ca, -DAY, DAY),
		    exact = make_cert("exact", "DNS:a.dept.example", &ca, -DAY, DAY), plain = make_cert("plain.example", "", &ca, -DAY, DAY);
	struct tls_file f = { 0 };
	struct tls_context *t;

	add(&f, &one);
	add(&f, &wild);
	add(&f, &exact);
	add(&f, &plain);
	t = server(&f);
	served(t, NULL, false, "one");
	served(t, "unknown.example", false, "one");
	served(t, "relay.cam.example", false, "one");
	served(t, "b.dept.example", false, "wild");
	served(t, "a.dept.example", false, "exact");
	served(t, "A.DEPT.example", false, "exact");
	served(t, "a.b.dept.example", false, "one"); /* a wildcard is one label */
	served(t, "dept.example", false, "one");
	served(t, "mx.upper.example", false, "wild");
	served(t, "plain.example", false, "plain.example"); /* without alternative names the common name counts */
	tls_context_free(t);
	done(&f);
	unmake_cert(&one);
	unmake_cert(&wild);
	unmake_cert(&exact);
	unmake_cert(&plain);
}

static void rsa_and_ecdsa_for_the_same_name(void **state)
{
	struct made ec = make_cert("ec", "DNS:mx.cam.example", &ca, -DAY, DAY),
		    rsa = make_cert_of(EVP_RSA_gen(2048), "rsa", "DNS:mx.cam.example,DNS:only.rsa.example", &ca, -DAY, DAY),
		    wild = make_cert("wild", "DNS:*.rsa.example", &ca, -DAY, DAY);
	struct tls_file f = { 0 };
	struct tls_context *t;

	add(&f, &ec);
	add(&f, &rsa);
	add(&f, &wild);
	t = server(&f);
	served(t, "mx.cam.example", false, "ec");
	served(t, "mx.cam.example", true, "rsa");
	served(t, NULL, false, "ec");
	served(t, NULL, true, "rsa");
	served(t, "only.rsa.example", true, "rsa");
	served(t, "only.rsa.example", false, "wild"); /* an exact name of one kind, a wildcard of the other */
	tls_context_free(t);
	done(&f);
	unmake_cert(&ec);
	unmake_cert(&rsa);
	unmake_cert(&wild);
}

static void a_key_of_another_certificate_is_refused(void **state)
{
	struct made a = make_cert("a", "DNS:a.example", &ca, -DAY, DAY), b = make_cert("b", "DNS:b.example", &ca, -DAY, DAY);
	struct tls_file f = { 0 };
	struct tls_context *t = NULL;
	struct span key;

	add(&f, &a);
	add(&f, &b);
	key = f.cert[1].key;
	f.cert[1].key = f.cert[0].key;
	assert_int_equal(tls_server_make(&f, &(struct tls_server_options){ 0 }, &t), ST_INVALID);
	f.cert[1].key = key;
	done(&f);
	f.ncert = 0;
	assert_int_equal(tls_server_make(&f, &(struct tls_server_options){ 0 }, &t), ST_INVALID);
	assert_null(t);
	unmake_cert(&a);
	unmake_cert(&b);
}

/* ---- resumption ---- */

/* Connects; gives whether it worked, and whether it was short. */
static bool meet(struct tls_context *client, struct tls_context *server_, const struct tls_peer *peer, bool *ret_resumed)
{
	struct tls_session *c = tls_session_new(client, peer), *s = tls_session_new(server_, NULL);
	enum tls_result r;

	assert_non_null(c);
	assert_non_null(s);
	r = tls_shake(c, s);
	*ret_resumed = tls_session_resumed(c);
	if (r == TLS_ON)
		assert_int_equal(tls_session_resumed(c), tls_session_resumed(s));
	tls_session_free(c);
	tls_session_free(s);
	return r == TLS_ON;
}

static struct tls_context *client_of(const char *authorities, uint32_t sessions)
{
	struct tls_context *t;

	assert_ok(tls_client_make(authorities, sessions, &t));
	return t;
}

static void any_server_with_the_key_resumes(void **state)
{
	struct made m = make_cert("m", "DNS:mx.cam.example", &ca, -DAY, DAY);
	struct tls_peer peer = { .check = TLS_CHECK_NAME, .name = SPAN("mx.cam.example") };
	struct tls_file f = { 0 }, none = { 0 };
	struct tls_context *c = client_of(ca_file, 10), *one, *two, *turned, *strange, *without;
	bool resumed;

	add(&f, &m);
	none = f;
	ticket_key(&f, 1);
	one = server(&f);
	two = server(&f);
	f.nticket = 0;
	ticket_key(&f, 2);
	ticket_key(&f, 1);
	turned = server(&f);
	f.nticket = 0;
	ticket_key(&f, 3);
	strange = server(&f);
	without = server(&none);

	assert_true(meet(c, one, &peer, &resumed) && !resumed);
	assert_true(meet(c, two, &peer, &resumed) && resumed);
	assert_true(meet(c, turned, &peer, &resumed) && resumed);  /* the key before this one is accepted */
	assert_true(meet(c, turned, &peer, &resumed) && resumed);
	assert_true(meet(c, one, &peer, &resumed) && !resumed);    /* and new tickets are of the new key */
	assert_true(meet(c, strange, &peer, &resumed) && !resumed); /* a whole handshake, no error */
	assert_true(meet(c, without, &peer, &resumed) && !resumed);
	assert_true(meet(c, without, &peer, &resumed) && !resumed);
	tls_context_free(one);
	tls_context_free(two);
	tls_context_free(turned);
	tls_context_free(strange);
	tls_context_free(without);
	tls_context_free(c);
	done(&f);
	unmake_cert(&m);
}

/* Every way to have made a session before, against every way to need one: only the same need finds it. */
static void a_session_is_resumed_only_for_what_was_proved(void **state)
{
	struct made m = make_cert("m", "DNS:mx.cam.example", NULL, -DAY, DAY); /* nobody's authority */
	uint8_t right[32], wrong[32] = { 0 };
	unsigned n;
	struct tlsa good = { TLSA_DANE_EE, 0, 1, span_of(right, sizeof(right)) }, bad = { TLSA_DANE_EE, 0, 1, span_of(wrong, sizeof(wrong)) };
	struct tls_peer none = { .check = TLS_CHECK_NONE, .name = SPAN("mx.cam.example") }, trial = none, name = none, dane = none, other_dane = none, other = none;
	struct tls_file f = { 0 };
	struct tls_context *c = client_of(ca_file, 10), *s;
	bool resumed;

	X509_digest(m.cert, EVP_sha256(), right, &n);
	trial.check = TLS_CHECK_TRIAL;
	name.check = TLS_CHECK_NAME;
	dane.check = other_dane.check = TLS_CHECK_TLSA;
	dane.tlsa = &good;
	other_dane.tlsa = &bad;
	dane.ntlsa = other_dane.ntlsa = 1;
	other.name = SPAN("other.example");
	add(&f, &m);
	ticket_key(&f, 1);
	s = server(&f);

	assert_true(meet(c, s, &none, &resumed) && !resumed);
	assert_false(meet(c, s, &name, &resumed));
	assert_true(meet(c, s, &trial, &resumed) && !resumed);
	assert_false(meet(c, s, &name, &resumed));
	assert_true(meet(c, s, &dane, &resumed) && !resumed);
	assert_false(meet(c, s, &other_dane, &resumed));
	assert_false(meet(c, s, &name, &resumed));
	assert_true(meet(c, s, &other, &resumed) && !resumed);
	/* each finds its own */
	assert_true(meet(c, s, &none, &resumed) && resumed);
	assert_true(meet(c, s, &trial, &resumed) && resumed);
	assert_true(meet(c, s, &dane, &resumed) && resumed);
	assert_true(meet(c, s, &other, &resumed) && resumed);
	tls_context_free(c);
	tls_context_free(s);
	done(&f);
	unmake_cert(&m);
}

static void tls_1_2_is_resumed_too(void **state)
{
	struct made m = make_cert("m", "DNS:mx.cam.example", &ca, -DAY, DAY);
	struct tls_peer peer = { .check = TLS_CHECK_NAME, .name = SPAN("mx.cam.example") };
	struct tls_file f = { 0 };
	struct tls_context *c = client_of(ca_file, 10), *s;
	bool resumed;

	add(&f, &m);
	ticket_key(&f, 1);
	s = server(&f);
	SSL_CTX_set_max_proto_version(s->ctx, TLS1_2_VERSION);
	assert_true(meet(c, s, &peer, &resumed) && !resumed);
	for (int i = 0; i < 3; i++)
		assert_true(meet(c, s, &peer, &resumed) && resumed);
	tls_context_free(c);
	tls_context_free(s);
	done(&f);
	unmake_cert(&m);
}

/* What the cache has for this peer, which it has no more then; and how long that is good from now. NULL: nothing. */
static SSL_SESSION *kept_for(struct tls_context *c, const struct tls_peer *peer, uint64_t *ret_ns)
{
	struct tls_cache_use use = { 0 };
	SSL *ssl = SSL_new(c->ctx);
	SSL_SESSION *session;

	assert_non_null(ssl);
	assert_true(tls_cache_key(peer, &use.key));
	tls_cache_begin(c->cache, ssl, &use);
	session = SSL_get1_session(ssl);
	*ret_ns = session ? use.until_ns - clock_mono_ns() : 0;
	SSL_free(ssl);
	return session;
}

/* Parsing the peer's certificate took half a resumed handshake; what was found of it is kept instead, and lasts no longer for being used. */
static void a_session_is_kept_without_the_certificate_but_not_beyond_it(void **state)
{
	const struct {
		long valid_s;
		uint64_t least_s, most_s;
	} row[] = { { 3000, 2900, 3000 }, { 2 * DAY, 7100, 7200 } };
	struct tls_peer peer = { .check = TLS_CHECK_NAME, .name = SPAN("mx.cam.example") };

	for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++)
		for (size_t i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
			struct made m = make_cert("m", "DNS:mx.cam.example", &ca, -DAY, row[i].valid_s);
			struct tls_file f = { 0 };
			struct tls_context *c = client_of(ca_file, 10), *s;
			SSL_SESSION *session;
			uint64_t ns, wall = clock_wall_ns(), mono = clock_mono_ns();
			bool resumed;

			add(&f, &m);
			ticket_key(&f, 1);
			s = server(&f);
			SSL_CTX_set_max_proto_version(s->ctx, version);
			assert_true(meet(c, s, &peer, &resumed) && !resumed);
			session = kept_for(c, &peer, &ns);
			assert_non_null(session);
			assert_null(SSL_SESSION_get0_peer(session));
			assert_in_range(ns / NS_PER_S, row[i].least_s, row[i].most_s);
			SSL_SESSION_free(session);
			assert_true(meet(c, s, &peer, &resumed) && !resumed);
			clock_fake(mono + 2000 * NS_PER_S, wall + 2000 * NS_PER_S);
			assert_true(meet(c, s, &peer, &resumed) && resumed);
			session = kept_for(c, &peer, &ns);
			assert_non_null(session);
			SSL_SESSION_free(session);
			assert_in_range(ns / NS_PER_S, row[i].least_s - 2000, row[i].most_s - 2000);
			clock_fake_off();
			assert_true(meet(c, s, &peer, &resumed) && !resumed);
			clock_fake(mono + 7300 * NS_PER_S, wall + 7300 * NS_PER_S);
			assert_true(meet(c, s, &peer, &resumed) && !resumed);
			clock_fake_off();
			tls_context_free(c);
			tls_context_free(s);
			done(&f);
			unmake_cert(&m);
		}
}

static void the_cache_is_bounded_and_forgets(void **state)
{
	struct made m = make_cert("m", "DNS:mx.cam.example", &ca, -DAY, DAY);
	struct tls_file f = { 0 };
	struct tls_context *c = client_of(ca_file, 3), *s, *off = client_of(ca_file, 0);
	struct tls_peer peer = { .check = TLS_CHECK_NONE };
	char name[32];
	bool resumed;

	add(&f, &m);
	ticket_key(&f, 1);
	s = server(&f);
	for (int i = 0; i < 6; i++) {
		snprintf(name, sizeof(name), "mx%d.example", i);
		peer.name = span_str(name);
		assert_true(meet(c, s, &peer, &resumed) && !resumed);
	}
	peer.name = SPAN("mx5.example");
	assert_true(meet(c, s, &peer, &resumed) && resumed);
	peer.name = SPAN("mx2.example");
	assert_true(meet(c, s, &peer, &resumed) && !resumed);
	clock_fake(clock_mono_ns() + 3 * 3600 * NS_PER_S, clock_wall_ns());
	peer.name = SPAN("mx5.example");
	assert_true(meet(c, s, &peer, &resumed) && !resumed); /* too old */
	clock_fake_off();
	for (int i = 0; i < 2; i++)
		assert_true(meet(off, s, &peer, &resumed) && !resumed);
	tls_context_free(c);
	tls_context_free(off);
	tls_context_free(s);
	done(&f);
	unmake_cert(&m);
}

/* ---- */

static int begin(void **state)
{
	FILE *f;
	int fd;

	snprintf(ca_file, sizeof(ca_file), "/tmp/weir-ca-XXXXXX");
	fd = mkstemp(ca_file);
	f = fd >= 0 ? fdopen(fd, "w") : NULL;
	assert_non_null(f);
	ca = make_cert("Test Authority", NULL, NULL, -DAY, DAY);
	PEM_write_X509(f, ca.cert);
	fclose(f);
	return 0;
}

static int end(void **state)
{
	remove(ca_file);
	unmake_cert(&ca);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(the_name_chooses_the_certificate), cmocka_unit_test(rsa_and_ecdsa_for_the_same_name),
		cmocka_unit_test(a_key_of_another_certificate_is_refused), cmocka_unit_test(any_server_with_the_key_resumes),
		cmocka_unit_test(a_session_is_resumed_only_for_what_was_proved), cmocka_unit_test(tls_1_2_is_resumed_too),
		cmocka_unit_test(a_session_is_kept_without_the_certificate_but_not_beyond_it),
		cmocka_unit_test(the_cache_is_bounded_and_forgets) };

	return cmocka_run_group_tests(tests, begin, end);
}
