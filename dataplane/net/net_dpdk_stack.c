#include "dataplane/net/net_dpdk_stack.h"

#include <lwip/etharp.h>
#include <lwip/ethip6.h>
#include <lwip/init.h>
#include <lwip/ip4_frag.h>
#include <lwip/ip6_frag.h>
#include <lwip/mld6.h>
#include <lwip/nd6.h>
#include <lwip/netif.h>
#include <lwip/priv/tcp_priv.h>
#include <lwip/stats.h>
#include <lwip/sys.h>
#include <netif/ethernet.h>
#include <string.h>
#include "dataplane/net/lwip/hooks.h"
#include "dataplane/net/net_dpdk_filter.h"
#include "dataplane/net/net_dpdk_flow.h"
#include "dataplane/net/net_dpdk_frame.h"
#include "dataplane/net/net_dpdk_pmtu.h"
#include "dataplane/net/net_dpdk_port.h"
#include "dataplane/net/net_dpdk_seed.h"
#include "spool/base/clock.h"

enum { TRIES_WITH_DF = 2, HEAD = 14 + 60 };
#define TICK_NS (TCP_TMR_INTERVAL * NS_PER_MS)
#define SECOND_NS NS_PER_S

struct frame_pbuf {
	struct pbuf_custom custom;
	void *mbuf;
};
static_assert(sizeof(struct frame_pbuf) <= PORT_PRIVATE);

static struct {
	struct netif netif;
	uint8_t own4[16], own6[16];
	bool has4, has6, has_gateway6;
	ip6_addr_t gateway6;
	uint64_t now_s, tick_ns, second_ns, again;
	uint32_t given_isn;
	bool isn_is_given, may_be_cut;
} stack;

/* ---- in ---- */

static void check_in_software(bool on)
{
	uint16_t flags = NETIF_CHECKSUM_CHECK_IP | NETIF_CHECKSUM_CHECK_TCP;

	stack.netif.chksum_flags = (uint16_t)(on ? stack.netif.chksum_flags | flags : stack.netif.chksum_flags & ~flags);
}

static void give_back(struct pbuf *p)
{
	port_free(((struct frame_pbuf *)(void *)p)->mbuf);
}

static struct pbuf *wrap(const struct port_frame *f)
{
	struct frame_pbuf *own = f->own;

	own->custom.custom_free_function = give_back;
	own->mbuf = f->mbuf;
	return pbuf_alloced_custom(PBUF_RAW, f->len, PBUF_REF, &own->custom, f->data, f->len);
}

/* When mbufs are short, held back by segments out of order, the device's go back at once. */
static struct pbuf *copy(const struct port_frame *f)
{
	struct pbuf *p = pbuf_alloc(PBUF_RAW, f->len, PBUF_RAM);

	if (p)
		memcpy(p->payload, f->data, f->len);
	port_free(f->mbuf);
	return p;
}

void stack_begin_unseen(const uint8_t *syn, size_t n, uint32_t isn)
{
	struct pbuf *p = pbuf_alloc(PBUF_RAW, (uint16_t)n, PBUF_RAM);

	if (!p)
		return;
	memcpy(p->payload, syn, n);
	stack.given_isn = isn;
	stack.isn_is_given = true;
	check_in_software(false);
	stack.netif.input(p, &stack.netif);
	stack.isn_is_given = false;
}

/* What other workers handed on. */
static unsigned receive_given(void)
{
	const uint8_t *frame;
	size_t len;
	unsigned n = 0;

	for (; n < PORT_BURST && (frame = filter_next_given(&len)); n++) {
		struct pbuf *p = filter_frame(frame, len, true) ? pbuf_alloc(PBUF_RAW, (uint16_t)len, PBUF_RAM) : NULL;

		if (!p)
			continue;
		memcpy(p->payload, frame, len);
		check_in_software(true);
		stack.netif.input(p, &stack.netif);
	}
	return n;
}

unsigned stack_receive(void)
{
	struct port_frame f[PORT_BURST];
	unsigned n = port_receive(f);
	bool is_short = n && port_is_short();

	for (unsigned i = 0; i < n; i++) {
		struct pbuf *p;

		if (!filter_frame(f[i].data, f[i].len, false)) {
			port_free(f[i].mbuf);
			continue;
		}
		check_in_software(!f[i].checked);
		p = is_short ? copy(&f[i]) : wrap(&f[i]);
		if (p)
			stack.netif.input(p, &stack.netif);
	}
	return n + receive_given();
}

/* ---- out ---- */

static bool is_tcp(const struct pbuf *p)
{
	struct frame f;
	uint8_t head[HEAD];
	uint16_t n = pbuf_copy_partial(p, head, HEAD, 0);
	struct frame_own peer = { .mtu = stack.netif.mtu };

	memcpy(peer.mac, head, 6);
	return frame_look(head, n, &peer, &f) == FRAME_FLOW;
}

static err_t link_output(struct netif *netif, struct pbuf *p)
{
	void *mbuf;
	uint8_t *to;

	(void)netif;
	if (stack.isn_is_given && is_tcp(p))
		return ERR_OK; /* the cookie was the answer */
	to = port_room(p->tot_len, &mbuf);
	if (!to)
		return ERR_MEM;
	pbuf_copy_partial(p, to, p->tot_len, 0);
	if (!stack.may_be_cut)
		pmtu_mark(to, p->tot_len, !port_fills_checksums(), stack.now_s);
	port_send(mbuf, port_fills_checksums());
	return ERR_OK;
}

const ip6_addr_t *stack_gateway6(struct netif *netif, const ip6_addr_t *to)
{
	(void)netif;
	(void)to;
	return stack.has_gateway6 ? &stack.gateway6 : NULL;
}

err_t stack_tcp_in(const struct tcp_hdr *hdr, uint16_t noptions, uint16_t nfirst, const uint8_t *rest)
{
	uint8_t options[40]; /* they may be in two pbufs */
	uint16_t ignored;

	if (TCPH_FLAGS(hdr) & TCP_SYN || noptions > sizeof(options))
		return ERR_OK;
	memcpy(options, hdr + 1, nfirst);
	if (rest)
		memcpy(options + nfirst, rest, noptions - nfirst);
	return frame_mss(options, noptions, &ignored) ? ERR_VAL : ERR_OK;
}

uint32_t *stack_tcp_out(const struct tcp_hdr *hdr, const struct tcp_pcb *pcb, uint32_t *options)
{
	bool connected = pcb && pcb->state != LISTEN; /* a listener, which refuses by RST, is only the beginning of a struct tcp_pcb */

	stack.again += connected && TCP_SEQ_LT(lwip_ntohl(hdr->seqno), pcb->snd_nxt);
	stack.may_be_cut = connected && pcb->nrtx >= TRIES_WITH_DF;
	return options;
}

/* RFC 6528: a clock of 4 us, moved for each flow by what nobody outside can know. */
uint32_t stack_isn(const ip_addr_t *local, uint16_t local_port, const ip_addr_t *remote, uint16_t remote_port)
{
	uint8_t key[36];

	if (stack.isn_is_given)
		return stack.given_isn;
	stack_ip(local, key);
	stack_ip(remote, key + 16);
	memcpy(key + 32, &local_port, 2);
	memcpy(key + 34, &remote_port, 2);
	return (uint32_t)(clock_mono_ns() / (4 * NS_PER_US)) + (uint32_t)seed_hash(key, sizeof(key));
}

/* ---- time ---- */

u32_t sys_now(void)
{
	return (u32_t)(clock_mono_ns() / NS_PER_MS);
}

static void each_second(void)
{
	etharp_tmr();
	ip_reass_tmr();
	nd6_tmr();
	ip6_reass_tmr();
}

void stack_timers(uint64_t now_ns)
{
	stack.now_s = now_ns / NS_PER_S;
	filter_clock(stack.now_s);
	if (now_ns >= stack.tick_ns) {
		stack.tick_ns = now_ns + TICK_NS;
		filter_tick();
		flow_tick();
		mld6_tmr();
	}
	if (now_ns >= stack.second_ns) {
		stack.second_ns = now_ns + SECOND_NS;
		each_second();
	}
}

/* ---- addresses ---- */

bool stack_is_v4(const uint8_t ip[16])
{
	static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };

	return memcmp(ip, mapped, sizeof(mapped)) == 0;
}

void stack_ip(const ip_addr_t *from, uint8_t ret[16])
{
	if (IP_IS_V4(from)) {
		memset(ret, 0, 10);
		memset(ret + 10, 0xff, 2);
		memcpy(ret + 12, &ip_2_ip4(from)->addr, 4);
	} else {
		memcpy(ret, ip_2_ip6(from)->addr, 16);
	}
}

void stack_ip_of(const uint8_t from[16], ip_addr_t *ret)
{
	memset(ret, 0, sizeof(*ret));
	if (stack_is_v4(from)) {
		IP_SET_TYPE(ret, IPADDR_TYPE_V4);
		memcpy(&ip_2_ip4(ret)->addr, from + 12, 4);
	} else {
		IP_SET_TYPE(ret, IPADDR_TYPE_V6);
		memcpy(ip_2_ip6(ret)->addr, from, 16);
	}
}

const uint8_t *stack_own_ip(const uint8_t ip[16])
{
	if (stack_is_v4(ip))
		return stack.has4 ? stack.own4 : NULL;
	return stack.has6 ? stack.own6 : NULL;
}

/* ---- begin ---- */

static err_t netif_begin(struct netif *netif)
{
	uint16_t generate = NETIF_CHECKSUM_GEN_IP | NETIF_CHECKSUM_GEN_TCP;

	netif->name[0] = 'w';
	netif->name[1] = 'r';
	netif->hwaddr_len = 6;
	memcpy(netif->hwaddr, port_mac(), 6);
	netif->flags = NETIF_FLAG_BROADCAST | NETIF_FLAG_ETHARP | NETIF_FLAG_ETHERNET | NETIF_FLAG_MLD6;
	netif->output = etharp_output;
	netif->output_ip6 = ethip6_output;
	netif->linkoutput = link_output;
	NETIF_SET_CHECKSUM_CTRL(netif, port_fills_checksums() ? NETIF_CHECKSUM_ENABLE_ALL & ~generate : NETIF_CHECKSUM_ENABLE_ALL);
	return ERR_OK;
}

static void set_ip6(const struct snap_dpdk *cfg)
{
	ip_addr_t ip;

	netif_create_ip6_linklocal_address(&stack.netif, 1);
	netif_ip6_addr_set_state(&stack.netif, 0, IP6_ADDR_PREFERRED);
	stack_ip_of(cfg->ip6, &ip);
	netif_ip6_addr_set(&stack.netif, 1, ip_2_ip6(&ip));
	netif_ip6_addr_set_state(&stack.netif, 1, IP6_ADDR_PREFERRED);
	stack.has_gateway6 = cfg->has_gateway6;
	stack_ip_of(cfg->gateway6, &ip);
	stack.gateway6 = *ip_2_ip6(&ip);
}

static void begin_filter(const struct snap_dpdk *cfg)
{
	struct frame_own own = { .mtu = (uint16_t)cfg->mtu, .has4 = cfg->has_ip4, .has6 = cfg->has_ip6, .link6 = { 0xfe, 0x80 } };
	const uint8_t *mac = port_mac();

	memcpy(own.mac, mac, 6);
	memcpy(own.ip4, cfg->ip4 + 12, 4);
	memcpy(own.ip6, cfg->ip6, 16);
	/* RFC 4291 appendix A, as netif_create_ip6_linklocal_address does it */
	memcpy(own.link6 + 8, (uint8_t[]){ mac[0] ^ 2, mac[1], mac[2], 0xff, 0xfe, mac[3], mac[4], mac[5] }, 8);
	filter_init(&own);
}

enum status stack_start(const struct snap_dpdk *cfg, uint64_t now_ns)
{
	ip4_addr_t ip = { 0 }, mask = { 0 }, gateway = { 0 };
	enum status st = seed_init();

	if (st != ST_OK)
		return st;
	stack.has4 = cfg->has_ip4;
	stack.has6 = cfg->has_ip6;
	memcpy(stack.own4, cfg->ip4, 16);
	memcpy(stack.own6, cfg->ip6, 16);
	if (stack.has4) {
		memcpy(&ip.addr, cfg->ip4 + 12, 4);
		if (cfg->has_gateway4)
			memcpy(&gateway.addr, cfg->gateway4 + 12, 4);
		mask.addr = lwip_htonl(cfg->prefix4 >= 32 ? UINT32_MAX : ~(UINT32_MAX >> cfg->prefix4));
	}
	begin_filter(cfg);
	lwip_init();
	flow_init();
	if (!netif_add(&stack.netif, &ip, &mask, &gateway, NULL, netif_begin, ethernet_input))
		return trail(ST_IO, "lwIP takes no interface");
	stack.netif.mtu = (uint16_t)cfg->mtu;
	stack.netif.mtu6 = (uint16_t)cfg->mtu;
	netif_set_default(&stack.netif);
	if (stack.has6)
		set_ip6(cfg);
	netif_set_link_up(&stack.netif);
	netif_set_up(&stack.netif);
	stack.tick_ns = stack.second_ns = now_ns;
	stack.now_s = now_ns / NS_PER_S;
	filter_clock(stack.now_s);
	port_flush();
	return ST_OK;
}

bool stack_fits(struct tcp_pcb *pcb)
{
	return pmtu_fits(pcb, stack.now_s);
}

void stack_stats(struct stack_stats *ret)
{
	*ret = (struct stack_stats){ .tcp_in = lwip_stats.tcp.recv, .tcp_out = lwip_stats.mib2.tcpoutsegs, .tcp_again = stack.again,
		.bad_checksums = lwip_stats.tcp.chkerr + lwip_stats.ip.chkerr, .dropped = lwip_stats.tcp.drop };
}
