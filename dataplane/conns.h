/* Delivery connections: from a destination's name to a session that carries one delivery after the other.
 *
 * Owner: this module; a connection ends by itself when its destination has nothing for it. */
#ifndef WEIR_DATAPLANE_CONNS_H
#define WEIR_DATAPLANE_CONNS_H

#include "dataplane/outbound.h"

struct out_conn;

/* Opens one for this destination: looks its hosts up, tries them in order. for_probe: a probe is what it is opened for. */
void conn_open(struct dest *d, bool for_probe);
/* An idle connection takes the destination's next delivery. */
void conn_go(struct out_conn *c);
/* An idle connection says QUIT. */
void conn_quit(struct out_conn *c);
/* Nobody wants to know what the connection is asking about. */
void conn_probe_abandoned(struct out_conn *c);
/* Nobody wants to know what the connection is asking about. */
void conn_probe_abandoned(struct out_conn *c);
void conn_net_event(struct worker *w, struct net_event *ev);
void conn_timer(struct worker *w, struct timer *t);
/* STORE_READ with the cookie of a connection. */
void conn_read(struct worker *w, uint64_t cookie);

#endif
