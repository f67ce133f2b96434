#include "spool/mail/scram.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/sha.h>
#include "spool/base/base64.h"

static const struct span prefix = { "{SCRAM-SHA-256}", 15 };

void scram_write(const struct scram_verifier *v, struct out *o)
{
	out_add(o, prefix);
	out_u64(o, v->iterations);
	out_char(o, ',');
	base64_encode(span_of(v->salt, v->salt_len), o);
	out_char(o, ',');
	base64_encode(span_of(v->stored_key, SCRAM_KEY), o);
	out_char(o, ',');
	base64_encode(span_of(v->server_key, SCRAM_KEY), o);
}

static bool read_bytes(struct span text, void *to, size_t cap, size_t *ret_n)
{
	struct out o = out_of(to, cap);

	if (base64_decode(text, &o) != ST_OK || o.over)
		return false;
	*ret_n = o.n;
	return true;
}

enum status scram_parse(struct span text, struct scram_verifier *ret)
{
	struct span rest = span_skip(text, prefix.n), number, salt, stored;
	uint64_t iterations;
	size_t n;

	if (!span_starts_nocase(text, prefix))
		return trail(ST_INVALID, "a SCRAM verifier begins with {SCRAM-SHA-256}");
	memset(ret, 0, sizeof(*ret));
	number = span_cut(&rest, ',');
	salt = span_cut(&rest, ',');
	stored = span_cut(&rest, ',');
	if (!span_u64(number, SCRAM_ITERATIONS_MAX, &iterations) || iterations < SCRAM_ITERATIONS_MIN)
		return trail(ST_INVALID, "the number of iterations is not between %d and %d", SCRAM_ITERATIONS_MIN, SCRAM_ITERATIONS_MAX);
	ret->iterations = (uint32_t)iterations;
	if (!read_bytes(salt, ret->salt, sizeof(ret->salt), &n) || !n)
		return trail(ST_INVALID, "the salt is not base64 of 1 to %d octets", SCRAM_SALT_MAX);
	ret->salt_len = (uint32_t)n;
	if (!read_bytes(stored, ret->stored_key, SCRAM_KEY, &n) || n != SCRAM_KEY)
		return trail(ST_INVALID, "the stored key is not base64 of %d octets", SCRAM_KEY);
	if (!read_bytes(rest, ret->server_key, SCRAM_KEY, &n) || n != SCRAM_KEY)
		return trail(ST_INVALID, "the server key is not base64 of %d octets", SCRAM_KEY);
	return ST_OK;
}

void scram_hmac(const uint8_t key[SCRAM_KEY], struct span text, uint8_t ret[SCRAM_KEY])
{
	unsigned n = SCRAM_KEY;

	CHECK(HMAC(EVP_sha256(), key, SCRAM_KEY, (const unsigned char *)text.p, text.n, ret, &n) && n == SCRAM_KEY);
}

void scram_keys(struct span password, const struct scram_verifier *v, uint8_t ret_client_key[SCRAM_KEY], uint8_t ret_server_key[SCRAM_KEY])
{
	uint8_t salted[SCRAM_KEY];

	CHECK(PKCS5_PBKDF2_HMAC(password.n ? password.p : "", (int)password.n, v->salt, (int)v->salt_len, (int)v->iterations, EVP_sha256(),
		SCRAM_KEY, salted) == 1);
	scram_hmac(salted, SPAN("Client Key"), ret_client_key);
	scram_hmac(salted, SPAN("Server Key"), ret_server_key);
	OPENSSL_cleanse(salted, sizeof(salted));
}

void scram_derive(struct span password, struct scram_verifier *v)
{
	uint8_t client_key[SCRAM_KEY];

	scram_keys(password, v, client_key, v->server_key);
	SHA256(client_key, SCRAM_KEY, v->stored_key);
	OPENSSL_cleanse(client_key, sizeof(client_key));
}

void scram_proof(const uint8_t client_key[SCRAM_KEY], struct span auth_message, uint8_t ret[SCRAM_KEY])
{
	uint8_t stored_key[SCRAM_KEY];

	SHA256(client_key, SCRAM_KEY, stored_key);
	scram_hmac(stored_key, auth_message, ret);
	for (size_t i = 0; i < SCRAM_KEY; i++)
		ret[i] ^= client_key[i]; /* ClientProof := ClientKey XOR ClientSignature */
}

bool scram_proof_ok(const struct scram_verifier *v, struct span auth_message, const uint8_t proof[SCRAM_KEY])
{
	uint8_t key[SCRAM_KEY], hash[SCRAM_KEY];

	scram_hmac(v->stored_key, auth_message, key);
	for (size_t i = 0; i < SCRAM_KEY; i++)
		key[i] ^= proof[i]; /* ClientKey := ClientProof XOR ClientSignature */
	SHA256(key, SCRAM_KEY, hash);
	OPENSSL_cleanse(key, sizeof(key));
	return scram_equal(hash, v->stored_key, SCRAM_KEY);
}

void scram_server_signature(const struct scram_verifier *v, struct span auth_message, uint8_t ret[SCRAM_KEY])
{
	scram_hmac(v->server_key, auth_message, ret);
}

bool scram_equal(const void *a, const void *b, size_t n)
{
	return CRYPTO_memcmp(a, b, n) == 0;
}
