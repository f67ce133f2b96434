#include "dataplane/net/net_dpdk_filter.h"

#include <lwip/priv/tcp_priv.h>
#include <string.h>
#include "dataplane/net/net_dpdk_cookie.h"
#include "dataplane/net/net_dpdk_flow.h"
#include "dataplane/net/net_dpdk_kernel.h"
#include "dataplane/net/net_dpdk_pmtu.h"
#include "dataplane/net/net_dpdk_port.h"
#include "dataplane/net/net_dpdk_seed.h"
#include "dataplane/net/net_dpdk_share.h"
#include "dataplane/net/net_dpdk_stack.h"

enum { ODD_PER_TICK = 20, ETHER = 14 };

static struct {
	struct frame_own own;
	struct share *share;
	struct filter_stats stats;
	uint64_t now_s, cookies_until_s; /* until when an ACK may answer a cookie */
	uint32_t odd;                    /* fragments since the last tick */
	bool refuse;
	uint8_t listening[2][65536 / 8]; /* IPv6, IPv4 */
} filter;

void filter_listen(bool v4, uint16_t local_port)
{
	filter.listening[v4][local_port / 8] |= (uint8_t)(1 << local_port % 8);
}

static bool listens_on(bool v4, uint16_t local_port)
{
	return filter.listening[v4][local_port / 8] >> local_port % 8 & 1;
}

bool filter_may_use(bool v4, uint16_t local_port)
{
	return !listens_on(v4, local_port) && share_is_own(filter.share, local_port);
}

void filter_accept(bool on)
{
	filter.refuse = !on;
}

/* lwIP looks at all this itself. */
static bool is_between_two_hosts(const uint8_t *p, const struct frame *f)
{
	bool v4 = stack_is_v4(f->remote_ip);
	const uint8_t *own = stack_own_ip(f->remote_ip), *to = p + ETHER + (v4 ? 16 : 24);

	return own && !(p[0] & 1) && !(p[6] & 1) && (v4 ? memcmp(own + 12, to, 4) : memcmp(own, to, 16)) == 0;
}

/* Too many are half-open: the answer that keeps nothing. */
static void answer_with_cookie(const uint8_t *p, const struct frame *syn)
{
	uint8_t answer[COOKIE_FRAME_MAX], *to;
	size_t n = cookie_answer(p, syn, cookie_make(syn, filter.now_s), filter.own.mtu, answer);
	void *mbuf;

	if (!is_between_two_hosts(p, syn))
		return;
	to = port_room((uint32_t)n, &mbuf);
	if (!to)
		return;
	memcpy(to, answer, n);
	port_send(mbuf, port_fills_checksums());
	filter.stats.cookies_sent++;
	filter.cookies_until_s = filter.now_s + 2 * COOKIE_SLOT_S;
}

/* The peer has proven its address: lwIP gets the SYN that it did not see, gives its pcb the number of the cookie, and its own answer is not sent. Then comes the ACK. */
static void take_cookie(const uint8_t *p, const struct frame *ack, uint32_t bucket)
{
	uint8_t syn[COOKIE_FRAME_MAX];
	uint16_t mss;

	if (!cookie_check(ack, filter.now_s, &mss))
		return;
	flow_make_room(bucket);
	stack_begin_unseen(syn, cookie_syn_of(p, ack, mss, syn), ack->ack_seq - 1);
	filter.stats.cookies_taken++;
}

/* Loads the segment's bucket. False: lwIP is not to see it. */
static bool prepare_segment(const uint8_t *p, size_t n, bool given, const struct frame *f)
{
	uint32_t bucket = flow_bucket(f->remote_ip, f->remote_port, f->local_port);

	if (!listens_on(stack_is_v4(f->remote_ip), f->local_port)) {
		if (!given && !share_is_own(filter.share, f->local_port)) {
			share_give(filter.share, share_owner(filter.share, f->local_port), p, n);
			return false;
		}
		flow_load(bucket);
		return true;
	}
	flow_load(bucket);
	if (f->syn && filter.refuse)
		return false;
	if (f->syn && !flow_syn(f->remote_ip, f->remote_port, f->local_port, f->seq)) {
		answer_with_cookie(p, f);
		return false;
	}
	if (f->ack && filter.now_s < filter.cookies_until_s && !filter.refuse && !flow_find(f->remote_ip, f->remote_port, f->local_port) &&
		!flow_in_time_wait(f->remote_ip, f->remote_port, f->local_port))
		take_cookie(p, f, bucket);
	return true;
}

/* RFC 5927: believed when the segment is one that we sent and that is not acknowledged. */
static bool believe_too_big(const uint8_t *p, size_t n, const struct frame *f)
{
	size_t header = (p[ETHER] & 15) * 4u, total = (size_t)p[ETHER + 2] << 8 | p[ETHER + 3];
	bool v4 = stack_is_v4(f->remote_ip);
	struct tcp_pcb *pcb;

	if (v4 && (total < header || ETHER + total > n || stack_checksum(p + ETHER + header, (int)(total - header)) != 0xffff))
		return false;
	flow_load(flow_bucket(f->remote_ip, f->remote_port, f->local_port));
	pcb = flow_find(f->remote_ip, f->remote_port, f->local_port);
	if (!pcb || !TCP_SEQ_BETWEEN(f->seq, pcb->lastack, pcb->snd_nxt))
		return false;
	pmtu_learn(f->remote_ip, f->mtu, filter.now_s);
	return !v4; /* lwIP's own table is for IPv6 only */
}

/* Whether it is nobody's but the kernel's. */
static bool kernel_has_it(const uint8_t *p, size_t n)
{
	enum frame_whose whose = frame_whose(p, n, &filter.own);

	if (whose != FRAME_OURS)
		kernel_give(p, n);
	return whose == FRAME_KERNELS;
}

bool filter_frame(const uint8_t *p, size_t n, bool given)
{
	struct frame f;

	if (!given && kernel_is_open() && kernel_has_it(p, n))
		return false;
	switch (frame_look(p, n, &filter.own, &f)) {
	case FRAME_OTHER:
		return true;
	case FRAME_NEIGHBOUR:
		if (!given)
			share_give_all(filter.share, p, n);
		return true;
	case FRAME_FLOW:
		return prepare_segment(p, n, given, &f);
	case FRAME_TOO_BIG:
		if (!given)
			share_give_all(filter.share, p, n);
		return believe_too_big(p, n, &f);
	case FRAME_ODD: /* dear, as all connections must be loaded: so not many */
		if (++filter.odd > ODD_PER_TICK)
			return false;
		flow_load_all();
		return true;
	case FRAME_DROP:
		break;
	}
	return false;
}

void filter_clock(uint64_t now_s)
{
	filter.now_s = now_s;
}

void filter_tick(void)
{
	filter.odd = 0;
}

void filter_stats(struct filter_stats *ret)
{
	*ret = filter.stats;
	ret->paths = pmtu_learnt();
	share_stats(filter.share, &ret->given, &ret->given_lost);
}

void filter_share(struct share *s)
{
	filter.share = s;
}

const uint8_t *filter_next_given(size_t *ret_n)
{
	return share_next(filter.share, ret_n);
}

void filter_init(const struct frame_own *own)
{
	filter.own = *own;
}
