/* A simulated TCP network behind transport.h, for tests: several struct net in one process, on one simulated clock, the same to the byte for the same seed.
 *
 * It keeps what TCP promises (each byte once, in order, or the connection is over) and is otherwise as bad as asked for: segments of any size, delays, losses
 * that are sent again later, small windows, and a cut after any byte. It never touches a socket or the real clock.
 *
 * Owner: the test; it must outlive every net that uses it. Thread: one. */
#ifndef WEIR_DATAPLANE_NET_NET_SIM_H
#define WEIR_DATAPLANE_NET_NET_SIM_H

#include <stdbool.h>
#include <stdint.h>

struct sim;

struct sim_options {
	uint64_t seed;
	uint64_t delay_ns, jitter_ns; /* one way: delay, and up to jitter more */
	uint32_t segment_max;         /* bytes; segments have random sizes up to it. 0: 1460 */
	uint32_t window;              /* bytes under way or not taken by the receiver. 0: 64 KiB */
	uint32_t loss_permille;       /* of segments; each is sent again after 200 ms, 400 ms, ... */
};

enum sim_cut_how {
	SIM_CUT_NOT,
	SIM_CUT_RESET,  /* both ends see a reset */
	SIM_CUT_EOF,    /* as if the sender died: its peer reads the end, and a reset when it sends */
	SIM_CUT_SILENT, /* nothing arrives any more, in either direction, and nobody is told */
};

struct sim_cut {
	enum sim_cut_how how;
	bool by_client; /* counts the bytes of the side that connected, or of the other */
	uint64_t at;    /* so many bytes pass */
};

struct sim *sim_new(const struct sim_options *o);
void sim_free(struct sim *s);
/* For all connections that begin from now on. */
void sim_set_cut(struct sim *s, const struct sim_cut *cut);
/* Lets the next thing happen, at its time. False: nothing is under way. The caller then polls every net. */
bool sim_step(struct sim *s);
uint64_t sim_now(const struct sim *s);
/* Time in which nothing happens; only between steps that gave false. */
void sim_sleep(struct sim *s, uint64_t ns);

#endif
