/* Session tickets (RFC 5077 4, RFC 8446 4.6.1): the state of a session, encrypted to ourselves. All workers of a node have the same keys, so that any of them resumes. */
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include "dataplane/net/tls_context.h"

struct ring {
	uint32_t n;
	struct tls_ticket_key key[TLS_TICKET_KEYS_MAX];
};

static void ring_free(void *parent, void *ptr, CRYPTO_EX_DATA *ad, int idx, long argl, void *argp)
{
	(void)parent, (void)ad, (void)idx, (void)argl, (void)argp;
	OPENSSL_clear_free(ptr, sizeof(struct ring));
}

static int ring_index(void)
{
	static int index = -1;

	if (index < 0)
		index = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, ring_free);
	return index;
}

static bool keys_set(const struct tls_ticket_key *k, const unsigned char *iv, EVP_CIPHER_CTX *ctx, EVP_MAC_CTX *mac, int enc)
{
	uint8_t hmac[32];
	OSSL_PARAM p[] = { OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, hmac, sizeof(hmac)),
		OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, (char[]){ "SHA256" }, 0), OSSL_PARAM_construct_end() };
	bool ok;

	memcpy(hmac, k->hmac, sizeof(hmac));
	ok = EVP_CipherInit_ex(ctx, EVP_aes_256_cbc(), NULL, k->aes, iv, enc) == 1 && EVP_MAC_CTX_set_params(mac, p) == 1;
	OPENSSL_cleanse(hmac, sizeof(hmac));
	return ok;
}

/* 1: goes on; 2: that, and the client gets a new ticket, as with TLS 1.3 always, where each is used once; 0: a ticket of somebody else's, a whole handshake; -1: an error. */
static int on_ticket(SSL *ssl, unsigned char name[16], unsigned char *iv, EVP_CIPHER_CTX *ctx, EVP_MAC_CTX *mac, int enc)
{
	const struct ring *r = SSL_CTX_get_ex_data(SSL_get_SSL_CTX(ssl), ring_index());

	if (enc) {
		if (RAND_bytes(iv, EVP_CIPHER_get_iv_length(EVP_aes_256_cbc())) != 1)
			return -1;
		memcpy(name, r->key[0].name, sizeof(r->key[0].name));
		return keys_set(&r->key[0], iv, ctx, mac, 1) ? 1 : -1;
	}
	for (uint32_t i = 0; i < r->n; i++)
		if (CRYPTO_memcmp(name, r->key[i].name, sizeof(r->key[i].name)) == 0)
			return !keys_set(&r->key[i], iv, ctx, mac, 0) ? -1 : i || SSL_version(ssl) >= TLS1_3_VERSION ? 2 : 1;
	return 0;
}

bool tls_ticket_use(SSL_CTX *ctx, const struct tls_file *keys)
{
	struct ring *r;

	if (!keys->nticket) {
		SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET);
		return true;
	}
	r = OPENSSL_zalloc(sizeof(*r));
	if (!r)
		return false;
	r->n = keys->nticket;
	memcpy(r->key, keys->ticket, sizeof(r->key));
	if (!SSL_CTX_set_ex_data(ctx, ring_index(), r)) {
		OPENSSL_clear_free(r, sizeof(*r));
		return false;
	}
	return SSL_CTX_set_tlsext_ticket_key_evp_cb(ctx, on_ticket) == 1;
}
