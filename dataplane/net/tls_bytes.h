/* What TLS reads and writes, as OpenSSL sees it (a BIO): a queue of bytes each way, that has memory only while there is something in it. OpenSSL's own memory BIOs keep what
 * they once needed, which is a handshake's flight for each connection that is idle. */
#ifndef WEIR_DATAPLANE_NET_TLS_BYTES_H
#define WEIR_DATAPLANE_NET_TLS_BYTES_H

#include <openssl/bio.h>
#include "spool/base/span.h"

struct tls_queue {
	char *p;
	size_t at, n, cap; /* n bytes from p + at */
};

struct tls_bytes {
	struct tls_queue in, out;
};

/* One BIO for both ways; b must outlive it, and is not its. NULL: no memory. */
BIO *tls_bytes_bio(struct tls_bytes *b);
/* False: no memory, and nothing was added. */
bool tls_queue_add(struct tls_queue *q, struct span s);
size_t tls_queue_take(struct tls_queue *q, char *buf, size_t cap);
void tls_queue_free(struct tls_queue *q);

#endif
