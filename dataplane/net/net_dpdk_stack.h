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

struct tcp_pcb;

/* After port_open. */
enum status stack_start(const struct snap_dpdk *cfg, uint64_t now_ns);
/* One burst of frames from the port through lwIP; gives how many there were. */
unsigned stack_receive(void);
/* What lwIP has to do at this time. */
void stack_timers(uint64_t now_ns);
/* A connection begins with a SYN that lwIP did not see (n octets, without checksums) and an answer that it did not send, whose number was isn. */
void stack_begin_unseen(const uint8_t *syn, size_t n, uint32_t isn);
/* Our address of the family of ip; NULL: none is configured. */
const uint8_t *stack_own_ip(const uint8_t ip[16]);
void stack_ip(const ip_addr_t *from, uint8_t ret[16]);
void stack_ip_of(const uint8_t from[16], ip_addr_t *ret);
bool stack_is_v4(const uint8_t ip[16]);
/* False: what is written to it now would not fit its path; pmtu_fits. */
bool stack_fits(struct tcp_pcb *pcb);
void stack_stats(struct stack_stats *ret);

#endif
