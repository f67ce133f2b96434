/* Server certificates by the name that a client asks for (SNI, RFC 6066 3). For each name there may be an RSA certificate and an ECDSA one: OpenSSL takes the one that suits the
 * client. Each pair that some name leads to has an SSL_CTX; only certificates are taken from it, all else from the one that the session began with. */
#include <ctype.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include "dataplane/net/tls_context.h"
#include "spool/base/map.h"

enum kind { KIND_RSA, KIND_EC, NKIND }; /* everything that is not RSA counts as EC: one of each fits into a context */
enum { NAME_MAX_LEN = 254 };

struct cert {
	X509 *leaf;
	STACK_OF(X509) *chain;
	EVP_PKEY *key;
	enum kind kind;
	struct map *names; /* lower case -> itself */
};

/* What of the certificates serves a name: index, or -1. */
struct pair {
	int of[NKIND];
};

struct sni {
	struct map *by_name; /* "mx.cam.example", "*.cam.example" -> SSL_CTX; owned by made */
	SSL_CTX *made[TLS_CERTS_MAX * TLS_CERTS_MAX / 4 + TLS_CERTS_MAX];
	struct pair pair[TLS_CERTS_MAX * TLS_CERTS_MAX / 4 + TLS_CERTS_MAX];
	unsigned nmade;
};

/* ---- certificates ---- */

static void cert_done(struct cert *c)
{
	X509_free(c->leaf);
	sk_X509_pop_free(c->chain, X509_free);
	EVP_PKEY_free(c->key);
	map_free(c->names);
}

static bool name_add(struct cert *c, const ASN1_STRING *s)
{
	char name[NAME_MAX_LEN + 1];
	int n = ASN1_STRING_length(s);

	if (n <= 0 || n > NAME_MAX_LEN || memchr(ASN1_STRING_get0_data(s), 0, (size_t)n))
		return true; /* nobody can ask for it */
	for (int i = 0; i < n; i++)
		name[i] = (char)tolower(ASN1_STRING_get0_data(s)[i]);
	return map_set(c->names, span_of(name, (size_t)n), c) == ST_OK;
}

/* The DNS names of its subjectAltName; only without any the common name counts (RFC 6125 6.4.4). */
static bool names_read(struct cert *c)
{
	GENERAL_NAMES *all = X509_get_ext_d2i(c->leaf, NID_subject_alt_name, NULL, NULL);
	X509_NAME *subject = X509_get_subject_name(c->leaf);
	int cn = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
	bool ok = true;

	for (int i = 0; i < sk_GENERAL_NAME_num(all) && ok; i++) {
		const GENERAL_NAME *g = sk_GENERAL_NAME_value(all, i);

		if (g->type == GEN_DNS)
			ok = name_add(c, g->d.dNSName);
	}
	GENERAL_NAMES_free(all);
	if (ok && !map_len(c->names) && cn >= 0)
		ok = name_add(c, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, cn)));
	return ok;
}

static enum status cert_read(struct cert *c, const struct tls_pem *pem)
{
	BIO *chain = BIO_new_mem_buf(pem->chain.p, (int)pem->chain.n), *key = BIO_new_mem_buf(pem->key.p, (int)pem->key.n);
	enum status st = ST_OK;
	X509 *x;

	c->chain = sk_X509_new_null();
	if (!chain || !key || !c->chain || map_new(&c->names) != ST_OK)
		st = ST_NOMEM;
	else if (!(c->leaf = PEM_read_bio_X509_AUX(chain, NULL, NULL, NULL)))
		st = tls_trail("certificate", NULL);
	else if (!(c->key = PEM_read_bio_PrivateKey(key, NULL, NULL, NULL)))
		st = tls_trail("key", NULL);
	while (st == ST_OK && (x = PEM_read_bio_X509(chain, NULL, NULL, NULL)))
		if (!sk_X509_push(c->chain, x)) {
			X509_free(x);
			st = ST_NOMEM;
		}
	if (st == ST_OK && !names_read(c))
		st = ST_NOMEM;
	if (st == ST_OK)
		c->kind = EVP_PKEY_get_base_id(c->key) == EVP_PKEY_RSA || EVP_PKEY_get_base_id(c->key) == EVP_PKEY_RSA_PSS ? KIND_RSA : KIND_EC;
	BIO_free(chain);
	BIO_free(key);
	return st;
}

/* ---- pairs ---- */

static struct span wildcard_of(struct span name, char *buf)
{
	const char *dot = memchr(name.p, '.', name.n);

	if (!dot || dot == name.p || name.n > NAME_MAX_LEN)
		return SPAN_NONE;
	buf[0] = '*';
	memcpy(buf + 1, dot, name.n - (size_t)(dot - name.p));
	return span_of(buf, 1 + name.n - (size_t)(dot - name.p));
}

/* The first certificate of each kind with that very name, else the first one with a wildcard for it. */
static struct pair pair_for(const struct cert *c, unsigned n, struct span name)
{
	char buf[NAME_MAX_LEN + 2];
	struct span wild = wildcard_of(name, buf);
	struct pair p = { .of = { -1, -1 } };

	for (unsigned i = n; i-- > 0;)
		if (wild.n && map_get(c[i].names, wild))
			p.of[c[i].kind] = (int)i;
	for (unsigned i = n; i-- > 0;)
		if (map_get(c[i].names, name))
			p.of[c[i].kind] = (int)i;
	return p;
}

static enum status pair_put(SSL_CTX *ctx, const struct cert *c, const struct pair *p)
{
	for (unsigned k = 0; k < NKIND; k++)
		if (p->of[k] >= 0 && SSL_CTX_use_cert_and_key(ctx, c[p->of[k]].leaf, c[p->of[k]].key, c[p->of[k]].chain, 1) != 1)
			return tls_trail("certificate and key", NULL);
	return ST_OK;
}

/* The context of a pair: one for all names that lead to it. */
static enum status made_for(struct sni *s, const struct cert *c, const struct tls_file *f, const struct pair *p, SSL_CTX **ret)
{
	unsigned i = 0;
	enum status st;

	while (i < s->nmade && memcmp(&s->pair[i], p, sizeof(*p)) != 0)
		i++;
	if (i < s->nmade) {
		*ret = s->made[i];
		return ST_OK;
	}
	if (i == sizeof(s->made) / sizeof(s->made[0]) || !(*ret = SSL_CTX_new(TLS_server_method())))
		return ST_NOMEM;
	s->made[i] = *ret;
	s->pair[i] = *p;
	s->nmade++;
	st = pair_put(*ret, c, p);
	return st == ST_OK && !tls_ticket_use(*ret, f) ? ST_NOMEM : st;
}

static enum status names_put(struct sni *s, const struct cert *c, unsigned n, const struct tls_file *f)
{
	for (unsigned i = 0; i < n; i++) {
		struct span name;
		void *value;

		for (size_t pos = 0; map_next(c[i].names, &pos, &name, &value);) {
			struct pair p = pair_for(c, n, name);
			SSL_CTX *ctx;
			enum status st = made_for(s, c, f, &p, &ctx);

			if (st == ST_OK)
				st = map_set(s->by_name, name, ctx);
			if (st != ST_OK)
				return st;
		}
	}
	return ST_OK;
}

/* For whoever names nothing that is known: the first certificate, and the first of the other kind that has one of its names. */
static struct pair pair_default(const struct cert *c, unsigned n)
{
	enum kind other = c[0].kind == KIND_RSA ? KIND_EC : KIND_RSA;
	struct pair p = { .of = { -1, -1 } };
	struct span name;
	void *value;

	for (size_t pos = 0; map_next(c[0].names, &pos, &name, &value);) {
		struct pair with = pair_for(c, n, name);

		if (with.of[other] >= 0 && (p.of[other] < 0 || with.of[other] < p.of[other]))
			p.of[other] = with.of[other];
	}
	p.of[c[0].kind] = 0;
	return p;
}

/* ---- in the handshake ---- */

static void sni_free(struct sni *s)
{
	if (!s)
		return;
	for (unsigned i = 0; i < s->nmade; i++)
		SSL_CTX_free(s->made[i]);
	map_free(s->by_name);
	OPENSSL_free(s);
}

static void sni_done(void *parent, void *ptr, CRYPTO_EX_DATA *ad, int idx, long argl, void *argp)
{
	(void)parent, (void)ad, (void)idx, (void)argl, (void)argp;
	sni_free(ptr);
}

static int sni_index(void)
{
	static int index = -1;

	if (index < 0)
		index = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, sni_done);
	return index;
}

static int on_name(SSL *ssl, int *alert, void *arg)
{
	const struct sni *s = arg;
	const char *asked = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
	char name[NAME_MAX_LEN + 1], buf[NAME_MAX_LEN + 2];
	size_t n = asked ? strlen(asked) : 0;
	struct span wild;
	SSL_CTX *ctx;

	(void)alert;
	if (!n || n > NAME_MAX_LEN)
		return SSL_TLSEXT_ERR_NOACK;
	for (size_t i = 0; i < n; i++)
		name[i] = (char)tolower((unsigned char)asked[i]);
	n -= name[n - 1] == '.';
	ctx = map_get(s->by_name, span_of(name, n));
	wild = wildcard_of(span_of(name, n), buf);
	if (!ctx && wild.n)
		ctx = map_get(s->by_name, wild);
	if (!ctx)
		return SSL_TLSEXT_ERR_NOACK;
	SSL_set_SSL_CTX(ssl, ctx);
	return SSL_TLSEXT_ERR_OK;
}

static enum status sni_build(SSL_CTX *ctx, const struct cert *c, const struct tls_file *f)
{
	struct pair first = pair_default(c, f->ncert);
	struct sni *s = OPENSSL_zalloc(sizeof(*s));
	enum status st = s ? map_new(&s->by_name) : ST_NOMEM;

	if (st == ST_OK)
		st = names_put(s, c, f->ncert, f);
	if (st == ST_OK)
		st = pair_put(ctx, c, &first);
	if (st == ST_OK && !SSL_CTX_set_ex_data(ctx, sni_index(), s))
		st = ST_NOMEM;
	if (st != ST_OK) {
		sni_free(s);
		return st;
	}
	SSL_CTX_set_tlsext_servername_callback(ctx, on_name);
	SSL_CTX_set_tlsext_servername_arg(ctx, s);
	return ST_OK;
}

enum status tls_sni_use(SSL_CTX *ctx, const struct tls_file *f)
{
	struct cert c[TLS_CERTS_MAX] = { 0 };
	enum status st = f->ncert ? ST_OK : trail(ST_INVALID, "there is no server certificate");
	unsigned n = 0;

	while (st == ST_OK && n < f->ncert)
		st = cert_read(&c[n], &f->cert[n]), n++;
	if (st == ST_OK)
		st = sni_build(ctx, c, f);
	for (unsigned i = 0; i < n; i++)
		cert_done(&c[i]);
	ERR_clear_error(); /* the end of each chain is one */
	return st;
}
