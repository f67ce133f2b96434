/* The bench on which a transport is tested: a net on its own ring, a handler that notes what it is told, and far ends (net_peer.h).
 *
 * The cases in tests/unit/dataplane/net/ are written against net.h and this; every transport in rig_transports runs all of them. */
#ifndef WEIR_TESTS_SUPPORT_NET_RIG_H
#define WEIR_TESTS_SUPPORT_NET_RIG_H

#include "dataplane/net/net.h"
#include "dataplane/net/net_sim.h"
#include "spool/base/clock.h"
#include "tests/support/net_peer.h"
#include "tests/support/unit.h"

enum { RIG_CONNS = 8 };
#define RIG_CLOSE_NS (600 * NS_PER_MS)
#define RIG_LINGER_NS (300 * NS_PER_MS)
#define RIG_PATIENCE_NS (5 * NS_PER_S)

struct rig_transport {
	const char *name;
	enum net_transport id;
	const struct peer_ops *peer;
	const struct sim_options *sim; /* NET_SIM */
	bool has_files;                /* a far end and a listener are a descriptor each */
	const struct snap_dpdk *dpdk;  /* NET_DPDK, which is one in a process: each test has a process of its own (net_rig_apart.h) */
	bool bad_wire;                 /* frames are lost, doubled, late and out of order (net_bad_wire.h) */
	uint8_t own_ip4[4];            /* of connections that the net makes */
};

/* What the handler was told of one connection. */
struct rig_conn {
	struct net_conn *conn; /* NULL after NET_CLOSED */
	bool accepted, connected, tls_on, eof, closed;
	unsigned nsent, ndrained, events_after_close;
	enum status status;
	char reason[128];
	char *data;
	size_t len, cap;
};

struct rig {
	const struct rig_transport *t;
	struct uring uring;
	struct sim *sim; /* NET_SIM: its clock is the test's */
	struct net *net; /* NULL after rig_end */
	struct rig_conn conn[RIG_CONNS];
	unsigned nconns;
	struct sockaddr_storage at; /* of rig_listen */
	int listener;
	struct tls_context *tls_server, *tls_client;
	struct tls_context *tls_accepted; /* of rig_listen */
	/* Called after an event was noted; NET_DATA: ev->used is all of it and may be made less. */
	void (*hook)(struct rig *r, struct rig_conn *c, struct net_event *ev);
	struct peer peer; /* the test's far end; freed with the rig */
	void *ctx;        /* the test's own */
};

/* cmocka's setup and teardown; *state is a struct rig. */
int rig_setup(void **state);
int rig_teardown(void **state);
/* Runs a group for every transport. */
int rig_run(const char *group, const struct CMUnitTest *tests, size_t n);
#define RIG_TEST(f) cmocka_unit_test_setup_teardown(f, rig_setup, rig_teardown)
#define RIG_RUN(group, tests) rig_run(group, tests, sizeof(tests) / sizeof((tests)[0]))

/* Frees the net before the test is over. */
void rig_end(struct rig *r);
/* Waits until the transport completed something, at most so long. */
void rig_wait(struct rig *r, uint64_t timeout_ns);
/* One turn of the loop. */
void rig_turn(struct rig *r);
/* Turns for a while, to see that nothing happens. */
void rig_rest(struct rig *r);
/* Turns until it is so; fails the test when that takes too long. */
#define RIG_UNTIL(r, cond)                                                                         \
	do {                                                                                       \
		uint64_t rig_end_ns = clock_mono_ns() + RIG_PATIENCE_NS;                           \
		while (!(cond)) {                                                                  \
			if (clock_mono_ns() > rig_end_ns)                                          \
				fail_msg("never came: %s", #cond);                                 \
			rig_turn(r);                                                               \
		}                                                                                  \
	} while (0)

/* A listener of the net; t: its connections begin TLS when they are accepted; NULL: without TLS. */
void rig_listen(struct rig *r, struct tls_context *t);
/* The peer connects to it; gives the accepted connection. */
struct rig_conn *rig_accepted(struct rig *r);
/* The net connects to a listener of the peer's; gives the connected connection. */
struct rig_conn *rig_connected(struct rig *r);
/* net_connect with a rig_conn to note its events. */
struct rig_conn *rig_connect(struct rig *r, const struct sockaddr_storage *to);
/* Turns until the connection was told its end. */
void rig_closed(struct rig *r, struct rig_conn *c);
/* The peer writes all of it while the net turns. */
void rig_peer_write(struct rig *r, struct span s);
/* The peer reads until the end of the stream or a reset (-errno in *ret_end), at most cap bytes. */
size_t rig_peer_read_all(struct rig *r, char *buf, size_t cap, ssize_t *ret_end);
/* The peer reads exactly n bytes. */
void rig_peer_read(struct rig *r, char *buf, size_t n);
/* The peer decrypts exactly n bytes. */
void rig_peer_tls_read(struct rig *r, char *buf, size_t n);
/* Bytes that tell their place, so that a lost, doubled or moved one shows. */
void rig_pattern(char *buf, size_t n, uint64_t at);

#endif
