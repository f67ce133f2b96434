/* Connections: the seam between the mail engine and TCP. Everything above it is the same over io_uring, DPDK+lwIP or the simulated
 * network; TLS is below it, so that a connection with TLS looks like one without.
 *
 * A transport implements struct transport_ops (transport.h); net.c adds TLS, output buffers and delivery of input. Nothing waits.
 * All events come from inside uring_wait or net_poll, on the worker's own thread, to the one handler.
 *
 * Owner: net owns connections; a struct net_conn is valid from its first event (or net_connect) until its NET_CLOSED event returns.
 * Fails: a connection's trouble is an event with a status and a reason, never a failed call. */
#ifndef WEIR_DATAPLANE_NET_NET_H
#define WEIR_DATAPLANE_NET_NET_H

#include <sys/socket.h>
#include "dataplane/net/tls.h"
#include "spool/base/span.h"
#include "spool/base/status.h"
#include "spool/base/uring.h"
#include "spool/store/snap_dpdk.h"

struct net;
struct net_conn;
struct sim;

enum net_event_type {
	NET_ACCEPTED,  /* a new inbound connection; listener says which */
	NET_CONNECTED, /* net_connect succeeded */
	NET_TLS_ON,    /* the handshake is done; on failure NET_CLOSED comes instead */
	NET_DATA,      /* data is borrowed for the call. The handler sets used: what it leaves is kept and reading pauses until net_resume */
	NET_SENT,      /* all slices of net_send were taken by TCP (or encrypted): they may be reused */
	NET_DRAINED,   /* all output given so far was handed to the kernel, after net_write said ST_FULL */
	NET_EOF,       /* the peer will send nothing more (FIN, or TLS close_notify). Output still goes. */
	NET_CLOSED,    /* the connection is gone; status ST_OK when we closed it, ST_CLOSED reset by peer, ST_TIMEOUT, ST_IO, ST_DENIED refused */
};

struct net_event {
	enum net_event_type type;
	struct net_conn *conn;
	void *user;          /* net_set_user */
	struct span data;    /* NET_DATA */
	size_t used;         /* NET_DATA: out */
	uint32_t listener;   /* NET_ACCEPTED */
	enum status status;  /* NET_CLOSED */
	const char *reason;  /* NET_CLOSED: for logs; valid for the call */
};

typedef void net_handler(void *ctx, struct net_event *ev);

enum net_transport { NET_URING, NET_DPDK, NET_SIM };

struct net_config {
	enum net_transport transport;
	const struct snap_dpdk *dpdk; /* NET_DPDK only */
	uint32_t conns_max;      /* beyond, a new inbound connection is closed at once */
	uint64_t close_ns;       /* what net_close has still to send may take that long; 0: 30 s */
	uint64_t linger_ns;      /* and the peer's FIN after ours that long; 0: 2 s */
	net_handler *handler;
	void *ctx;
	struct sim *sim;         /* NET_SIM: the network, see net_sim.h; a listener's fd (-1: its port) is a port of it, and no uring is needed */
};

enum { NET_WRITE_MAX = 16 * 1024 }; /* bytes of copied output a connection may have waiting */

/* What needs privileges that the process then gives up: DPDK and its device. Before net_new with NET_DPDK. run_dir: where workers that share
 * an address find each other. */
enum status net_dpdk_open(const struct snap_dpdk *cfg, const char *run_dir);
/* NULL: this build has DPDK; otherwise why it has not. */
const char *net_dpdk_missing(void);
enum status net_new(struct uring *u, const struct net_config *cfg, struct net **ret);
/* Aborts all connections (with their NET_CLOSED events), then frees. */
void net_free(struct net *n);
/* Where connections are taken: an already listening socket (inherited; it stays the caller's) or, with DPDK, an address. */
struct net_listen {
	int fd;
	uint8_t ip[16];
	uint16_t port;
};
/* Implicit TLS: net_start_tls at NET_ACCEPTED. */
enum status net_listen(struct net *n, const struct net_listen *l, uint32_t listener);
/* Stops and starts taking new connections on all listeners (draining, limits). */
void net_accept_pause(struct net *n, bool pause);
/* Begins to connect; source may be NULL. Events follow. ST_FULL when conns_max is reached; ST_NOT_FOUND: source is no address of this host (with DPDK that is an event). */
enum status net_connect(struct net *n, const struct sockaddr *to, const struct sockaddr *source, void *user, struct net_conn **ret);
/* Once per turn of the loop, after uring_wait: sends what was written. */
void net_poll(struct net *n);
/* Last in a turn: a transport that polls does so here. Gives how long uring_wait may sleep, at most wait_ns. */
uint64_t net_turn(struct net *n, uint64_t wait_ns);
/* Once a second: what the transport counts goes to the counters. Gives what is wrong with it, or NULL; a static text. */
const char *net_tick(struct net *n);
/* Ends the transport when the engine is gone: no event comes any more. What was sent still goes out, within a second. */
void net_stop(struct net *n);
uint32_t net_conns(const struct net *n);

void net_set_user(struct net_conn *c, void *user);
void *net_user(const struct net_conn *c);
/* The peer's and our own address; IPv4 as ::ffff:a.b.c.d. */
void net_peer(const struct net_conn *c, uint8_t ret_ip[16], uint16_t *ret_port);
void net_local(const struct net_conn *c, uint8_t ret_ip[16], uint16_t *ret_port);

/* Copies s into the output. ST_FULL, and nothing of s is taken, when slices of net_send are outstanding or more than NET_WRITE_MAX would wait:
 * NET_DRAINED comes when all is out, and then a write of any size is taken. In a handshake it waits and goes encrypted. */
enum status net_write(struct net_conn *c, struct span s);
/* Sends n slices (at most 64) after all earlier output, without copying (TLS reads them piece by piece): they must stay as they are until
 * NET_SENT. One call at a time per connection: CHECKs that none is outstanding. */
void net_send(struct net_conn *c, const struct span *slices, unsigned n);
/* No NET_DATA until net_resume: the peer is held back by TCP, when a little (16 KiB) was kept. */
void net_pause(struct net_conn *c);
/* Reads again; what a NET_DATA handler left is offered again first, from the next net_poll (never from inside this call). */
void net_resume(struct net_conn *c);
/* Server: call when the reply before the handshake was written. What was written before goes in the clear, what is written after never does; no
 * slices may be outstanding. Input that was left or is already buffered is thrown away and counts as an injection: the connection is closed
 * with ST_DENIED (P4). Client likewise. peer: whom a client expects; NULL for a server. */
void net_start_tls(struct net_conn *c, struct tls_context *t, const struct tls_peer *peer);
/* In a handler of NET_DATA that also calls net_start_tls: what it takes of the data was a balancer's, and what it leaves is the beginning of the client's handshake. */
void net_preface_taken(struct net_conn *c);
/* NULL before NET_TLS_ON: "TLSv1.3 TLS_AES_256_GCM_SHA384", good until the next call. */
const char *net_tls_text(const struct net_conn *c);
/* TLS is on, by resumption of an earlier session. */
bool net_tls_resumed(const struct net_conn *c);
/* Of a client's handshake, from NET_TLS_ON or at the NET_CLOSED of one that failed: what was wrong with the peer. *ret_text is good for the event. */
enum tls_fault net_tls_fault(const struct net_conn *c, const char **ret_text);
/* Sends what is written (after the handshake, when that is under way), then closes in order: close_notify, FIN, and lingers until the peer's FIN
 * so that a last reply is not lost to a RST. Both have a limit, see net_config; ST_TIMEOUT when the output did not get out. No event but
 * NET_CLOSED follows. */
void net_close(struct net_conn *c);
/* Closes at once, throwing output away. NET_CLOSED follows from net_poll, never from inside this call. */
void net_abort(struct net_conn *c);

#endif
