/* One TLS session over memory: bytes in, bytes out. Knows no sockets. */
#ifndef WEIR_DATAPLANE_NET_TLS_SESSION_H
#define WEIR_DATAPLANE_NET_TLS_SESSION_H

#include "dataplane/net/tls.h"
#include "spool/base/span.h"

struct tls_session;

enum tls_result { TLS_DATA, TLS_MORE, TLS_ON, TLS_END, TLS_ERROR };

/* peer: whom a client expects; NULL for a server. NULL: no memory, or what is expected of the peer cannot be checked. */
struct tls_session *tls_session_new(struct tls_context *t, const struct tls_peer *peer);
void tls_session_free(struct tls_session *s);
/* Ciphertext from the peer. False: no memory. */
bool tls_session_feed(struct tls_session *s, struct span cipher);
/* Ciphertext that was fed and not read yet. */
size_t tls_session_kept(const struct tls_session *s);
/* Plaintext that goes to the peer, as it is, before all that TLS has to say. Before the first read only. False: no memory. */
bool tls_session_prefix(struct tls_session *s, struct span plain);
/* Goes on: TLS_ON once when the handshake is done; TLS_DATA with plaintext in buf; TLS_END after close_notify; TLS_ERROR. */
enum tls_result tls_session_read(struct tls_session *s, char *buf, size_t cap, size_t *ret_n);
/* Encrypts. False: error. */
bool tls_session_write(struct tls_session *s, struct span plain);
void tls_session_close(struct tls_session *s);
/* Ciphertext for the peer that waits; and takes it (n of it). */
size_t tls_session_pending(const struct tls_session *s);
size_t tls_session_take(struct tls_session *s, char *buf, size_t cap);
/* Version and cipher; good until the next call. */
const char *tls_session_text(const struct tls_session *s);
/* The handshake was a short one, of a session of before. */
bool tls_session_resumed(const struct tls_session *s);
/* A static text; "" without one. */
const char *tls_session_error(const struct tls_session *s);
/* What was wrong with a client's peer; *ret_text is a static text. */
enum tls_fault tls_session_fault(const struct tls_session *s, const char **ret_text);

#endif
