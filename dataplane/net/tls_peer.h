/* Whom a TLS client expects at the other end, put into OpenSSL's terms: names, authorities (RFC 5280) or TLSA records (RFC 7672).
 *
 * Thread: one. */
#ifndef WEIR_DATAPLANE_NET_TLS_PEER_H
#define WEIR_DATAPLANE_NET_TLS_PEER_H

#include <openssl/ssl.h>
#include "dataplane/net/tls.h"

/* Before the handshake. False: it cannot be expressed; the session must not be used. */
bool tls_peer_apply(SSL *ssl, const struct tls_peer *peer);
/* Nothing is asked of it (TLS_CHECK_NONE). */
bool tls_peer_unchecked(const SSL *ssl);
/* After the handshake, also when it failed; *ret_text is a static text. */
enum tls_fault tls_peer_fault(const SSL *ssl, bool handshake_done, const char **ret_text);

#endif
