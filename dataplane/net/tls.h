/* TLS contexts (OpenSSL): certificates, versions, ciphers. Sessions are inside net.c's connections.
 *
 * Owner: a context is counted; connections keep the one that they began with, so that a reload changes only new ones. */
#ifndef WEIR_DATAPLANE_NET_TLS_H
#define WEIR_DATAPLANE_NET_TLS_H

#include <stdbool.h>
#include "spool/base/status.h"

struct tls_context;

/* A server context from a PEM chain and key. TLS 1.2 and later, no renegotiation. */
enum status tls_server_new(const char *cert_file, const char *key_file, struct tls_context **ret);
/* A client context: opportunistic (verify false) or verified against ca_file (NULL: the system's). */
enum status tls_client_new(bool verify, const char *ca_file, struct tls_context **ret);
void tls_context_free(struct tls_context *t);

#endif
