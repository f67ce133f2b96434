/* The io_uring transport from the inside: net_uring.c (connections) and net_uring_listen.c (listeners, the timer) share it. */
#ifndef WEIR_DATAPLANE_NET_NET_URING_H
#define WEIR_DATAPLANE_NET_NET_URING_H

#include "dataplane/net/transport.h"

enum { URING_BUFFERS = 512, URING_BUFFER_BYTES = 16 * 1024, URING_BUFFER_GROUP = 1, URING_LISTENERS = 64 };
enum uring_op { OP_ACCEPT, OP_ACCEPT_AGAIN, OP_WAKE, OP_CONNECT, OP_RECV, OP_SEND, OP_CLOSE, OP_IGNORED };

struct uring_send;

/* conn_io of a connection. */
struct uring_conn {
	int fd;
	uint16_t in_flight; /* operations whose completion is still to come */
	bool recv_armed, recv_wanted, released;
	bool by_piece; /* one buffer at a time, see net_uring.c */
	struct uring_send *send;
};

struct uring_listener {
	int fd;
	bool used, armed;
};

struct uring_net {
	struct io_uring_buf_ring *ring;
	char *buffers;
	struct uring_listener listener[URING_LISTENERS];
	bool accept_paused, accept_resting, wake_armed, stopping;
	uint32_t closes; /* of descriptors, under way */
	/* read by the kernel when it takes the submission: they outlive it */
	struct __kernel_timespec rest, wake;
};

/* ---- net_uring.c ---- */

/* Ends operations by their tag: their completions come with -ECANCELED, or with what they had. */
void uring_cancel(struct net *n, enum uring_op op, uint32_t slot, uint32_t gen);
/* An accepted socket: its addresses, then up_open. */
void uring_accepted(struct net_conn *c, int fd);

/* ---- net_uring_listen.c ---- */

enum status uring_listen(struct net *n, const struct net_listen *l, uint32_t listener);
void uring_accept_pause(struct net *n, bool pause);
void uring_wake(struct net *n, uint64_t at_ns);
/* Completions of OP_ACCEPT, OP_ACCEPT_AGAIN, OP_WAKE. */
void uring_listen_event(struct net *n, const struct uring_event *ev);
/* Ends them all and waits for it. */
void uring_listen_stop(struct net *n);

#endif
