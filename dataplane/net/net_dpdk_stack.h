/* lwIP between a DPDK port and net_dpdk.c: frames become pbufs and go in, packets come out, lwIP's clocks are driven. For files that include lwIP.
 *
 * Thread: one; lwIP's state is global, so there is one stack in a process. */
#ifndef WEIR_DATAPLANE_NET_NET_DPDK_STACK_H
#define WEIR_DATAPLANE_NET_NET_DPDK_STACK_H

#include <lwip/ip_addr.h>
#include <stdbool.h>
#include <stdint.h>
#include "dataplane/net/net.h"

struct stack_stats {
	uint64_t tcp_in, tcp_out, tcp_again; /* segments; those sent again */
	uint64_t bad_checksums, dropped;
};

/* After port_open. */
enum status stack_start(const struct snap_dpdk *cfg, uint64_t now_ns);
/* One burst of frames from the port through lwIP; gives how many there were. */
unsigned stack_receive(void);
/* What lwIP has to do at this time. */
void stack_timers(uint64_t now_ns);
/* False: SYNs are dropped unanswered, so that their senders try again. */
void stack_accept(bool on);
/* Says that a port is listened on: connections of our own do not use it. */
void stack_listening(uint16_t local_port);
bool stack_listens_on(uint16_t local_port);
/* Our address of the family of ip; NULL: none is configured. */
const uint8_t *stack_own_ip(const uint8_t ip[16]);
void stack_ip(const ip_addr_t *from, uint8_t ret[16]);
void stack_ip_of(const uint8_t from[16], ip_addr_t *ret);
bool stack_is_v4(const uint8_t ip[16]);
void stack_stats(struct stack_stats *ret);

#endif
