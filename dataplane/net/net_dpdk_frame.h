/* What must be known of a frame before lwIP gets it: whose connection it can concern, and what is not wanted at all. Pure; reads what strangers send. */
#ifndef WEIR_DATAPLANE_NET_NET_DPDK_FRAME_H
#define WEIR_DATAPLANE_NET_NET_DPDK_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum frame_kind {
	FRAME_OTHER, /* concerns no TCP connection: ARP, ICMP */
	FRAME_FLOW,  /* TCP, its flow is known */
	FRAME_ODD,   /* a fragment of TCP, whose flow cannot be seen */
	FRAME_DROP,
};

/* Of a TCP segment; ports in host order. */
struct frame {
	uint8_t remote_ip[16]; /* IPv4 as ::ffff:a.b.c.d */
	uint16_t remote_port, local_port;
	uint32_t seq;
	bool syn;
};

struct frame_own {
	uint8_t mac[6];
	uint16_t mtu;
};

/* Whether TCP's options name a segment size (RFC 9293 3.7.1). */
bool frame_has_mss(const uint8_t *options, size_t n);
/* n octets from the Ethernet header on. Only FRAME_FLOW sets ret. */
enum frame_kind frame_look(const uint8_t *p, size_t n, const struct frame_own *own, struct frame *ret);

#endif
