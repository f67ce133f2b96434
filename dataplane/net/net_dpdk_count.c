#include "dataplane/net/net_dpdk.h"
#include "dataplane/net/net_dpdk_filter.h"
#include "dataplane/net/net_dpdk_flow.h"
#include "dataplane/net/net_dpdk_kernel.h"
#include "dataplane/net/net_dpdk_port.h"
#include "dataplane/net/net_dpdk_stack.h"
#include "spool/base/counters.h"

/* Sources count from the start of the process, the counters from the start of the node. */
static void count(enum counter c, uint64_t now)
{
	static uint64_t before[C_COUNT];

	counter_add(c, now - before[c]);
	before[c] = now;
}

static void count_port(void)
{
	struct port_stats p;

	port_stats(&p);
	count(C_DPDK_RX_FRAMES, p.rx_frames);
	count(C_DPDK_RX_BYTES, p.rx_octets);
	count(C_DPDK_TX_FRAMES, p.tx_frames);
	count(C_DPDK_TX_BYTES, p.tx_octets);
	count(C_DPDK_RX_MISSED, p.rx_missed);
	count(C_DPDK_RX_BAD, p.rx_bad);
	count(C_DPDK_TX_LOST, p.tx_lost);
	count(C_DPDK_SLEEPS, dn.sleeps);
	counter_set(C_DPDK, 1);
	counter_set(C_DPDK_MBUFS, p.mbufs);
	counter_set(C_DPDK_MBUFS_USED, p.mbufs_used);
}

static void count_kernel(void)
{
	struct kernel_stats k;

	kernel_stats(&k);
	count(C_DPDK_TO_KERNEL, k.to);
	count(C_DPDK_FROM_KERNEL, k.from);
	count(C_DPDK_KERNEL_LOST, k.lost);
}

static void count_tcp(const struct stack_stats *s)
{
	struct flow_stats f;
	struct filter_stats filtered;

	flow_stats(&f);
	filter_stats(&filtered);
	count(C_TCP_IN, s->tcp_in);
	count(C_TCP_OUT, s->tcp_out);
	count(C_TCP_AGAIN, s->tcp_again);
	count(C_TCP_BAD_SUM, s->bad_checksums);
	count(C_TCP_DROPPED, s->dropped);
	count(C_TCP_COOKIES_SENT, filtered.cookies_sent);
	count(C_TCP_COOKIES_TAKEN, filtered.cookies_taken);
	count(C_TCP_PATHS, filtered.paths);
	count(C_DPDK_GIVEN, filtered.given);
	count(C_DPDK_GIVEN_LOST, filtered.given_lost);
	count(C_TCP_RECYCLED, f.time_wait_recycled);
	count(C_TCP_HALF_OPEN_DROPPED, f.half_open_dropped);
	counter_set(C_TCP_ACTIVE, f.active);
	counter_set(C_TCP_TIME_WAIT, f.time_wait);
	counter_set(C_TCP_HALF_OPEN, f.half_open);
}

/* The trap of virtual pairs: their kernel leaves checksums to a device that is not there, and no connection completes. */
const char *dpdk_tick(struct net *n)
{
	struct stack_stats s;
	uint64_t bad;

	(void)n;
	stack_stats(&s);
	bad = s.bad_checksums - dn.bad_checksums;
	dn.bad_checksums = s.bad_checksums;
	count_port();
	count_kernel();
	count_tcp(&s);
	return bad ? "packets come with wrong checksums; when the other end is a veth device, it must compute them itself: "
		     "ethtool -K DEVICE tx off tso off gso off gro off" : NULL;
}
