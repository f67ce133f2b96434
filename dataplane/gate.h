/* Whether this worker takes connections now. It does not
 *  - while it stops: they wait in its sockets for the worker that comes after it;
 *  - while its descriptors are needed for what it has begun: deliveries, segments, scanners (P17). What came in one turn before it could close gets 421 (inbound.c);
 *  - while every partition of it is fenced and another worker takes mail: then its sockets leave the port, and the kernel gives the connections to the others. Alone, it
 *    stays and says 421, which is better than silence.
 *
 * Owner: the worker. */
#ifndef WEIR_DATAPLANE_GATE_H
#define WEIR_DATAPLANE_GATE_H

#include "dataplane/worker.h"

/* Puts the sockets on their port. */
enum status gate_open(struct worker *w);
/* Once per turn. */
void gate_turn(struct worker *w);
/* Once a second: how the other workers are. */
void gate_tick(struct worker *w);
/* The sockets are left as a successor wants to find them. */
void gate_done(struct worker *w);

#endif
