/* What a transport gives to net.c, and what it tells it: TCP without TLS, without copies of output, one send at a time; and one timer.
 *
 * A transport keeps what it knows of a connection in conn_io(c), conn_bytes that begin as zeros. All calls and upcalls are on the worker's
 * thread; a transport never makes an upcall from inside one of its operations. tests/unit/dataplane/net/ holds every transport to this. */
#ifndef WEIR_DATAPLANE_NET_TRANSPORT_H
#define WEIR_DATAPLANE_NET_TRANSPORT_H

#include "dataplane/net/conn.h"

enum { NET_SLICES_MAX = 66 };

struct transport_ops {
	size_t conn_bytes;
	enum status (*start)(struct net *n);
	/* Returns when nothing of the transport is under way any more. Connections that are left end without upcalls. */
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
	/* Ends it, a send under way too; up_released when nothing of it is under way any more. reset: the peer sees a RST and no FIN. */
	void (*release)(struct net_conn *c, bool reset);
	/* up_wake once, when clock_mono_ns() has come to at_ns: it also ends the loop's wait. Replaces an earlier wish. */
	void (*wake)(struct net *n, uint64_t at_ns);
};

extern const struct transport_ops net_uring_ops, net_dpdk_ops, net_sim_ops;

/* ---- upcalls ---- */

/* A new inbound connection; NULL when there is no room: the transport closes it. */
struct net_conn *up_accepted(struct net *n, uint32_t listener);
/* Its addresses are set: begins. */
void up_open(struct net_conn *c);
/* Its local address is set. */
void up_connected(struct net_conn *c);
void up_data(struct net_conn *c, struct span data);
void up_eof(struct net_conn *c);
void up_sent(struct net_conn *c);
/* It is broken: reason is a static text. */
void up_gone(struct net_conn *c, enum status st, const char *reason);
void up_released(struct net_conn *c);
void up_wake(struct net *n);

/* sockaddr to 16 bytes and port. */
void net_unpack(const struct sockaddr_storage *ss, uint8_t ret_ip[16], uint16_t *ret_port);

#endif
