/* Sessions of a client to resume, by whom the peer had to be: a session that was made with less proof is never found for one that needs more (F4).
 *
 * Kept serialised, because a session with its parsed certificates is large, and without the peer's certificate, which costs half a handshake to parse: what was found of it is in the key and in the session's
 * verify result, and how long it is good in until_ns. Resuming makes that no longer: the peer's certificate is looked at again every two hours, and when it has expired.
 * The session that was unused for longest makes way. One is taken out to be used: a ticket of TLS 1.3 is used once (RFC 8446 C.4), and one that does not work is gone.
 *
 * Owner: the SSL_CTX that it is made for. Thread: one. */
#ifndef WEIR_DATAPLANE_NET_TLS_CACHE_H
#define WEIR_DATAPLANE_NET_TLS_CACHE_H

#include <openssl/ssl.h>
#include "dataplane/net/tls.h"

struct tls_cache;

/* What a session was made for: digest of the check, the names, the certificate that we show and the TLSA records. */
struct tls_cache_key {
	uint8_t digest[32];
};
/* A connection's part in it. */
struct tls_cache_use {
	struct tls_cache_key key;
	uint64_t until_ns; /* of the session that it resumes; 0: none */
};

/* Of at most max sessions. NULL: no memory. */
struct tls_cache *tls_cache_new(SSL_CTX *ctx, uint32_t max);
bool tls_cache_key(const struct tls_peer *peer, struct tls_cache_key *ret);
/* Tells the cache for whom ssl's sessions are (use->key); and lets it resume one if there is one. use must live as long as ssl. */
void tls_cache_begin(struct tls_cache *cache, SSL *ssl, struct tls_cache_use *use);
/* A handshake that resumed has succeeded: below TLS 1.3 the session is good for more. */
void tls_cache_resumed(SSL *ssl);

#endif
