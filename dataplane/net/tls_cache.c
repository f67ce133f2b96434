#include "dataplane/net/tls_cache.h"

#include <openssl/asn1.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/x509.h>
#include <stdlib.h>
#include <sys/queue.h>
#include "dataplane/net/tls_identity.h"
#include "spool/base/clock.h"
#include "spool/base/map.h"

/* A revoked or replaced certificate is noticed after this time, at the latest. */
#define LIFE_NS (2 * 3600 * NS_PER_S)
enum { BYTES_MAX = 16 * 1024, PEER_TAG = 3 /* [3]: the peer's certificate, in SSL_SESSION's DER (i2d_SSL_SESSION(3)) */ };

struct kept {
	TAILQ_ENTRY(kept) entry;
	struct tls_cache_key key;
	uint64_t until_ns;
	size_t n;
	unsigned char bytes[]; /* DER */
};

struct tls_cache {
	TAILQ_HEAD(keeps, kept) all; /* the newest first */
	struct map *by_key;
	uint32_t max;
};

static int cache_index(void); /* of an SSL_CTX */
static int use_index(void);   /* of an SSL */

static struct span key_span(const struct tls_cache_key *k)
{
	return span_of(k->digest, sizeof(k->digest));
}

static void drop(struct tls_cache *c, struct kept *k)
{
	map_del(c->by_key, key_span(&k->key));
	TAILQ_REMOVE(&c->all, k, entry);
	OPENSSL_clear_free(k, sizeof(*k) + k->n);
}

static void cache_free(struct tls_cache *c)
{
	struct kept *k;

	while ((k = TAILQ_FIRST(&c->all)))
		drop(c, k);
	map_free(c->by_key);
	free(c);
}

static void cache_done(void *parent, void *ptr, CRYPTO_EX_DATA *ad, int idx, long argl, void *argp)
{
	(void)parent, (void)ad, (void)idx, (void)argl, (void)argp;
	if (ptr)
		cache_free(ptr);
}

static int cache_index(void)
{
	static int index = -1;

	if (index < 0)
		index = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, cache_done);
	return index;
}

static int use_index(void)
{
	static int index = -1;

	if (index < 0)
		index = SSL_get_ex_new_index(0, NULL, NULL, NULL, NULL);
	return index;
}

/* ---- what is kept ---- */

/* The session's DER without the peer's certificate, in place. 0: it is not what was expected. */
static size_t strip_peer(unsigned char *der, size_t n)
{
	const unsigned char *p = der, *end = der + n;
	unsigned char *to, *begin;
	long len;
	int tag, class;

	if ((ASN1_get_object(&p, &len, &tag, &class, (long)n) & 0x80) || tag != V_ASN1_SEQUENCE || p + len != end)
		return 0;
	to = begin = der + (p - der);
	while (p < end) {
		const unsigned char *element = p;

		if ((ASN1_get_object(&p, &len, &tag, &class, end - p) & 0x80) || len > end - p)
			return 0;
		p += len;
		if (class == V_ASN1_CONTEXT_SPECIFIC && tag == PEER_TAG)
			continue;
		memmove(to, element, (size_t)(p - element));
		to += p - element;
	}
	len = to - begin;
	to = der;
	ASN1_put_object(&to, 1, (int)len, V_ASN1_SEQUENCE, V_ASN1_UNIVERSAL);
	memmove(to, begin, (size_t)len); /* a shorter length may take fewer octets */
	return (size_t)(to - der + len);
}

/* How long what was found of the peer's certificate holds: not beyond its end, if that counted. A session that was resumed has none, and goes on as long as before. */
static uint64_t good_until(const struct tls_cache_use *use, SSL_SESSION *session)
{
	const X509 *peer = SSL_SESSION_get0_peer(session);
	uint64_t now = clock_mono_ns(), life = LIFE_NS;
	time_t wall = (time_t)(clock_wall_ns() / NS_PER_S);
	ASN1_TIME *at;
	int days, s;

	if (!peer)
		return use->until_ns;
	at = ASN1_TIME_set(NULL, wall);
	if (at && ASN1_TIME_diff(&days, &s, at, X509_get0_notAfter(peer)) == 1 && days == 0 && s > 0 && (unsigned)s * NS_PER_S < life)
		life = (unsigned)s * NS_PER_S;
	ASN1_TIME_free(at);
	return now + life;
}

static void insert(struct tls_cache *c, const struct tls_cache_key *key, uint64_t until_ns, const unsigned char *der, size_t n)
{
	struct kept *k;

	if (map_len(c->by_key) >= c->max)
		drop(c, TAILQ_LAST(&c->all, keeps));
	k = OPENSSL_zalloc(sizeof(*k) + n);
	if (!k)
		return;
	k->key = *key;
	k->until_ns = until_ns;
	k->n = n;
	memcpy(k->bytes, der, n);
	if (map_set(c->by_key, key_span(key), k) != ST_OK) {
		OPENSSL_clear_free(k, sizeof(*k) + k->n);
		return;
	}
	TAILQ_INSERT_HEAD(&c->all, k, entry);
}

static void put(struct tls_cache *c, const struct tls_cache_use *use, SSL_SESSION *session)
{
	struct kept *old = map_get(c->by_key, key_span(&use->key));
	uint64_t until_ns = good_until(use, session);
	unsigned char *der = NULL;
	int n = SSL_SESSION_is_resumable(session) && until_ns ? i2d_SSL_SESSION(session, &der) : 0;
	size_t left;

	if (old)
		drop(c, old);
	if (n <= 0)
		return;
	left = strip_peer(der, (size_t)n);
	if (left && left <= BYTES_MAX)
		insert(c, &use->key, until_ns, der, left);
	OPENSSL_clear_free(der, (size_t)n);
}

static SSL_SESSION *take(struct tls_cache *c, struct tls_cache_use *use)
{
	struct kept *k = map_get(c->by_key, key_span(&use->key));
	SSL_SESSION *session = NULL;
	const unsigned char *from;

	if (!k)
		return NULL;
	from = k->bytes;
	use->until_ns = k->until_ns;
	if (clock_mono_ns() < k->until_ns)
		session = d2i_SSL_SESSION(NULL, &from, (long)k->n);
	drop(c, k);
	return session;
}

/* OpenSSL has a session for us: below TLS 1.3 in the handshake, else whenever a ticket comes. What was not checked as its key says is not kept. */
static int on_session(SSL *ssl, SSL_SESSION *session)
{
	struct tls_cache *c = SSL_CTX_get_ex_data(SSL_get_SSL_CTX(ssl), cache_index());
	const struct tls_cache_use *use = SSL_get_ex_data(ssl, use_index());

	if (c && use && (SSL_get_verify_mode(ssl) == SSL_VERIFY_NONE || SSL_get_verify_result(ssl) == X509_V_OK))
		put(c, use, session);
	return 0; /* it stays OpenSSL's */
}

/* ---- the outside ---- */

struct tls_cache *tls_cache_new(SSL_CTX *ctx, uint32_t max)
{
	struct tls_cache *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	TAILQ_INIT(&c->all);
	c->max = max;
	if (map_new(&c->by_key) != ST_OK || !SSL_CTX_set_ex_data(ctx, cache_index(), c)) {
		cache_free(c);
		return NULL;
	}
	SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
	SSL_CTX_sess_set_new_cb(ctx, on_session);
	return c;
}

static bool add(EVP_MD_CTX *md, struct span s)
{
	uint64_t n = s.n;

	return EVP_DigestUpdate(md, &n, sizeof(n)) == 1 && (!n || EVP_DigestUpdate(md, s.p, s.n) == 1);
}

bool tls_cache_key(const struct tls_peer *peer, struct tls_cache_key *ret)
{
	EVP_MD_CTX *md = EVP_MD_CTX_new();
	uint8_t head[2] = { (uint8_t)peer->check, (uint8_t)peer->ntlsa };
	bool ok = md && EVP_DigestInit_ex(md, EVP_sha256(), NULL) == 1 && add(md, span_of(head, sizeof(head))) && add(md, peer->name) && add(md, peer->also);

	if (ok && peer->identity)
		ok = add(md, tls_identity_digest(peer->identity));
	for (uint32_t i = 0; ok && i < peer->ntlsa; i++) {
		const struct tlsa *t = &peer->tlsa[i];
		uint8_t kind[3] = { t->usage, t->selector, t->matching };

		ok = add(md, span_of(kind, sizeof(kind))) && add(md, t->data);
	}
	ok = ok && EVP_DigestFinal_ex(md, ret->digest, NULL) == 1;
	EVP_MD_CTX_free(md);
	return ok;
}

void tls_cache_begin(struct tls_cache *cache, SSL *ssl, struct tls_cache_use *use)
{
	SSL_SESSION *session;

	if (!SSL_set_ex_data(ssl, use_index(), use))
		return;
	session = take(cache, use);
	if (session && SSL_set_session(ssl, session) != 1)
		ERR_clear_error(); /* then without */
	SSL_SESSION_free(session);
}

void tls_cache_resumed(SSL *ssl)
{
	if (SSL_version(ssl) < TLS1_3_VERSION)
		on_session(ssl, SSL_get_session(ssl));
}
