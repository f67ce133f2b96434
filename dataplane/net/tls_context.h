/* What the files that make TLS contexts share. */
#ifndef WEIR_DATAPLANE_NET_TLS_CONTEXT_H
#define WEIR_DATAPLANE_NET_TLS_CONTEXT_H

#include <openssl/ssl.h>
#include "dataplane/net/tls.h"

struct tls_cache;

struct tls_context {
	SSL_CTX *ctx;            /* a session holds a reference of its own, and with it all that callbacks need */
	struct tls_cache *cache; /* a client's; the SSL_CTX owns it. NULL: none */
};

/* What is first in OpenSSL's queue of errors goes to the trail. */
enum status tls_trail(const char *what, const char *detail);
struct tls_context *tls_context_make(const SSL_METHOD *method);

/* tls_ticket.c: session tickets of a server; the keys are copied. */
bool tls_ticket_use(SSL_CTX *ctx, const struct tls_file *keys);

/* tls_sni.c: which certificate for which name. Owned by the SSL_CTX that it is put into. */
enum status tls_sni_use(SSL_CTX *ctx, const struct tls_file *f);

#endif
