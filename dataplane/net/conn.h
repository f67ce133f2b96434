/* A connection from the inside: what net.c (life and death), input.c and output.c share. Nothing outside this folder includes it. */
#ifndef WEIR_DATAPLANE_NET_CONN_H
#define WEIR_DATAPLANE_NET_CONN_H

#include <sys/queue.h>
#include "dataplane/net/net.h"
#include "dataplane/net/tls_session.h"

struct transport_ops;
struct uring_send;

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

/* ---- net.c ---- */

/* net_poll looks at it in this turn or the next. */
void conn_mark(struct net_conn *c);
void conn_emit(struct net_conn *c, struct net_event *ev);
/* An event that is only its type; none once the connection is being closed. */
void conn_tell(struct net_conn *c, enum net_event_type type);
void conn_release(struct net_conn *c, bool reset);
/* It is of no use any more. A connection that was being closed keeps its status. */
void conn_fail(struct net_conn *c, enum status st, const char *reason);

/* ---- input.c ---- */

/* Reads again after net_resume, or begins the handshake. */
void input_resume(struct net_conn *c);

/* ---- output.c ---- */

/* Gives the transport what there is, if it is not busy; goes on with an orderly close when all is out. */
void output_flush(struct net_conn *c);

#endif
