#include "control/tls_check.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "spool/base/file.h"

enum { SERVER_LEVEL = 2, NAME_MAX_LEN = 200, AUTHORITIES_MAX = 8 << 20 };

/* ---- ciphers ---- */

/* One word of the list: "ECDHE+AESGCM", "!aNULL", "@STRENGTH". What is taken out need not be there. */
static bool word_ok(SSL_CTX *ctx, const char *word)
{
	bool ok = *word && (strchr("!-@", *word) || SSL_CTX_set_cipher_list(ctx, *word == '+' ? word + 1 : word) == 1);

	ERR_clear_error();
	return ok;
}

static bool words_ok(SSL_CTX *ctx, const char *list, char *why, size_t cap)
{
	static const char separators[] = ":, ;";
	char word[NAME_MAX_LEN + 1];

	for (size_t n; *list; list += n + (list[n] != '\0')) {
		n = strcspn(list, separators);
		snprintf(word, sizeof(word), "%.*s", (int)n, list);
		if (n && (n > NAME_MAX_LEN || !word_ok(ctx, word))) {
			snprintf(why, cap, "\"%s\" is no cipher of TLS 1.2; openssl ciphers -v lists them", word);
			return false;
		}
	}
	return true;
}

/* Those that are left at the level at which the servers work. */
static int usable(SSL_CTX *ctx)
{
	SSL *ssl = SSL_new(ctx);
	STACK_OF(SSL_CIPHER) *left = ssl ? SSL_get1_supported_ciphers(ssl) : NULL;
	int n = sk_SSL_CIPHER_num(left);

	sk_SSL_CIPHER_free(left);
	SSL_free(ssl);
	return n;
}

bool tls_ciphers_ok(const char *list, char *why, size_t cap)
{
	SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
	bool ok = ctx && words_ok(ctx, list, why, cap);

	if (!ctx) {
		snprintf(why, cap, "out of memory");
	} else if (ok) {
		SSL_CTX_set_security_level(ctx, SERVER_LEVEL);
		SSL_CTX_set_max_proto_version(ctx, TLS1_2_VERSION);
		ok = SSL_CTX_set_cipher_list(ctx, list) == 1 && usable(ctx) > 0;
		if (!ok)
			snprintf(why, cap, "no cipher is left that is strong enough; write for example ECDHE+AESGCM:ECDHE+CHACHA20");
	}
	ERR_clear_error();
	SSL_CTX_free(ctx);
	return ok;
}

/* ---- authorities ---- */

bool tls_authorities_ok(const char *file, char *why, size_t cap)
{
	char *bytes = NULL;
	size_t len = 0;
	unsigned n = 0;
	BIO *b = NULL;
	bool end;

	if (file_read(file, AUTHORITIES_MAX, NULL, &bytes, &len) != ST_OK) {
		snprintf(why, cap, "%s cannot be read: %s", file, trail_text());
		return false;
	}
	b = BIO_new_mem_buf(bytes, (int)len);
	for (X509 *x; b && (x = PEM_read_bio_X509_AUX(b, NULL, NULL, NULL)); n++)
		X509_free(x);
	end = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
	ERR_clear_error();
	BIO_free(b);
	free(bytes);
	if (!n)
		snprintf(why, cap, "%s has no certificate in PEM form", file);
	else if (!end)
		snprintf(why, cap, "%s: what is behind certificate %u is damaged", file, n);
	return n && end;
}
