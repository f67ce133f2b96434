#include "dataplane/net/tls_context.h"

#include <openssl/err.h>
#include <stdlib.h>
#include <unistd.h>
#include "dataplane/net/tls_cache.h"
#include "dataplane/net/tls_peer.h"
#include "spool/base/file.h"

/* Servers: forward secrecy and authenticated encryption, or at least SHA-2; TLS 1.3 has only such. No DH: its parameters are a burden and its cost ours. */
#define CIPHERS "ECDHE+AESGCM:ECDHE+CHACHA20:ECDHE+AES256+SHA384:ECDHE+AES128+SHA256"
#define SYSTEM_AUTHORITIES "/etc/ssl/certs/ca-certificates.crt"
#define GROUPS "X25519:P-256:X448:P-384:P-521"
enum { SERVER_LEVEL = 2, TICKETS_A_HANDSHAKE = 1 };

enum status tls_trail(const char *what, const char *detail)
{
	char buf[160] = "unknown error";
	unsigned long e = ERR_get_error();

	if (e)
		ERR_error_string_n(e, buf, sizeof(buf));
	ERR_clear_error();
	return trail(ST_INVALID, "%s %s: %s", what, detail ? detail : "", buf);
}

struct tls_context *tls_context_make(const SSL_METHOD *method)
{
	struct tls_context *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	t->ctx = SSL_CTX_new(method);
	if (!t->ctx) {
		free(t);
		return NULL;
	}
	SSL_CTX_set_min_proto_version(t->ctx, TLS1_2_VERSION);
	SSL_CTX_set_options(t->ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_CIPHER_SERVER_PREFERENCE);
	SSL_CTX_set_mode(t->ctx, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_AUTO_RETRY | SSL_MODE_NO_AUTO_CHAIN);
	return t;
}

void tls_context_free(struct tls_context *t)
{
	if (!t)
		return;
	SSL_CTX_free(t->ctx); /* sessions hold a reference of their own */
	free(t);
}

/* ---- servers ---- */

static enum status server_setup(struct tls_context *t, const struct tls_file *f, const struct tls_server_options *o)
{
	const char *ciphers = o->ciphers && *o->ciphers ? o->ciphers : CIPHERS;

	if (o->only_tls13)
		SSL_CTX_set_min_proto_version(t->ctx, TLS1_3_VERSION);
	SSL_CTX_set_security_level(t->ctx, SERVER_LEVEL);
	SSL_CTX_set_session_id_context(t->ctx, (const unsigned char *)"weir", 4);
	SSL_CTX_set_session_cache_mode(t->ctx, SSL_SESS_CACHE_OFF); /* tickets work on all workers; a cache would not */
	/* A ticket goes out by itself and at once. It is also what acknowledges the client's Finished: were it held back for the next reply, to save a send, a client with Nagle's
	 * algorithm would keep its EHLO until the delayed acknowledgement. */
	SSL_CTX_set_num_tickets(t->ctx, f->nticket ? TICKETS_A_HANDSHAKE : 0);
	if (SSL_CTX_set_cipher_list(t->ctx, ciphers) != 1)
		return tls_trail("tls.ciphers", ciphers);
	if (SSL_CTX_set1_groups_list(t->ctx, GROUPS) != 1 || !tls_ticket_use(t->ctx, f))
		return tls_trail("TLS", "set-up");
	SSL_CTX_set_timeout(t->ctx, o->ticket_life_s ? o->ticket_life_s : 3600);
	return tls_sni_use(t->ctx, f);
}

enum status tls_server_make(const struct tls_file *f, const struct tls_server_options *o, struct tls_context **ret)
{
	struct tls_context *t = tls_context_make(TLS_server_method());
	enum status st;

	if (!t)
		return ST_NOMEM;
	st = server_setup(t, f, o);
	if (st == ST_OK)
		*ret = t;
	else
		tls_context_free(t);
	return st;
}

enum status tls_server_new(const char *cert_file, const char *key_file, struct tls_context **ret)
{
	struct tls_file f = { .ncert = 1 };
	char *cert = NULL, *key = NULL;
	size_t ncert, nkey;
	enum status st = file_read(cert_file, TLS_PEM_MAX, NULL, &cert, &ncert);

	if (st == ST_OK)
		st = file_read(key_file, TLS_PEM_MAX, NULL, &key, &nkey);
	if (st == ST_OK) {
		f.cert[0] = (struct tls_pem){ span_of(cert, ncert), span_of(key, nkey) };
		st = tls_server_make(&f, &(struct tls_server_options){ 0 }, ret);
		explicit_bzero(key, nkey);
	}
	free(cert);
	free(key);
	return st;
}

/* ---- clients ---- */

/* A peer of whom nothing is asked is not looked at: that would cost as much as the handshake. */
static int on_verify(X509_STORE_CTX *x, void *arg)
{
	const SSL *ssl = X509_STORE_CTX_get_ex_data(x, SSL_get_ex_data_X509_STORE_CTX_idx());

	(void)arg;
	return tls_peer_unchecked(ssl) ? 1 : X509_verify_cert(x);
}

/* The system's authorities as one file, read now. With OpenSSL's own default each look-up of an unknown one would read the whole directory, while the worker waits. */
static bool authorities_of_system(SSL_CTX *ctx)
{
	if (access(SYSTEM_AUTHORITIES, R_OK) == 0)
		return SSL_CTX_load_verify_file(ctx, SYSTEM_AUTHORITIES) == 1;
	return SSL_CTX_set_default_verify_paths(ctx) == 1;
}

enum status tls_client_make(const char *ca_file, uint32_t sessions, struct tls_context **ret)
{
	struct tls_context *t = tls_context_make(TLS_client_method());
	bool ok;

	if (!t)
		return ST_NOMEM;
	ok = SSL_CTX_dane_enable(t->ctx) == 1;
	if (ca_file && *ca_file)
		ok = ok && SSL_CTX_load_verify_locations(t->ctx, ca_file, NULL) == 1;
	else
		ok = ok && authorities_of_system(t->ctx);
	SSL_CTX_set_cert_verify_callback(t->ctx, on_verify, NULL);
	if (!ok) {
		tls_context_free(t);
		return tls_trail("certificate authorities", ca_file);
	}
	if (sessions && !(t->cache = tls_cache_new(t->ctx, sessions))) {
		tls_context_free(t);
		return ST_NOMEM;
	}
	*ret = t;
	return ST_OK;
}

enum status tls_client_new(const char *ca_file, struct tls_context **ret)
{
	return tls_client_make(ca_file, 0, ret);
}
