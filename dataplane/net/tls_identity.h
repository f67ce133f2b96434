/* A certificate with its key that Weir shows of itself where a server asks for one (RFC 8446 4.4.2): parsed once, used by many sessions.
 *
 * Owner: whoever made it; sessions keep what they need. Thread: one. */
#ifndef WEIR_DATAPLANE_NET_TLS_IDENTITY_H
#define WEIR_DATAPLANE_NET_TLS_IDENTITY_H

#include <openssl/ssl.h>
#include "dataplane/net/tls.h"

/* Whether ssl will show it when it is asked to. */
bool tls_identity_use(const struct tls_identity *id, SSL *ssl);
/* A digest of the certificate: sessions that were made with it are for nobody else. */
struct span tls_identity_digest(const struct tls_identity *id);

#endif
