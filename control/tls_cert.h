/* Server certificates as the configuration names them: read and checked here, once for the configuration check and once to be published.
 *
 * Owner: the caller, who frees with tls_cert_free, which wipes the key. Fails: tls_cert_read says what is wrong in words, for a line of an error report. */
#ifndef WEIR_CONTROL_TLS_CERT_H
#define WEIR_CONTROL_TLS_CERT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct tls_cert {
	char *chain, *key; /* PEM */
	size_t nchain, nkey;
	int64_t begins_s, ends_s; /* wall clock, of the certificate */
	bool key_is_open;  /* the file of the key can be read by everybody */
};

/* Both files; the key must be the certificate's and strong enough to be used. False: why has the reason, which names the file. */
bool tls_cert_read(const char *cert_file, const char *key_file, struct tls_cert *ret, char *why, size_t cap);
void tls_cert_free(struct tls_cert *c);

#endif
