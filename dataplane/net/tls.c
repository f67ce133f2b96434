#include "dataplane/net/tls.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include "dataplane/net/transport.h"

struct tls_context {
	SSL_CTX *ctx;
	bool verify;
};

struct tls_session {
	SSL *ssl;
	BIO *in, *out; /* owned by ssl */
	bool on, ended;
	char text[96];
	char error[160];
};

static enum status ssl_trail(const char *what, const char *file)
{
	char buf[160] = "unknown error";
	unsigned long e = ERR_get_error();

	if (e)
		ERR_error_string_n(e, buf, sizeof(buf));
	ERR_clear_error();
	return trail(ST_INVALID, "%s %s: %s", what, file ? file : "", buf);
}

static struct tls_context *context_new(const SSL_METHOD *method)
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
	SSL_CTX_set_mode(t->ctx, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_AUTO_RETRY);
	return t;
}

enum status tls_server_new(const char *cert_file, const char *key_file, struct tls_context **ret)
{
	struct tls_context *t = context_new(TLS_server_method());
	enum status st = ST_OK;

	if (!t)
		return ST_NOMEM;
	SSL_CTX_set_session_id_context(t->ctx, (const unsigned char *)"weir", 4);
	if (SSL_CTX_use_certificate_chain_file(t->ctx, cert_file) != 1)
		st = ssl_trail("certificate", cert_file);
	else if (SSL_CTX_use_PrivateKey_file(t->ctx, key_file, SSL_FILETYPE_PEM) != 1)
		st = ssl_trail("key", key_file);
	else if (SSL_CTX_check_private_key(t->ctx) != 1)
		st = ssl_trail("the key does not fit the certificate", cert_file);
	if (st == ST_OK)
		*ret = t;
	else
		tls_context_free(t);
	return st;
}

enum status tls_client_new(bool verify, const char *ca_file, struct tls_context **ret)
{
	struct tls_context *t = context_new(TLS_client_method());
	int ok = 1;

	if (!t)
		return ST_NOMEM;
	t->verify = verify;
	if (verify) {
		SSL_CTX_set_verify(t->ctx, SSL_VERIFY_PEER, NULL);
		ok = ca_file ? SSL_CTX_load_verify_locations(t->ctx, ca_file, NULL) : SSL_CTX_set_default_verify_paths(t->ctx);
	}
	if (ok != 1) {
		tls_context_free(t);
		return ssl_trail("certificate authorities", ca_file);
	}
	*ret = t;
	return ST_OK;
}

void tls_context_free(struct tls_context *t)
{
	if (!t)
		return;
	SSL_CTX_free(t->ctx); /* sessions hold a reference of their own */
	free(t);
}

struct tls_session *tls_session_new(struct tls_context *t, bool server, const char *name)
{
	struct tls_session *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->ssl = SSL_new(t->ctx);
	s->in = BIO_new(BIO_s_mem());
	s->out = BIO_new(BIO_s_mem());
	if (!s->ssl || !s->in || !s->out) {
		SSL_free(s->ssl);
		BIO_free(s->in);
		BIO_free(s->out);
		free(s);
		return NULL;
	}
	BIO_set_mem_eof_return(s->in, -1);
	SSL_set_bio(s->ssl, s->in, s->out);
	if (server) {
		SSL_set_accept_state(s->ssl);
	} else {
		SSL_set_connect_state(s->ssl);
		if (name && *name) {
			SSL_set_tlsext_host_name(s->ssl, name);
			if (t->verify)
				SSL_set1_host(s->ssl, name);
		}
	}
	return s;
}

void tls_session_free(struct tls_session *s)
{
	if (!s)
		return;
	SSL_free(s->ssl);
	free(s);
}

bool tls_session_feed(struct tls_session *s, struct span cipher)
{
	return cipher.n <= INT32_MAX && BIO_write(s->in, cipher.p, (int)cipher.n) == (int)cipher.n;
}

static enum tls_result failed(struct tls_session *s, int r)
{
	unsigned long e;

	switch (SSL_get_error(s->ssl, r)) {
	case SSL_ERROR_WANT_READ:
	case SSL_ERROR_WANT_WRITE:
		return TLS_MORE;
	case SSL_ERROR_ZERO_RETURN:
		s->ended = true;
		return TLS_END;
	default:
		e = ERR_peek_error();
		snprintf(s->error, sizeof(s->error), "%s", e ? ERR_reason_error_string(e) ? ERR_reason_error_string(e) : "TLS error" : "TLS error");
		ERR_clear_error();
		s->ended = true;
		return TLS_ERROR;
	}
}

enum tls_result tls_session_read(struct tls_session *s, char *buf, size_t cap, size_t *ret_n)
{
	int r;

	*ret_n = 0;
	if (s->ended)
		return TLS_MORE;
	ERR_clear_error();
	if (!s->on) {
		r = SSL_do_handshake(s->ssl);
		if (r != 1)
			return failed(s, r);
		s->on = true;
		snprintf(s->text, sizeof(s->text), "%s %s", SSL_get_version(s->ssl), SSL_get_cipher_name(s->ssl));
		return TLS_ON;
	}
	r = SSL_read_ex(s->ssl, buf, cap, ret_n);
	return r == 1 ? TLS_DATA : failed(s, r);
}

bool tls_session_write(struct tls_session *s, struct span plain)
{
	size_t n;

	ERR_clear_error();
	while (plain.n) {
		if (SSL_write_ex(s->ssl, plain.p, plain.n, &n) != 1) {
			ERR_clear_error();
			return false;
		}
		plain = span_skip(plain, n);
	}
	return true;
}

void tls_session_close(struct tls_session *s)
{
	if (s->on) {
		ERR_clear_error();
		SSL_shutdown(s->ssl);
		ERR_clear_error();
	}
}

size_t tls_session_unread(const struct tls_session *s)
{
	return BIO_ctrl_pending(s->in);
}

size_t tls_session_pending(const struct tls_session *s)
{
	return BIO_ctrl_pending(s->out);
}

size_t tls_session_take(struct tls_session *s, char *buf, size_t cap)
{
	int n = BIO_read(s->out, buf, cap > INT32_MAX ? INT32_MAX : (int)cap);

	return n > 0 ? (size_t)n : 0;
}

const char *tls_session_text(const struct tls_session *s)
{
	return s->text;
}

const char *tls_session_error(const struct tls_session *s)
{
	return s->error;
}
