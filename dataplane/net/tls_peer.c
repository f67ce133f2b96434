#include "dataplane/net/tls_peer.h"

#include <openssl/x509v3.h>
#include "dataplane/net/tls_identity.h"
#include "spool/mail/address.h"

enum { LEVEL_OPPORTUNISTIC = 1 };

static bool text_of(struct span s, char *buf, size_t cap)
{
	if (!s.n || s.n >= cap || memchr(s.p, 0, s.n))
		return false;
	memcpy(buf, s.p, s.n);
	buf[s.n] = '\0';
	return true;
}

/* The name that the certificate must have: a host name, or an address when that is all that the operator gave. */
static bool expect_name(SSL *ssl, const char *name)
{
	uint8_t ip[16];
	struct span bare = span_str(name);

	if (bare.n > 2 && bare.p[0] == '[' && bare.p[bare.n - 1] == ']')
		bare = span_of(bare.p + 1, bare.n - 2);
	if (ip_parse(bare, ip) == ST_OK) {
		char text[64];

		return text_of(bare, text, sizeof(text)) && X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), text) == 1;
	}
	SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
	return SSL_set_tlsext_host_name(ssl, name) == 1 && SSL_set1_host(ssl, name) == 1;
}

/* RFC 7672 3.1: only DANE-TA and DANE-EE; with DANE-EE neither names nor dates of the certificate count. */
static bool expect_tlsa(SSL *ssl, const char *name, const struct tls_peer *peer)
{
	unsigned taken = 0;
	char also[256];

	if (SSL_dane_enable(ssl, name) != 1)
		return false;
	SSL_dane_set_flags(ssl, DANE_FLAG_NO_DANE_EE_NAMECHECKS);
	SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
	if (peer->also.n && (!text_of(peer->also, also, sizeof(also)) || SSL_add1_host(ssl, also) != 1))
		return false;
	for (uint32_t i = 0; i < peer->ntlsa; i++) {
		const struct tlsa *t = &peer->tlsa[i];

		taken += SSL_dane_tlsa_add(ssl, t->usage, t->selector, t->matching, (const unsigned char *)t->data.p, t->data.n) > 0;
	}
	return taken > 0;
}

static const char unchecked[] = "unchecked"; /* only its address counts */

bool tls_peer_unchecked(const SSL *ssl)
{
	return SSL_get_app_data(ssl) == unchecked;
}

bool tls_peer_apply(SSL *ssl, const struct tls_peer *peer)
{
	bool strict = peer->check == TLS_CHECK_NAME || peer->check == TLS_CHECK_TLSA;
	char name[256];

	SSL_set_verify(ssl, strict ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, NULL);
	SSL_set_app_data(ssl, peer->check == TLS_CHECK_NONE ? (void *)(uintptr_t)unchecked : NULL);
	if (!strict) /* an old key or signature is better than none, which is what would follow */
		SSL_set_security_level(ssl, LEVEL_OPPORTUNISTIC);
	if (peer->identity && !tls_identity_use(peer->identity, ssl))
		return false;
	if (!text_of(peer->name, name, sizeof(name)))
		return !strict;
	if (peer->check == TLS_CHECK_TLSA)
		return expect_tlsa(ssl, name, peer);
	return expect_name(ssl, name) || !strict;
}

enum tls_fault tls_peer_fault(const SSL *ssl, bool handshake_done, const char **ret_text)
{
	/* OpenSSL looks at the certificate of whoever answers; where nothing was asked of it, it is not why a handshake failed */
	long v = !handshake_done && SSL_get_verify_mode(ssl) == SSL_VERIFY_NONE ? X509_V_OK : SSL_get_verify_result(ssl);

	*ret_text = X509_verify_cert_error_string(v);
	switch (v) {
	case X509_V_OK:
		*ret_text = handshake_done ? "" : "the handshake failed";
		return handshake_done ? TLS_FAULT_NONE : TLS_FAULT_HANDSHAKE;
	case X509_V_ERR_HOSTNAME_MISMATCH:
	case X509_V_ERR_IP_ADDRESS_MISMATCH:
		return TLS_FAULT_NAME;
	case X509_V_ERR_CERT_HAS_EXPIRED:
	case X509_V_ERR_CERT_NOT_YET_VALID:
		return TLS_FAULT_EXPIRED;
	case X509_V_ERR_DANE_NO_MATCH:
		*ret_text = "no TLSA record matches the certificate";
		return TLS_FAULT_TLSA;
	default:
		return TLS_FAULT_NOT_TRUSTED;
	}
}
