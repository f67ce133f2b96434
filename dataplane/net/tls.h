/* TLS contexts (OpenSSL): certificates, versions, ciphers. Sessions are inside net.c's connections.
 *
 * Owner: a context is counted; connections keep the one that they began with, so that a reload changes only new ones. */
#ifndef WEIR_DATAPLANE_NET_TLS_H
#define WEIR_DATAPLANE_NET_TLS_H

#include <stdbool.h>
#include "spool/base/span.h"
#include "spool/base/status.h"
#include "spool/mail/tlsa.h"
#include "spool/store/tls_file.h"

struct tls_context;
struct tls_identity;

enum tls_check {
	TLS_CHECK_NONE, /* opportunistic: whoever answers */
	TLS_CHECK_TRIAL, /* like TLS_CHECK_NAME, but what is wrong is only noted */
	TLS_CHECK_NAME, /* a certificate for that name, from an authority of the context */
	TLS_CHECK_TLSA, /* a certificate that a TLSA record knows */
};

/* Whom a client expects. Borrowed for the call. */
struct tls_peer {
	enum tls_check check;
	struct span name;        /* also for SNI; host name, or an address */
	struct span also;        /* TLS_CHECK_TLSA: another name that will do (RFC 7672 3.2.2), or none */
	const struct tlsa *tlsa; /* TLS_CHECK_TLSA: usable ones */
	uint32_t ntlsa;
	const struct tls_identity *identity; /* shown when the server asks for a certificate; or NULL */
};

/* What was wrong with a peer, as far as reports tell it apart (RFC 8460 4.3). */
enum tls_fault {
	TLS_FAULT_NONE,
	TLS_FAULT_HANDSHAKE,
	TLS_FAULT_NAME,
	TLS_FAULT_EXPIRED,
	TLS_FAULT_NOT_TRUSTED,
	TLS_FAULT_TLSA,
};

struct tls_server_options {
	const char *ciphers; /* of TLS 1.2; NULL or "": those with forward secrecy and no known weakness */
	bool only_tls13;
	uint32_t ticket_life_s; /* 0: an hour */
};

/* A server context with certificates and ticket keys; the certificate goes by the name that the client asks for. TLS 1.2 and later, no renegotiation, no
 * compression, forward secrecy; no resumption without ticket keys. */
enum status tls_server_make(const struct tls_file *f, const struct tls_server_options *o, struct tls_context **ret);
/* The same from one PEM chain and key. */
enum status tls_server_new(const char *cert_file, const char *key_file, struct tls_context **ret);
/* A client context with the authorities of ca_file (NULL or "": the system's); what of a peer is checked is said for each session. */
enum status tls_client_new(const char *ca_file, struct tls_context **ret);
/* The same; and up to so many sessions are kept to be resumed. */
enum status tls_client_make(const char *ca_file, uint32_t sessions, struct tls_context **ret);
void tls_context_free(struct tls_context *t);
/* A certificate to show, with its key. */
enum status tls_identity_new(const struct tls_pem *pem, struct tls_identity **ret);
void tls_identity_free(struct tls_identity *id);

#endif
