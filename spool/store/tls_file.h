/* <run>/tls: the certificates of servers and of routes with their keys, and the keys of session tickets, and the passwords with which routes log in, as weir-control has checked them and workers use them.
 *
 * One file, so that a worker that starts uses what was found good, whatever has become of the files of the configuration (P24); only its owner may read it, and
 * the run directory is in memory in production. Replaced as a whole (temporary file, fsync, rename); a damaged one is refused.
 *
 * Owner: the reader, until tls_file_free, which wipes the memory. Thread: any. */
#ifndef WEIR_SPOOL_STORE_TLS_FILE_H
#define WEIR_SPOOL_STORE_TLS_FILE_H

#include "spool/base/span.h"
#include "spool/base/status.h"

enum { TLS_CERTS_MAX = 64, TLS_CLIENT_CERTS_MAX = 16, TLS_LOGINS_MAX = 64, TLS_TICKET_KEYS_MAX = 8, TLS_PEM_MAX = 256 * 1024 };

/* Tickets are made with the first one; those of the others are accepted. */
struct tls_ticket_key {
	uint8_t name[16], aes[32], hmac[32];
	uint64_t made_wall_ns;
};

/* PEM: the certificate with its chain behind it, and the private key. */
struct tls_pem {
	struct span chain, key;
};

/* What a route's user and password_file stand for. It is found by both, never by its place: what is of another generation than the snapshot goes to nobody else. */
struct tls_login {
	struct span user, file, password;
};

struct tls_file {
	struct tls_pem cert[TLS_CERTS_MAX]; /* the first one is for clients that ask for no name, or for one that none has */
	uint32_t ncert;
	struct tls_ticket_key ticket[TLS_TICKET_KEYS_MAX]; /* none: no tickets */
	uint32_t nticket;
	struct tls_pem client[TLS_CLIENT_CERTS_MAX]; /* what routes show, in the order of the snapshot's list */
	uint32_t nclient;
	struct tls_login login[TLS_LOGINS_MAX];
	uint32_t nlogin;
	char *bytes; /* what the spans point into; the reader's */
	size_t n;
};

/* ST_NOT_FOUND, ST_IO, ST_CORRUPT, ST_NOMEM. */
enum status tls_file_read(const char *run_dir, struct tls_file *ret);
enum status tls_file_write(const char *run_dir, const struct tls_file *f);
/* The same certificates, keys, ticket keys and logins. */
bool tls_file_same(const struct tls_file *a, const struct tls_file *b);
void tls_file_free(struct tls_file *f);

#endif
