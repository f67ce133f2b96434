/* What happens to a frame before lwIP gets it: the flow's bucket is loaded, SYNs are bounded (SYN cookies when too many connections are half-open), what a router says
 * of a path's MTU is checked and learnt, and what nobody wants is dropped.
 *
 * Thread: one. */
#ifndef WEIR_DATAPLANE_NET_NET_DPDK_FILTER_H
#define WEIR_DATAPLANE_NET_NET_DPDK_FILTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct frame_own;
struct share;

struct filter_stats {
	uint64_t cookies_sent, cookies_taken;
	uint64_t paths; /* of which a router spoke */
	uint64_t given, given_lost;
};

void filter_init(const struct frame_own *own);
/* With which other workers frames are shared; NULL: none. */
void filter_share(struct share *s);
/* Makes ready what lwIP will look up; hands on what is another worker's, unless it was given by one, and what is the kernel's. False: lwIP is not to have it. */
bool filter_frame(const uint8_t *p, size_t n, bool given);
/* A frame that another worker gave; NULL: there is none. */
const uint8_t *filter_next_given(size_t *ret_n);
/* Whether a local port may be taken for a connection of our own. */
bool filter_may_use(bool v4, uint16_t local_port);
/* False: SYNs are dropped unanswered, so that their senders try again. */
void filter_accept(bool on);
/* Says that a port is listened on with IPv4 or IPv6. */
void filter_listen(bool v4, uint16_t local_port);
/* The time, monotonic; and every TCP_TMR_INTERVAL. */
void filter_clock(uint64_t now_s);
void filter_tick(void);
void filter_stats(struct filter_stats *ret);

#endif
