/* Sessions of a client to resume, by whom the peer had to be: a session that was made with less proof is never found for one that needs more (F4).
 *
 * Kept serialised, because a session with its parsed certificates is large; the one that was unused for longest makes way. A session is taken out to be used: a
 * ticket of TLS 1.3 is used once (RFC 8446 C.4), and one that does not work is gone.
 *
 * Owner: the SSL_CTX that it is made for. Thread: one. */
#ifndef WEIR_DATAPLANE_NET_TLS_CACHE_H
#define WEIR_DATAPLANE_NET_TLS_CACHE_H

#include <openssl/ssl.h>
#include "dataplane/net/tls.h"

struct tls_cache;

/* What a session was made for: digest of the check, the names and the TLSA records. */
struct tls_cache_key {
	uint8_t digest[32];
};

/* Of at most max sessions. NULL: no memory. */
struct tls_cache *tls_cache_new(SSL_CTX *ctx, uint32_t max);
bool tls_cache_key(const struct tls_peer *peer, struct tls_cache_key *ret);
/* Tells the cache for whom ssl's sessions are; and lets it resume one if there is one. The key must live as long as ssl. */
void tls_cache_begin(struct tls_cache *cache, SSL *ssl, const struct tls_cache_key *key);
/* A handshake that resumed has succeeded: below TLS 1.3 the session is good for more. */
void tls_cache_resumed(SSL *ssl);

#endif
