/* What must be known of a frame before lwIP gets it: whose connection it can concern, and what is not wanted at all. Pure; reads what strangers send. */
#ifndef WEIR_DATAPLANE_NET_NET_DPDK_FRAME_H
#define WEIR_DATAPLANE_NET_NET_DPDK_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum frame_kind {
	FRAME_OTHER, /* concerns no TCP connection: ARP, ICMP */
	FRAME_NEIGHBOUR, /* what a neighbour says of itself: an ARP reply, a neighbour advertisement */
	FRAME_FLOW,  /* TCP, its flow is known */
	FRAME_ODD,   /* a fragment of TCP, whose flow cannot be seen */
	FRAME_TOO_BIG, /* a router's word that a segment of ours does not fit through; the flow is that segment's */
	FRAME_DROP,
};

/* Of a TCP segment, ours when it comes back in FRAME_TOO_BIG; in host order. */
struct frame {
	uint8_t remote_ip[16]; /* IPv4 as ::ffff:a.b.c.d */
	uint16_t remote_port, local_port;
	uint32_t seq, ack_seq;
	uint16_t window;
	uint16_t mss;   /* of a SYN; 0: it names none */
	uint16_t mtu;   /* of FRAME_TOO_BIG; 0: a router from before RFC 1191 */
	bool syn, ack;  /* a SYN without ACK; an ACK without SYN, FIN or RST */
};

struct frame_own {
	uint8_t mac[6];
	uint16_t mtu;
	bool has4, has6;
	uint8_t ip4[4], ip6[16], link6[16]; /* link6: the link-local one */
};

enum frame_whose { FRAME_OURS, FRAME_KERNELS, FRAME_BOTH };


/* The segment size that TCP's options name (RFC 9293 3.7.1); false: they name none. */
bool frame_mss(const uint8_t *options, size_t n, uint16_t *ret_mss);
/* Whose a frame is when the kernel has other addresses on the same device: ours when it is for one of ours, or for nobody here. */
enum frame_whose frame_whose(const uint8_t *p, size_t n, const struct frame_own *own);
/* n octets from the Ethernet header on. Only FRAME_FLOW and FRAME_TOO_BIG set ret. */
enum frame_kind frame_look(const uint8_t *p, size_t n, const struct frame_own *own, struct frame *ret);

#endif
