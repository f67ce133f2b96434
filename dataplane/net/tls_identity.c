#include "dataplane/net/tls_identity.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <stdlib.h>
#include "dataplane/net/tls_context.h"

struct tls_identity {
	X509 *leaf;
	STACK_OF(X509) *chain;
	EVP_PKEY *key;
	uint8_t digest[32];
};

static enum status read_pem(struct tls_identity *id, BIO *chain, BIO *key)
{
	X509 *x;

	id->leaf = PEM_read_bio_X509_AUX(chain, NULL, NULL, NULL);
	if (!id->leaf || X509_digest(id->leaf, EVP_sha256(), id->digest, NULL) != 1)
		return tls_trail("client certificate", NULL);
	while ((x = PEM_read_bio_X509(chain, NULL, NULL, NULL)))
		if (!sk_X509_push(id->chain, x)) {
			X509_free(x);
			return ST_NOMEM;
		}
	ERR_clear_error(); /* the end of the file */
	id->key = PEM_read_bio_PrivateKey(key, NULL, NULL, NULL);
	if (!id->key || X509_check_private_key(id->leaf, id->key) != 1)
		return tls_trail("key of a client certificate", NULL);
	return ST_OK;
}

enum status tls_identity_new(const struct tls_pem *pem, struct tls_identity **ret)
{
	BIO *chain = BIO_new_mem_buf(pem->chain.p, (int)pem->chain.n), *key = BIO_new_mem_buf(pem->key.p, (int)pem->key.n);
	struct tls_identity *id = calloc(1, sizeof(*id));
	enum status st = ST_NOMEM;

	if (chain && key && id && (id->chain = sk_X509_new_null()))
		st = read_pem(id, chain, key);
	BIO_free(chain);
	BIO_free(key);
	if (st == ST_OK)
		*ret = id;
	else
		tls_identity_free(id);
	return st;
}

void tls_identity_free(struct tls_identity *id)
{
	if (!id)
		return;
	X509_free(id->leaf);
	sk_X509_pop_free(id->chain, X509_free);
	EVP_PKEY_free(id->key);
	free(id);
}

bool tls_identity_use(const struct tls_identity *id, SSL *ssl)
{
	return SSL_use_cert_and_key(ssl, id->leaf, id->key, id->chain, 1) == 1;
}

struct span tls_identity_digest(const struct tls_identity *id)
{
	return span_of(id->digest, sizeof(id->digest));
}
