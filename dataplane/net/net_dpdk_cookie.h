/* SYN cookies: while too many connections are half-open, a SYN is answered without keeping anything, and the answer's sequence number has all that must be known
 * when the peer's ACK comes back (RFC 4987 3.6). What such a connection lacks is window scaling and SACK, for which there is no room in the number.
 *
 * Frames in, frames out; knows nothing of lwIP. Pure but for the key (net_dpdk_seed.h). */
#ifndef WEIR_DATAPLANE_NET_NET_DPDK_COOKIE_H
#define WEIR_DATAPLANE_NET_NET_DPDK_COOKIE_H

#include "dataplane/net/net_dpdk_frame.h"

enum { COOKIE_FRAME_MAX = 14 + 40 + 20 + 4, COOKIE_SLOT_S = 64 };

/* The sequence number for this SYN at this time. */
uint32_t cookie_make(const struct frame *syn, uint64_t now_s);
/* Whether the ACK answers a cookie of the last one or two minutes; gives the segment size that the peer named. */
bool cookie_check(const struct frame *ack, uint64_t now_s, uint16_t *ret_mss);
/* The SYN-ACK to the SYN in p (n octets that frame_look called FRAME_FLOW), IP and TCP checksums included; gives its length. */
size_t cookie_answer(const uint8_t *p, const struct frame *syn, uint32_t isn, uint16_t mtu, uint8_t ret[COOKIE_FRAME_MAX]);
/* The SYN that this ACK's peer must have sent; without checksums. Gives its length. */
size_t cookie_syn_of(const uint8_t *p, const struct frame *ack, uint16_t mss, uint8_t ret[COOKIE_FRAME_MAX]);

#endif
