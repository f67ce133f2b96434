/* Certificates made on the spot, and TLS handshakes in memory. */
#ifndef WEIR_TESTS_SUPPORT_TLS_MADE_H
#define WEIR_TESTS_SUPPORT_TLS_MADE_H

#include <openssl/evp.h>
#include <openssl/x509.h>
#include <stdio.h>
#include "dataplane/net/tls_session.h"

struct made {
	EVP_PKEY *key;
	X509 *cert;
};

/* by NULL: signs itself. from, to: in seconds from now. alt NULL: an authority. made_of: with this key, which it takes over. */
struct made make_cert(const char *name, const char *alt, const struct made *by, long from, long to);
struct made make_cert_of(EVP_PKEY *key, const char *name, const char *alt, const struct made *by, long from, long to);
void unmake_cert(struct made *m);
/* What one side has to say goes to the other. */
void tls_carry(struct tls_session *from, struct tls_session *to);
/* Goes on until the client is done with the handshake, or fails; then what else the server has to say (tickets) goes to the client. */
enum tls_result tls_shake(struct tls_session *client, struct tls_session *server);

#endif
