/* The simulated network from the inside: net_sim.c (time, chance, segments), net_sim_ops.c (behind transport.h) and net_sim_socket.c (far ends) share it.
 *
 * One queue of events in order of time. A link has two ends; an end's output is cut into segments, each of which is an event at the other end. */
#ifndef WEIR_DATAPLANE_NET_NET_SIM_INTERNAL_H
#define WEIR_DATAPLANE_NET_NET_SIM_INTERNAL_H

#include "dataplane/net/net_sim.h"
#include "dataplane/net/transport.h"

enum { SIM_PORTS = 16 };

enum sim_event_type {
	EV_ARRIVE,    /* the SYN, at the end that is to be */
	EV_CONNECTED, /* the answer to it is back */
	EV_REFUSED,
	EV_ACCEPT,    /* a net takes waiting connections again: to one of them */
	EV_DATA,
	EV_EOF,
	EV_RESET,
	EV_SENT,      /* the output was taken: to its sender */
	EV_RECV,      /* it receives again: what was held */
};

struct sim_event {
	TAILQ_ENTRY(sim_event) entry;
	STAILQ_ENTRY(sim_event) held;
	enum sim_event_type type;
	uint64_t at_ns;
	struct sim_end *to;
	size_t off, n;
	char data[];
};

enum sim_end_state {
	END_NONE,    /* not there yet, or refused */
	END_WAITING, /* to be accepted */
	END_CONN,    /* a net's */
	END_SOCKET,  /* a far end of the test's */
	END_GONE,
};

struct sim_end {
	struct sim_link *link;
	enum sim_end_state state;
	struct net_conn *conn;   /* END_CONN */
	uint8_t ip[16];
	uint16_t port;
	bool recv_on, fin_sent;
	bool silent;             /* nothing of it arrives any more */
	bool broken;             /* it was reset */
	uint64_t last_ns;        /* when the last of its output arrives */
	uint64_t sent, under_way;
	struct span pending[NET_SLICES_MAX];
	unsigned npending, next;
	STAILQ_HEAD(, sim_event) held; /* arrived, not received */
};

struct sim_link {
	STAILQ_ENTRY(sim_link) entry;
	struct sim *sim;
	struct sim_end end[2]; /* 0 connected */
	struct sim_cut cut;
};

struct sim_port {
	uint16_t port;       /* 0: unused */
	struct sim_net *net; /* who accepts; NULL: sim_accept */
	uint32_t listener;
	bool is_net_own;     /* it ends with its net */
};

/* A net's part: net.transport. */
struct sim_net {
	LIST_ENTRY(sim_net) entry;
	struct sim *sim;
	struct net *net;
	bool paused;
	uint64_t wake_ns; /* UINT64_MAX: not at all */
};

/* conn_io of a connection. */
struct sim_conn {
	struct sim_end *end;
};

struct sim {
	struct sim_options o;
	struct sim_cut cut;
	uint64_t now_ns, random;
	uint16_t next_port;
	TAILQ_HEAD(sim_event_queue, sim_event) queue;
	STAILQ_HEAD(, sim_link) links;
	LIST_HEAD(, sim_net) nets;
	struct sim_port port[SIM_PORTS];
};

/* ---- net_sim.c ---- */

void sim_event_add(enum sim_event_type type, struct sim_end *to, uint64_t at_ns);
struct sim_end *sim_peer(struct sim_end *e);
/* Arrives there after all that was sent before. */
void sim_to_peer(struct sim_end *from, enum sim_event_type type);
/* Sends what the window lets through of pending. Makes no upcall. */
void sim_pump(struct sim_end *e);
/* How much of n bytes goes now. Nothing into a window that is nearly full, lest segments become smaller and smaller (RFC 1122, 4.2.3.4). */
size_t sim_room(const struct sim_end *e, size_t n);
/* n bytes of what arrived were taken: the other side may send more. */
void sim_taken(struct sim_end *e, size_t n);
/* Its owner uses it no more. */
void sim_end_leave(struct sim_end *e, bool reset);
/* A new link, whose SYN is on its way. source may be NULL. NULL: no memory. */
struct sim_link *sim_link_new(struct sim *s, const struct sockaddr *to, const struct sockaddr *source);

/* ---- net_sim_ops.c ---- */

/* The net that listens there takes it, if it takes any now. */
void sim_net_accept(struct sim_end *e);

/* ---- net_sim_socket.c ---- */

struct sim_port *sim_port_find(struct sim *s, uint16_t port);
/* ST_FULL when there are too many. */
enum status sim_port_add(struct sim *s, uint16_t port, struct sim_port **ret);
/* Resets who waits there. */
void sim_port_end(struct sim *s, struct sim_port *p);

#endif
