/* A connection from the inside: what net.c (life and death), input.c and output.c share. Only transports include it besides.
 *
 * A transport keeps its own part behind the connection (transport_ops.conn_bytes, conn_io): nothing here is a transport's. */
#ifndef WEIR_DATAPLANE_NET_CONN_H
#define WEIR_DATAPLANE_NET_CONN_H

#include <stdalign.h>
#include <sys/queue.h>
#include "dataplane/net/net.h"
#include "dataplane/net/tls_session.h"

struct transport_ops;
struct conn_waiting;

struct net_conn {
	struct net *net;
	void *user;
	uint32_t slot, gen;
	uint32_t listener;
	uint8_t peer_ip[16], local_ip[16];
	uint16_t peer_port, local_port;
	bool inbound, open;
	/* the end */
	bool closing;  /* net_close, or a TLS error whose alert is to be sent */
	bool shut;     /* our FIN was sent */
	bool dead;     /* given back to the transport */
	bool released; /* by the transport: nothing is under way */
	bool dirty;
	enum status status; /* for NET_CLOSED */
	const char *reason;
	uint64_t due_ns; /* when it is in a list of waiting ones */
	struct conn_waiting *waiting;
	TAILQ_ENTRY(net_conn) dirty_entry, waiting_entry;
	/* input */
	bool reading; /* the transport was asked to */
	bool paused;  /* by net_pause, or because the handler left something */
	bool delivering, resume_wanted;
	bool preface; /* net_preface_taken, for the event that is being delivered */
	bool fin_seen;           /* TCP's end of the stream */
	bool eof_seen, eof_told; /* the end that the handler is told: TCP's, or TLS close_notify */
	char *rest;              /* plaintext that the handler has not taken */
	uint32_t rest_off, rest_len, rest_cap;
	/* output: copied and waiting; being sent; slices that stay the caller's */
	bool sending, drain_wanted, sent_wanted;
	char *out, *tx;
	uint32_t out_len, out_cap, tx_len, tx_cap;
	struct span *slice;
	uint32_t nslice;
	/* TLS */
	struct tls_session *tls;
	bool tls_on, tls_broken;
	bool notify_seen, notify_sent; /* close_notify: the peer's and ours */
	alignas(max_align_t) char io[]; /* the transport's */
};

/* Connections that wait equally long, so that the first one is the next. */
struct conn_waiting {
	uint64_t wait_ns;
	TAILQ_HEAD(, net_conn) list;
};

struct net {
	struct uring *uring;
	struct net_config cfg;
	const struct transport_ops *ops;
	struct net_conn **slot;
	uint32_t nslots, nconns, *free_slots, nfree;
	uint32_t next_gen;
	TAILQ_HEAD(net_dirty, net_conn) dirty;
	struct conn_waiting closing, lingering;
	uint64_t wake_ns; /* what the transport was asked for; UINT64_MAX: nothing */
	bool freeing;
	void *transport; /* the transport's own */
};

static inline void *conn_io(struct net_conn *c)
{
	return c->io;
}

/* ---- net.c ---- */

/* net_poll looks at it in this turn or the next. */
void conn_mark(struct net_conn *c);
void conn_emit(struct net_conn *c, struct net_event *ev);
/* An event that is only its type; none once the connection is being closed. */
void conn_tell(struct net_conn *c, enum net_event_type type);
/* Begins an orderly close, which has cfg.close_ns to get the output out. */
void conn_close(struct net_conn *c, enum status st, const char *reason);
/* Moves it to this list; when its time is over it is released, whatever it does. */
void conn_wait(struct net_conn *c, struct conn_waiting *in);
void conn_release(struct net_conn *c, bool reset);
/* It is of no use any more. A connection that was being closed keeps its status. */
void conn_fail(struct net_conn *c, enum status st, const char *reason);

/* ---- input.c ---- */

void input_read(struct net_conn *c, bool on);
/* Reads again after net_resume, or begins the handshake. */
void input_resume(struct net_conn *c);

/* ---- output.c ---- */

/* Gives the transport what there is, if it is not busy; goes on with an orderly close when all is out. */
void output_flush(struct net_conn *c);
/* It is being closed, but what it was given to say waits for the handshake, which can still come to its end. */
bool output_waits_for_tls(const struct net_conn *c);

#endif
