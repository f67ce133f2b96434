/* Which of lwIP's connections a packet can concern: lists by flow in place of its one list, the bound on half-open connections, TIME_WAIT.
 *
 * lwIP looks a segment's connection up in tcp_active_pcbs and tcp_tw_pcbs from the front. Here every bucket of flows has lists of its own, and flow_load puts a bucket's in
 * place of lwIP's before lwIP is called: with 10,000 busy connections that is a factor of 70. The rule: load the bucket before every call that may look a connection up, add it or
 * unlink it (input, connect, close, abort). The timers load each in turn.
 *
 * Thread: one. */
#ifndef WEIR_DATAPLANE_NET_NET_DPDK_FLOW_H
#define WEIR_DATAPLANE_NET_NET_DPDK_FLOW_H

#include <stdbool.h>
#include <stdint.h>

struct tcp_pcb;
struct ip_addr;

enum { FLOW_HALF_OPEN_MAX = 4096, FLOW_TIME_WAIT_MAX = 65536 };

struct flow_stats {
	uint64_t half_open_dropped, time_wait_recycled;
	uint32_t half_open;
	uint32_t active, time_wait; /* as of the last flow_tick, and of the last 32 */
};

void flow_init(void);
/* The bucket of a flow; ip: 16 octets, IPv4 as ::ffff:a.b.c.d; ports in host order. */
uint32_t flow_bucket(const uint8_t remote_ip[16], uint16_t remote_port, uint16_t local_port);
void flow_load(uint32_t bucket);
void flow_load_pcb(const struct tcp_pcb *pcb);
void flow_load_all(void);
/* A SYN came whose flow's bucket is loaded: a connection of the same flow in TIME_WAIT makes way when the sequence number shows that the SYN is new
 * (RFC 1122 4.2.2.13). False: too many are half-open for another one. */
bool flow_syn(const uint8_t remote_ip[16], uint16_t remote_port, uint16_t local_port, uint32_t seq);
/* The connection of the flow, whose bucket is loaded; NULL: there is none, or it is in TIME_WAIT. */
struct tcp_pcb *flow_find(const uint8_t remote_ip[16], uint16_t remote_port, uint16_t local_port);
bool flow_in_time_wait(const uint8_t remote_ip[16], uint16_t remote_port, uint16_t local_port);
/* Room for one more half-open connection: the oldest one makes way when there are too many. Then this bucket is loaded. */
void flow_make_room(uint32_t bucket);
/* A local port that no connection with this peer has, or 0: all are taken. Loads its bucket. */
uint16_t flow_new_port(const uint8_t remote_ip[16], uint16_t remote_port);
/* A new connection's first timeout; of those of a listening pcb it is set. */
void flow_begin(struct tcp_pcb *pcb);
/* A listening pcb's children count as half-open until flow_accepted. */
void flow_count_half_open(struct tcp_pcb *listening);
void flow_accepted(struct tcp_pcb *pcb);
/* Runs lwIP's TCP timers over all connections; every TCP_TMR_INTERVAL. */
void flow_tick(void);
void flow_stats(struct flow_stats *ret);

#endif
