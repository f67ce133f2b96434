/* Whether what the configuration says about TLS beside certificates can be used: lists of ciphers, files of authorities. Workers would find out at their start.
 *
 * Pure but for reading the file. Fails: false, and why says what is wrong. */
#ifndef WEIR_CONTROL_TLS_CHECK_H
#define WEIR_CONTROL_TLS_CHECK_H

#include <stdbool.h>
#include <stddef.h>

/* A list as openssl-ciphers(1) has it, for TLS 1.2: every name in it is one of a cipher, and some are left that a client can use. OpenSSL itself passes over names that it does not know. */
bool tls_ciphers_ok(const char *list, char *why, size_t cap);
/* A PEM file with a certificate or more, each of them readable. */
bool tls_authorities_ok(const char *file, char *why, size_t cap);

#endif
