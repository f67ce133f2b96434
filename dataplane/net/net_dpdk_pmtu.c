#include "dataplane/net/net_dpdk_pmtu.h"

#include <lwip/priv/tcp_priv.h>
#include <string.h>
#include "dataplane/net/net_dpdk_seed.h"
#include "dataplane/net/net_dpdk_stack.h"

enum { OLD_ROUTER = 576, HEADERS4 = 40, HEADERS6 = 60, ETHER = 14, IP4 = 20, ETHER_IP4 = 0x08, PROTO_TCP = 6, DF = 0x40, MORE_AND_OFFSET = 0x3f };

/* One place for each hash: a stranger cannot choose whom he puts out, and who is put out learns anew. */
struct path {
	uint8_t ip[16];
	uint16_t mtu; /* 0: free */
	uint64_t until_s;
};

static struct path paths[PMTU_PATHS];
static uint64_t learnt;
static bool any;

static struct path *path_of(const uint8_t ip[16])
{
	return &paths[seed_hash(ip, 16) % PMTU_PATHS];
}

uint16_t pmtu_of(const uint8_t remote_ip[16], uint64_t now_s)
{
	const struct path *p;

	if (!any)
		return 0;
	p = path_of(remote_ip);
	return p->mtu && now_s < p->until_s && memcmp(p->ip, remote_ip, 16) == 0 ? p->mtu : 0;
}

void pmtu_learn(const uint8_t remote_ip[16], uint16_t mtu, uint64_t now_s)
{
	struct path *p = path_of(remote_ip);
	uint16_t before = pmtu_of(remote_ip, now_s);

	if (!mtu)
		mtu = OLD_ROUTER;
	if (stack_is_v4(remote_ip) && mtu < PMTU_LEAST4)
		mtu = PMTU_LEAST4; /* less would be an attack on our speed; what does not fit is cut */
	if (before && before <= mtu)
		return;
	any = true;
	learnt += !before;
	*p = (struct path){ .mtu = mtu, .until_s = now_s + PMTU_LIFE_S };
	memcpy(p->ip, remote_ip, 16);
}

bool pmtu_fits(struct tcp_pcb *pcb, uint64_t now_s)
{
	uint8_t ip[16];
	uint16_t mtu, mss;

	if (!any)
		return true;
	stack_ip(&pcb->remote_ip, ip);
	mtu = pmtu_of(ip, now_s);
	mss = (uint16_t)(mtu - (stack_is_v4(ip) ? HEADERS4 : HEADERS6));
	if (!mtu || pcb->mss <= mss)
		return true;
	/* lwIP's queues do not survive a segment that is longer than what it would make now */
	if (pcb->unsent || pcb->unacked)
		return false;
	pcb->mss = mss;
	return true;
}

/* RFC 1624; the checksum is computed over pairs of octets wherever they lie. */
static void add_to_sum(uint8_t *field, uint8_t first_octet)
{
	uint16_t old, new;
	uint32_t sum;
	uint8_t pair[2] = { first_octet, 0 };

	memcpy(&old, field, 2);
	memcpy(&new, pair, 2);
	sum = (uint32_t)(uint16_t)~old + new;
	sum = (sum & 0xffff) + (sum >> 16);
	old = (uint16_t)~((sum & 0xffff) + (sum >> 16));
	memcpy(field, &old, 2);
}

void pmtu_mark(uint8_t *frame, size_t n, bool fix, uint64_t now_s)
{
	uint8_t *ip = frame + ETHER, to[16] = { [10] = 0xff, [11] = 0xff };
	uint16_t mtu;

	if (n < ETHER + IP4 || frame[12] != ETHER_IP4 || frame[13] != 0 || ip[9] != PROTO_TCP || ip[6] & (DF | MORE_AND_OFFSET))
		return;
	memcpy(to + 12, ip + 16, 4);
	mtu = pmtu_of(to, now_s);
	if (mtu && n - ETHER > mtu)
		return;
	ip[6] |= DF;
	if (fix)
		add_to_sum(ip + 10, DF);
}

uint64_t pmtu_learnt(void)
{
	return learnt;
}
