/* SCRAM-SHA-256 (RFC 5802, RFC 7677): the verifier that a server keeps in place of a password, and the computations with it.
 *
 * The same functions serve the data plane's SASL machine, weirctl (which makes verifiers) and the tests' client side. SHA-256, HMAC and PBKDF2 are
 * OpenSSL's: the exception to "no vendor library" in this folder. Limits: passwords are taken as they come; SASLprep is not applied to what is not ASCII.
 *
 * Pure functions. */
#ifndef WEIR_SPOOL_MAIL_SCRAM_H
#define WEIR_SPOOL_MAIL_SCRAM_H

#include "spool/base/span.h"
#include "spool/base/status.h"

enum { SCRAM_KEY = 32, SCRAM_SALT_MAX = 64, SCRAM_ITERATIONS_MIN = 4096, SCRAM_ITERATIONS_MAX = 10000000 };

struct scram_verifier {
	uint32_t iterations;
	uint32_t salt_len;
	uint8_t salt[SCRAM_SALT_MAX];
	uint8_t stored_key[SCRAM_KEY];
	uint8_t server_key[SCRAM_KEY];
};

/* Writes the verifier's text: {SCRAM-SHA-256}iterations,salt,stored key,server key. */
void scram_write(const struct scram_verifier *v, struct out *o);
/* Reads it; ST_INVALID with the trail saying what is wrong. */
enum status scram_parse(struct span text, struct scram_verifier *ret);

/* Fills the keys of *v from the password and from v's salt and iterations: slow by design (PBKDF2). */
void scram_derive(struct span password, struct scram_verifier *v);
/* A client's: both keys, from the password and from v's salt and iterations; as slow. */
void scram_keys(struct span password, const struct scram_verifier *v, uint8_t ret_client_key[SCRAM_KEY], uint8_t ret_server_key[SCRAM_KEY]);
/* What shows the server that the client knows the password. */
void scram_proof(const uint8_t client_key[SCRAM_KEY], struct span auth_message, uint8_t ret[SCRAM_KEY]);
/* HMAC-SHA-256. */
void scram_hmac(const uint8_t key[SCRAM_KEY], struct span text, uint8_t ret[SCRAM_KEY]);
/* Whether the client's proof shows that it knows the password; takes the same time whatever the answer. */
bool scram_proof_ok(const struct scram_verifier *v, struct span auth_message, const uint8_t proof[SCRAM_KEY]);
/* What shows the client that the server knows it too. */
void scram_server_signature(const struct scram_verifier *v, struct span auth_message, uint8_t ret[SCRAM_KEY]);
/* Compares in a time that does not depend on the content. */
bool scram_equal(const void *a, const void *b, size_t n);

#endif
