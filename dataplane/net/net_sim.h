/* A simulated TCP network behind transport.h, for tests: several struct net in one process, on one simulated clock, the same to the byte for the same seed.
 *
 * It keeps what TCP promises (each byte once, in order, or the connection is over) and is otherwise as bad as asked for: segments of any size, delays, losses
 * that are sent again later, small windows, and a cut after any byte. It never touches a socket or the real clock: while a network is there, its time is the
 * process's (clock_fake).
 *
 * Owner: the test; it must outlive every net that uses it. One at a time. Thread: one. */
#ifndef WEIR_DATAPLANE_NET_NET_SIM_H
#define WEIR_DATAPLANE_NET_NET_SIM_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>
#include "spool/base/span.h"

struct sim;
struct sim_end;

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
/* Another network, for what is sent from now on; its chances begin with its seed. Not while a connection has something under way. */
void sim_set_options(struct sim *s, const struct sim_options *o);
/* For all connections that begin from now on. */
void sim_set_cut(struct sim *s, const struct sim_cut *cut);
/* Lets the next thing happen, at its time. False: nothing is under way and no net waits for a time. The caller then polls every net. */
bool sim_step(struct sim *s);
/* The same, but no longer than timeout_ns from now, which is over when it gives false. */
bool sim_wait(struct sim *s, uint64_t timeout_ns);
uint64_t sim_now(const struct sim *s);

/* ---- far ends without a net, plain as sockets. No call waits. Fails: -errno ---- */

/* A port where connections wait to be accepted, by sim_accept or by a net that was given it with net_listen; *ret is its address. */
uint16_t sim_open(struct sim *s, struct sockaddr_storage *ret);
void sim_open_end(struct sim *s, uint16_t port);
/* A port where nobody listens. */
void sim_closed_port(struct sim *s, struct sockaddr_storage *ret);
/* from: NULL: 127.0.0.1 and a port of its own; port 0: a port of its own. */
int sim_dial(struct sim *s, const struct sockaddr_storage *to, const struct sockaddr_storage *from, struct sim_end **ret);
int sim_accept(struct sim *s, uint16_t port, struct sim_end **ret);
ssize_t sim_read(struct sim_end *e, char *buf, size_t cap); /* 0: the end of the stream */
ssize_t sim_write(struct sim_end *e, struct span data);
void sim_fin(struct sim_end *e);
/* e is not used any more. With unread input a close is a reset, as in a kernel. */
void sim_reset(struct sim_end *e);
void sim_close(struct sim_end *e);
void sim_local(const struct sim_end *e, struct sockaddr_storage *ret);

#endif
