/* The parts of the DPDK transport among themselves: connections over lwIP's pcbs, and events from lwIP to the engine.
 *
 * lwIP's callbacks only note what happened (struct event); dpdk_run makes the upcalls when lwIP has returned. So the engine may do with a connection what it likes,
 * and no callback ever frees a pcb under lwIP's feet.
 *
 * Owner: net_dpdk.c, which has the one struct dpdk_net. Thread: one. */
#ifndef WEIR_DATAPLANE_NET_NET_DPDK_H
#define WEIR_DATAPLANE_NET_NET_DPDK_H

#include <lwip/tcp.h>
#include "dataplane/net/transport.h"

enum { DPDK_LISTENERS = 64 };

/* conn_io of a connection. */
struct dpdk_conn {
	struct net_conn *conn;
	struct tcp_pcb *pcb;    /* NULL: lwIP has let go of it, or we have */
	uint32_t noted;         /* events that name it */
	bool recv_wanted;
	/* what came while nobody wanted it; and how much lwIP waits for to be taken */
	char *held;
	uint32_t held_len, held_cap, untaken;
	bool eof;
	/* what TCP has not taken yet of a send */
	struct span *out;
	unsigned out_at, nout;
};

enum event_type { EV_OPEN, EV_CONNECTED, EV_DATA, EV_EOF, EV_ROOM, EV_SENT, EV_WANTED, EV_GONE };

struct event {
	enum event_type type;
	err_t err;              /* EV_GONE */
	struct dpdk_conn *d;
	struct pbuf *p;         /* EV_DATA */
};

struct dpdk_net {
	struct net *n;
	struct tcp_pcb *listener[DPDK_LISTENERS];
	struct event *event;
	uint32_t nevents, cap;
	uint32_t idle_polls;
	uint64_t busy_ns, wake_ns, sleeps, bad_checksums;
};

extern struct dpdk_net dn;

/* ---- net_dpdk_conn.c ---- */

void dpdk_init(void);
/* Binds a pcb to a connection. */
struct dpdk_conn *dpdk_attach(struct net_conn *c, struct tcp_pcb *pcb);
/* Parts with the pcb, which lwIP then ends by FIN or RST. */
void dpdk_let_go(struct dpdk_conn *d, bool reset);
/* net.c has let go of it: tells it when no event names d any more. */
void dpdk_maybe_released(struct dpdk_conn *d);
/* lwIP has no pcb for it, or has one no more. */
void dpdk_failed(struct dpdk_conn *d, err_t err);
void dpdk_note(enum event_type type, struct dpdk_conn *d, struct pbuf *p, err_t err);
err_t dpdk_connected(void *arg, struct tcp_pcb *pcb, err_t err);
/* As transport_ops.send. */
void dpdk_send(struct dpdk_conn *d, const struct span *v, unsigned n);
/* The upcalls for what was noted. False: there was nothing. */
bool dpdk_run(void);

/* ---- net_dpdk_count.c ---- */

/* As transport_ops.tick. */
const char *dpdk_tick(struct net *n);

#endif
