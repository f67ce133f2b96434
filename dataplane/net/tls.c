#include "dataplane/net/tls_session.h"

#include <openssl/err.h>
#include <stdio.h>
#include <stdlib.h>
#include "dataplane/net/tls_bytes.h"
#include "dataplane/net/tls_cache.h"
#include "dataplane/net/tls_context.h"
#include "dataplane/net/tls_peer.h"

struct tls_session {
	SSL *ssl;
	struct tls_bytes bytes; /* ciphertext from the peer and for it */
	bool on, ended, resumed;
	struct tls_cache_use use; /* a client's, when its context keeps sessions */
	const char *error;        /* static; NULL: none yet */
};

struct tls_session *tls_session_new(struct tls_context *t, const struct tls_peer *peer)
{
	struct tls_session *s = calloc(1, sizeof(*s));
	BIO *bio;

	if (!s)
		return NULL;
	s->ssl = SSL_new(t->ctx);
	bio = tls_bytes_bio(&s->bytes);
	if (!s->ssl || !bio) {
		SSL_free(s->ssl);
		BIO_free(bio);
		free(s);
		return NULL;
	}
	SSL_set_bio(s->ssl, bio, bio);
	if (!peer) {
		SSL_set_accept_state(s->ssl);
		return s;
	}
	SSL_set_connect_state(s->ssl);
	if (!tls_peer_apply(s->ssl, peer)) {
		ERR_clear_error();
		tls_session_free(s);
		return NULL;
	}
	if (t->cache && tls_cache_key(peer, &s->use.key))
		tls_cache_begin(t->cache, s->ssl, &s->use);
	return s;
}

void tls_session_free(struct tls_session *s)
{
	if (!s)
		return;
	SSL_free(s->ssl);
	tls_queue_free(&s->bytes.in);
	tls_queue_free(&s->bytes.out);
	free(s);
}

bool tls_session_feed(struct tls_session *s, struct span cipher)
{
	return tls_queue_add(&s->bytes.in, cipher);
}

size_t tls_session_kept(const struct tls_session *s)
{
	return s->bytes.in.n;
}

bool tls_session_prefix(struct tls_session *s, struct span plain)
{
	return tls_queue_add(&s->bytes.out, plain);
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
		s->error = e ? ERR_reason_error_string(e) : NULL;
		if (!s->error)
			s->error = "TLS error";
		ERR_clear_error();
		s->ended = true;
		return TLS_ERROR;
	}
}

/* A resumed session proves that the peer is the one of before, which was checked then: OpenSSL keeps what came of it, and does not look at it again. */
static bool resumed_is_checked(const struct tls_session *s)
{
	return SSL_is_server(s->ssl) || SSL_get_verify_mode(s->ssl) == SSL_VERIFY_NONE || SSL_get_verify_result(s->ssl) == X509_V_OK;
}

static enum tls_result handshake_done(struct tls_session *s)
{
	s->resumed = SSL_session_reused(s->ssl) == 1;
	if (s->resumed && !resumed_is_checked(s)) {
		s->error = "the resumed session was not verified";
		s->ended = true;
		return TLS_ERROR;
	}
	s->on = true;
	if (s->resumed && !SSL_is_server(s->ssl))
		tls_cache_resumed(s->ssl);
	return TLS_ON;
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
		return r == 1 ? handshake_done(s) : failed(s, r);
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

size_t tls_session_pending(const struct tls_session *s)
{
	return s->bytes.out.n;
}

size_t tls_session_take(struct tls_session *s, char *buf, size_t cap)
{
	return tls_queue_take(&s->bytes.out, buf, cap);
}

const char *tls_session_text(const struct tls_session *s)
{
	static char text[96];

	snprintf(text, sizeof(text), "%s %s", SSL_get_version(s->ssl), SSL_get_cipher_name(s->ssl));
	return text;
}

bool tls_session_resumed(const struct tls_session *s)
{
	return s->resumed;
}

enum tls_fault tls_session_fault(const struct tls_session *s, const char **ret_text)
{
	return tls_peer_fault(s->ssl, s->on, ret_text);
}

const char *tls_session_error(const struct tls_session *s)
{
	return s->error ? s->error : "";
}
