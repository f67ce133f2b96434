/* Functions of ours that lwIP calls. Included by lwIP after its own types. */
#ifndef WEIR_DATAPLANE_NET_LWIP_HOOKS_H
#define WEIR_DATAPLANE_NET_LWIP_HOOKS_H

#include <lwip/err.h>
#include <lwip/ip_addr.h>

struct netif;
struct tcp_hdr;
struct tcp_pcb;

/* Initial sequence number, RFC 6528 (net_dpdk_seed.c). */
uint32_t stack_isn(const ip_addr_t *local, uint16_t local_port, const ip_addr_t *remote, uint16_t remote_port);
#define LWIP_HOOK_TCP_ISN stack_isn

/* Next hop for an IPv6 address that is not on the link; NULL: there is none (net_dpdk_stack.c). */
const ip6_addr_t *stack_gateway6(struct netif *netif, const ip6_addr_t *to);
#define LWIP_HOOK_ND6_GET_GW stack_gateway6

/* Sees each segment that comes in for a pcb; anything but ERR_OK drops it: one that would change the segment size of a connection, which lwIP believes at any
 * time and its own queue does not survive (net_dpdk_stack.c). */
err_t stack_tcp_in(const struct tcp_hdr *hdr, uint16_t noptions, uint16_t nfirst, const uint8_t *rest);
#define LWIP_HOOK_TCP_INPACKET_PCB(pcb, hdr, noptions, nfirst, rest, p) stack_tcp_in(hdr, noptions, nfirst, rest)

/* Sees each segment that goes out, and adds no option: counts those that are sent again, of which lwIP counts only the fast ones (net_dpdk_stack.c). */
uint32_t *stack_tcp_out(const struct tcp_hdr *hdr, const struct tcp_pcb *pcb, uint32_t *options);
#define LWIP_HOOK_TCP_OUT_ADD_TCPOPTS(p, hdr, pcb, options) stack_tcp_out(hdr, pcb, options)

#endif
