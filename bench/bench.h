/* The load generator and the sink: on the same SMTP engine and transport as the relay.
 *
 * Ground truth: every message has a number in X-Bench-Id; send writes those that were acknowledged, sink those that arrived. */
#ifndef WEIR_BENCH_BENCH_H
#define WEIR_BENCH_BENCH_H

#include <stdio.h>
#include "dataplane/net/net.h"

/* device: as DPDK names it, or NULL for the kernel's TCP; ip: own ADDRESS/PREFIX. */
struct transport_options {
	const char *device, *ip;
};

struct send_options {
	struct transport_options transport;
	struct sockaddr_storage to;
	const char *from, *rcpt;
	unsigned sessions, messages, per_connection, size;
	double rate;       /* messages a second, open loop; 0: closed loop */
	uint64_t first_id;
	FILE *acked;       /* numbers of acknowledged messages, one a line; NULL */
};

struct sink_options {
	struct transport_options transport;
	struct sockaddr_storage listen;
	uint64_t expect;   /* ends after so many messages; 0: at SIGINT */
	double idle_s;     /* with expect: ends when nothing came for so long */
	FILE *arrived;
	bool lmtp;
	const char *mailboxes; /* directory of mailboxes (mailbox.h): what comes is kept, who has none is refused; NULL: nothing is kept, everybody is there */
};

/* Give the exit code: 0 when every message was acknowledged (arrived). */
int bench_send(const struct send_options *o);
int bench_sink(const struct sink_options *o);
int bench_noop(const struct send_options *o);
/* weir-bench tables. -1: wrong usage. */
int bench_tables(int argc, char **argv);

/* ---- transport.c ---- */

struct bench_cpu {
	double us;
};

enum status bench_net(const struct transport_options *o, net_handler *handler, void *ctx, struct uring *u, struct net **ret);
/* Polls, then sleeps at most wait_ns. */
enum status bench_turn(struct uring *u, struct net *n, uint64_t wait_ns);
/* CPU time of this process, user and system, from begin on; printed for each message, and the end of the line. */
void bench_latency_print(double *ms, uint64_t n);
void bench_cpu_begin(struct bench_cpu *c);
void bench_cpu_print(const struct bench_cpu *c, uint64_t messages);

extern volatile bool bench_stop;

#endif
