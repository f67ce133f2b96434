/* Tests over DPDK: EAL and lwIP are one in a process and end with it, so that each test has a process of its own, in a network namespace of its own.
 *
 * There the kernel is the far end, behind one end of a veth pair; af_packet has the other. */
#ifndef WEIR_TESTS_SUPPORT_NET_RIG_APART_H
#define WEIR_TESTS_SUPPORT_NET_RIG_APART_H

#include "dataplane/net/net.h"
#include "tests/support/unit.h"

#define APART_NET_IP4 { 10, 25, 0, 10 }

extern const struct snap_dpdk apart_dpdk;

/* As _cmocka_run_group_tests. Where there is no DPDK or there are no namespaces, all are skipped, and the reason is said. */
int apart_run(const char *name, const struct CMUnitTest *tests, size_t n);
/* Where the net can listen, and how that is reached. */
void apart_listen(struct net_listen *ret, struct sockaddr_storage *ret_at);

#endif
