/* What a transport gives to net.c, and what it tells it: TCP without TLS, without copies of output, one send at a time.
 *
 * struct net_conn is net.c's; a transport keeps its own part in the members under "transport". All calls and upcalls are on the worker's thread; a transport never makes an
 * upcall from inside one of its operations. */
#ifndef WEIR_DATAPLANE_NET_TRANSPORT_H
#define WEIR_DATAPLANE_NET_TRANSPORT_H

#include <sys/queue.h>
#include "dataplane/net/net.h"

enum { NET_SLICES_MAX = 66 };

struct tls_session;

struct net_conn {
	struct net *net;
	void *user;
	uint32_t slot, gen;
	uint32_t listener;
	uint8_t peer_ip[16], local_ip[16];
	uint16_t peer_port, local_port;
	/* state */
	bool inbound, open, tls_on, close_notified;
	bool paused;        /* by net_pause, or because the handler left something */
	bool delivering, eof_seen, eof_told;
	bool closing, shut, aborted, dead, told_closed;
	bool drain_wanted, sent_wanted, resume_wanted;
	bool dirty, lingering;
	enum status status; /* for NET_CLOSED */
	const char *reason;
	uint64_t linger_until_ns;
	TAILQ_ENTRY(net_conn) dirty_entry, linger_entry;
	/* input that the handler has not taken */
	char *rest;
	uint32_t rest_off, rest_len, rest_cap;
	/* output: copied and waiting; being sent; slices that stay the caller's */
	char *out, *tx;
	uint32_t out_len, out_cap, tx_len, tx_cap;
	struct span *slice;
	uint32_t nslice, slices_sending;
	bool sending;
	struct tls_session *tls;
	/* transport */
	int fd;
	uint16_t in_flight; /* operations whose completion is still to come */
	bool recv_armed, recv_wanted, released;
	struct uring_send *send;
	struct dpdk_conn *dpdk;
};

struct transport_ops {
	enum status (*start)(struct net *n);
	/* Connections that are left end without upcalls. */
	void (*stop)(struct net *n);
	/* Polls: what arrived goes up, what is to be sent goes out. Gives how long the loop may sleep, at most wait_ns. NULL: io_uring wakes the loop. */
	uint64_t (*turn)(struct net *n, uint64_t wait_ns);
	/* As net_tick. NULL: nothing to count. */
	const char *(*tick)(struct net *n);
	enum status (*listen)(struct net *n, const struct net_listen *l, uint32_t listener);
	void (*accept_pause)(struct net *n, bool pause);
	/* Then up_connected or up_gone. */
	enum status (*connect)(struct net_conn *c, const struct sockaddr *to, const struct sockaddr *source);
	/* From now on up_data, up_eof, up_gone; until recv(c, false), after which a little may still come. */
	void (*recv)(struct net_conn *c, bool on);
	/* At most NET_SLICES_MAX; then up_sent when all is taken, or up_gone. */
	void (*send)(struct net_conn *c, const struct span *v, unsigned n);
	/* FIN after what was sent. */
	void (*shutdown)(struct net_conn *c);
	/* Ends it; up_released when nothing of it is under way any more. reset: by RST when that is possible. */
	void (*release)(struct net_conn *c, bool reset);
};

struct net {
	struct uring *uring;
	struct net_config cfg;
	const struct transport_ops *ops;
	struct net_conn **slot;
	uint32_t nslots, nconns, *free_slots, nfree;
	uint32_t next_gen;
	TAILQ_HEAD(net_dirty, net_conn) dirty;
	TAILQ_HEAD(, net_conn) lingering;
	struct tls_context *listener_tls[64];
	bool freeing;
	void *transport; /* the transport's own */
};

extern const struct transport_ops net_uring_ops, net_dpdk_ops;

/* ---- upcalls ---- */

/* A new inbound connection; NULL when there is no room: the transport closes it. */
struct net_conn *up_accepted(struct net *n, uint32_t listener);
/* Its addresses are set: begins. */
void up_open(struct net_conn *c);
void up_connected(struct net_conn *c);
void up_data(struct net_conn *c, struct span data);
void up_eof(struct net_conn *c);
void up_sent(struct net_conn *c);
/* It is broken: reason is a static text. */
void up_gone(struct net_conn *c, enum status st, const char *reason);
void up_released(struct net_conn *c);

/* sockaddr to 16 bytes and port. */
void net_unpack(const struct sockaddr_storage *ss, uint8_t ret_ip[16], uint16_t *ret_port);

/* ---- TLS sessions (tls.c), over memory: bytes in, bytes out ---- */

enum tls_result { TLS_DATA, TLS_MORE, TLS_ON, TLS_END, TLS_ERROR };

struct tls_session *tls_session_new(struct tls_context *t, bool server, const char *name);
void tls_session_free(struct tls_session *s);
/* Ciphertext from the peer. False: no memory. */
bool tls_session_feed(struct tls_session *s, struct span cipher);
/* Goes on: TLS_ON once when the handshake is done; TLS_DATA with plaintext in buf; TLS_END after close_notify; TLS_ERROR. */
enum tls_result tls_session_read(struct tls_session *s, char *buf, size_t cap, size_t *ret_n);
/* Encrypts. False: error. */
bool tls_session_write(struct tls_session *s, struct span plain);
void tls_session_close(struct tls_session *s);
/* Ciphertext for the peer that waits; and takes it (n of it). */
size_t tls_session_pending(const struct tls_session *s);
size_t tls_session_take(struct tls_session *s, char *buf, size_t cap);
const char *tls_session_text(const struct tls_session *s);
const char *tls_session_error(const struct tls_session *s);

#endif
