#include "control/tls_cert.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include "spool/base/file.h"
#include "spool/store/tls_file.h"

enum { BITS_LEAST = 112 }; /* security level 2 of the servers: RSA of 2048 bits, or a curve of 224 */

static bool no(char *why, size_t cap, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

static bool no(char *why, size_t cap, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, cap, fmt, ap);
	va_end(ap);
	return false;
}

static int no_password(char *buf, int size, int writing, void *u)
{
	(void)buf, (void)size, (void)writing, (void)u;
	return -1; /* there is nobody to ask */
}

/* The certificate, and whether all that is behind it in the file are certificates, too. */
static X509 *parse_chain(const struct tls_cert *c, bool *ret_rest_ok)
{
	BIO *b = BIO_new_mem_buf(c->chain, (int)c->nchain);
	X509 *leaf = b ? PEM_read_bio_X509_AUX(b, NULL, NULL, NULL) : NULL, *x;

	while (leaf && (x = PEM_read_bio_X509(b, NULL, NULL, NULL)))
		X509_free(x);
	*ret_rest_ok = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
	ERR_clear_error();
	BIO_free(b);
	return leaf;
}

static EVP_PKEY *parse_key(const struct tls_cert *c)
{
	BIO *b = BIO_new_mem_buf(c->key, (int)c->nkey);
	EVP_PKEY *k = b ? PEM_read_bio_PrivateKey(b, NULL, no_password, NULL) : NULL;

	ERR_clear_error();
	BIO_free(b);
	return k;
}

static bool wall_of(const ASN1_TIME *t, int64_t *ret)
{
	struct tm tm;

	if (ASN1_TIME_to_tm(t, &tm) != 1)
		return false;
	*ret = (int64_t)timegm(&tm);
	return true;
}

static bool check(struct tls_cert *c, const char *cert_file, const char *key_file, char *why, size_t cap)
{
	bool rest_ok, ok = false;
	X509 *x = parse_chain(c, &rest_ok);
	EVP_PKEY *key = parse_key(c);

	if (!x)
		no(why, cap, "%s has no certificate in PEM form", cert_file);
	else if (!rest_ok)
		no(why, cap, "%s: what is behind the first certificate is damaged", cert_file);
	else if (!key)
		no(why, cap, "%s has no private key in PEM form without a password", key_file);
	else if (X509_check_private_key(x, key) != 1)
		no(why, cap, "the key in %s does not belong to the certificate in %s", key_file, cert_file);
	else if (EVP_PKEY_get_security_bits(key) < BITS_LEAST)
		no(why, cap, "the key in %s is too weak: RSA needs 2048 bits", key_file);
	else if (!wall_of(X509_get0_notBefore(x), &c->begins_s) || !wall_of(X509_get0_notAfter(x), &c->ends_s))
		no(why, cap, "%s: the dates of the certificate make no sense", cert_file);
	else
		ok = true;
	ERR_clear_error();
	X509_free(x);
	EVP_PKEY_free(key);
	return ok;
}

bool tls_cert_read(const char *cert_file, const char *key_file, struct tls_cert *ret, char *why, size_t cap)
{
	struct tls_cert c = { 0 };
	struct stat st;
	bool ok = false;

	if (file_read(cert_file, TLS_PEM_MAX, NULL, &c.chain, &c.nchain) != ST_OK)
		no(why, cap, "%s cannot be read: %s", cert_file, trail_text());
	else if (file_read(key_file, TLS_PEM_MAX, &st, &c.key, &c.nkey) != ST_OK)
		no(why, cap, "%s cannot be read: %s", key_file, trail_text());
	else
		ok = check(&c, cert_file, key_file, why, cap);
	if (!ok) {
		tls_cert_free(&c);
		return false;
	}
	c.key_is_open = (st.st_mode & S_IRWXO) != 0;
	*ret = c;
	return true;
}

void tls_cert_free(struct tls_cert *c)
{
	if (c->key)
		explicit_bzero(c->key, c->nkey);
	free(c->key);
	free(c->chain);
	*c = (struct tls_cert){ 0 };
}
