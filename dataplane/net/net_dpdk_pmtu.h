/* The MTU of the paths to destinations (RFC 1191, RFC 8201): what routers said, for ten minutes; and what follows for packets and segments.
 *
 * IPv4 packets have DF set unless they are larger than what is known of their path: then the routers cut them. That is so for segments which were made before
 * the router's word came, as those of IPv6 are cut by lwIP, until all of them are acknowledged and smaller ones are made (pmtu_fits). Where no word comes because
 * somebody filters ICMP, segments that were sent twice in vain go without DF, too.
 *
 * Thread: one. */
#ifndef WEIR_DATAPLANE_NET_NET_DPDK_PMTU_H
#define WEIR_DATAPLANE_NET_NET_DPDK_PMTU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct tcp_pcb;

enum { PMTU_LEAST4 = 552, PMTU_LIFE_S = 600, PMTU_PATHS = 4096 };

/* A router said that more than mtu octets do not get through to remote_ip; 0: an old router that does not say how many do. */
void pmtu_learn(const uint8_t remote_ip[16], uint16_t mtu, uint64_t now_s);
/* What is known at this time; 0: nothing. */
uint16_t pmtu_of(const uint8_t remote_ip[16], uint64_t now_s);
/* Makes what is written to the connection from now on fit its path. False: not yet, larger segments are still on their way; octets that come now must wait until
 * something of it is acknowledged. */
bool pmtu_fits(struct tcp_pcb *pcb, uint64_t now_s);
/* Sets DF in an Ethernet frame of n octets where it must be set; fix: the header has its checksum already. */
void pmtu_mark(uint8_t *frame, size_t n, bool fix, uint64_t now_s);
/* Paths on which routers have spoken since the start. */
uint64_t pmtu_learnt(void);

#endif
