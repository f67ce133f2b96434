/* The far end of a connection under test: plain TCP, as rude as a test wants it to be, and TLS on top when asked.
 *
 * A peer is reached through struct peer_ops, so that a transport which kernel sockets do not reach (a simulated one) brings its own.
 * No call waits. Fails: calls that read or write give -errno. */
#ifndef WEIR_TESTS_SUPPORT_NET_PEER_H
#define WEIR_TESTS_SUPPORT_NET_PEER_H

#include <sys/socket.h>
#include <sys/types.h>
#include "dataplane/net/tls_session.h"

struct peer_ops;
struct sim;
struct sim_end;

struct peer {
	const struct peer_ops *ops;
	int fd;              /* peer_kernel */
	struct sim_end *end; /* peer_sim */
	struct tls_session *tls;
	bool tls_on, tls_end, tls_failed;
	char out[16384]; /* ciphertext that TCP did not take yet */
	size_t out_off, out_len;
};

struct peer_ops {
	/* Something to connect to on this host, with small buffers; its address in *ret. */
	int (*listen)(struct sockaddr_storage *ret);
	/* An address that refuses connections. */
	void (*closed_port)(struct sockaddr_storage *ret);
	int (*dial)(struct peer *p, const struct sockaddr_storage *to);
	/* A connection made to a listener: -EAGAIN when there is none yet. */
	int (*accept)(struct peer *p, int listener);
	ssize_t (*read)(struct peer *p, char *buf, size_t cap); /* 0: the end of the stream */
	ssize_t (*write)(struct peer *p, struct span s);
	void (*fin)(struct peer *p);
	void (*reset)(struct peer *p);
	void (*close)(struct peer *p);
	/* Its own address as the other side should see it. */
	void (*local)(struct peer *p, struct sockaddr_storage *ret);
	void (*unlisten)(int listener);
};

extern const struct peer_ops peer_kernel, peer_sim;
/* The address of peer_kernel's ends, from now on; loopback before. Elsewhere dial only begins: a peer that is not connected yet takes and has nothing (-EAGAIN). */
void peer_kernel_at(uint32_t ip);
/* The network in which peer_sim is, from now on. */
void peer_sim_network(struct sim *s);

/* TLS on top of a peer. */
void peer_tls(struct peer *p, struct tls_context *t, bool server);
/* Moves what the session has to say and what came; plaintext is added to buf. Gives its length, 0 when there was none. */
size_t peer_tls_turn(struct peer *p, char *buf, size_t cap);
/* Encrypts and sends as far as it goes; the rest goes with the next turn. */
void peer_tls_write(struct peer *p, struct span s);
/* Something that was written did not go out yet. */
bool peer_tls_waits(const struct peer *p);
/* Ciphertext that would go out next, to be sent by other means. */
size_t peer_tls_take(struct peer *p, char *buf, size_t cap);
void peer_done(struct peer *p);

#endif
