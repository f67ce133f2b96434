/* The world around one worker: a simulated network and disk, a scanner, and time that passes only when the worker has nothing to do.
 *
 * The worker is the real one, with its loop; it sleeps in uring_wait, and there the world goes on: first what is real (io_uring, for sockets on this machine)
 * and what takes no time (disk, scanner), then the orders of the test (control.h), then the next thing in the network, at its time. So a world is the same, event
 * by event, for the same seed and orders; only what OpenSSL draws is not ours.
 *
 * Owner: main. One a process. Thread: one. */
#ifndef WEIR_TESTS_SIM_WORLD_H
#define WEIR_TESTS_SIM_WORLD_H

#include "dataplane/net/net_sim.h"
#include "dataplane/worker.h"

struct world {
	struct worker *worker;
	struct sim *sim;
	struct disk *disk; /* of the worker's one partition; its store's */
	uint64_t seed;
};

extern struct world world;

/* Before worker_init: from now on the clock is the simulated one. */
void world_begin(struct worker *w, const struct sim_options *o);
/* Nothing is left to do for the worker: no session, no connection, no message. */
bool world_is_idle(void);
/* Messages in the spool. */
uint32_t world_queue(void);

#endif
