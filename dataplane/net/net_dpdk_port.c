#include "dataplane/net/net_dpdk_port.h"

#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_ip.h>
#include <rte_log.h>
#include <rte_mbuf.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* FRAME_EXTRA: link header, and the room that XDP keeps in front of a frame */
enum { ETHER_EXTRA = RTE_ETHER_HDR_LEN + RTE_ETHER_CRC_LEN };
enum { RX_DESCRIPTORS = 4096, TX_DESCRIPTORS = 1024, TX_QUEUED = 256, FRAME_EXTRA = 384, ARGS_MAX = 24, ARG_LEN = 300 };
enum { BURSTS_A_COUNT = 16 };
static_assert(BURSTS_A_COUNT * PORT_BURST < PORT_MBUFS / 8);
#define TX_CHECKSUMS (RTE_ETH_TX_OFFLOAD_IPV4_CKSUM | RTE_ETH_TX_OFFLOAD_TCP_CKSUM)
#define RX_CHECKSUMS (RTE_ETH_RX_OFFLOAD_IPV4_CKSUM | RTE_ETH_RX_OFFLOAD_TCP_CKSUM)

static struct {
	uint16_t id;
	bool open, fills_checksums;
	struct rte_mempool *pool;
	struct rte_ether_addr mac;
	struct rte_mbuf *queued[TX_QUEUED];
	uint16_t nqueued;
	struct port_stats count; /* what the device does not count itself */
	char said[300];          /* by DPDK at its start: it names devices, which its error codes do not */
} port;

/* ---- the start ---- */

struct eal_args {
	char text[ARGS_MAX][ARG_LEN];
	char *argv[ARGS_MAX + 1];
	int n;
};

static void arg(struct eal_args *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void arg(struct eal_args *a, const char *fmt, ...)
{
	va_list ap;

	CHECK(a->n < ARGS_MAX);
	va_start(ap, fmt);
	vsnprintf(a->text[a->n], ARG_LEN, fmt, ap);
	va_end(ap);
	a->argv[a->n] = a->text[a->n];
	a->argv[++a->n] = NULL;
}

/* "0000:01:00.0" and "01:00.0,arg=value" are PCI devices; everything else is a virtual one: "net_af_packet0,iface=eth1". */
static bool is_pci(const char *device)
{
	return strncmp(device, "net_", 4) != 0 && strncmp(device, "eth_", 4) != 0 && strchr(device, ':') != NULL;
}

static void eal_args(const struct snap_dpdk *cfg, unsigned cpu, struct eal_args *a)
{
	bool pci = false;

	arg(a, "weir-dataplane");
	arg(a, "--no-telemetry");
	arg(a, "--log-level=warning");
	arg(a, "--lcores=0@%u", cpu);
	/* nothing is shared with other processes, no files are left */
	if (cfg->hugepages) {
		arg(a, "--in-memory");
	} else {
		arg(a, "--no-huge");
		arg(a, "--no-shconf");
		arg(a, "-m");
		arg(a, "%u", (unsigned)((uint64_t)PORT_MBUFS * (cfg->mtu + 1024u) / (1024 * 1024)) + 64);
	}
	for (uint32_t i = 0; i < cfg->ndevices; i++) {
		pci = pci || is_pci(cfg->device[i]);
		arg(a, "%s%s", is_pci(cfg->device[i]) ? "--allow=" : "--vdev=", cfg->device[i]);
	}
	if (!pci)
		arg(a, "--no-pci");
}

/* On one line, for the trail. */
static void keep_said(char *text)
{
	for (char *p = text; *p; p++)
		*p = *p == '\n' ? ';' : *p;
	snprintf(port.said, sizeof(port.said), "%s", text);
	free(text);
}

/* rte_eal_init() binds the calling thread to a processor; a worker goes where the scheduler wants it. */
static enum status eal_start(const struct snap_dpdk *cfg)
{
	struct eal_args a = { .n = 0 };
	char *text = NULL;
	size_t len = 0;
	cpu_set_t cpus;
	FILE *said = open_memstream(&text, &len);
	int r;
	unsigned cpu = 0;

	if (!said || sched_getaffinity(0, sizeof(cpus), &cpus) < 0)
		return trail_errno(errno, "DPDK");
	while (!CPU_ISSET(cpu, &cpus))
		cpu++;
	eal_args(cfg, cpu, &a);
	rte_openlog_stream(said);
	r = rte_eal_init(a.n, a.argv);
	sched_setaffinity(0, sizeof(cpus), &cpus);
	rte_openlog_stream(NULL);
	fclose(said);
	keep_said(text);
	return r < 0 ? trail(ST_IO, "DPDK does not start: %s (%s)", rte_strerror(rte_errno), port.said) : ST_OK;
}

static enum status find_port(const struct snap_dpdk *cfg)
{
	char name[ARG_LEN];

	snprintf(name, sizeof(name), "%.*s", (int)strcspn(cfg->device[cfg->ndevices - 1], ","), cfg->device[cfg->ndevices - 1]);
	if (rte_eth_dev_get_port_by_name(name, &port.id) == 0)
		return ST_OK;
	port.id = (uint16_t)rte_eth_find_next(0);
	if (rte_eth_dev_count_avail() == 1)
		return ST_OK;
	return trail(ST_NOT_FOUND, "DPDK has no port %s: %s", name, port.said);
}

static enum status configure(const struct snap_dpdk *cfg)
{
	struct rte_eth_conf conf = { .rxmode = { .mtu = cfg->mtu } };
	struct rte_eth_dev_info info;
	uint32_t most;
	uint16_t nrx = RX_DESCRIPTORS, ntx = TX_DESCRIPTORS;
	int socket = rte_eth_dev_socket_id(port.id), r = rte_eth_dev_info_get(port.id, &info);

	if (r < 0)
		return trail(ST_IO, "the port's description: %s", rte_strerror(-r));
	port.fills_checksums = (info.tx_offload_capa & TX_CHECKSUMS) == TX_CHECKSUMS;
	conf.txmode.offloads = port.fills_checksums ? TX_CHECKSUMS : 0;
	conf.rxmode.offloads = info.rx_offload_capa & RX_CHECKSUMS;
	most = info.max_rx_pktlen > ETHER_EXTRA && info.max_rx_pktlen - ETHER_EXTRA < info.max_mtu ? info.max_rx_pktlen - ETHER_EXTRA : info.max_mtu;
	if (most < cfg->mtu)
		return trail(ST_INVALID, "dpdk.mtu is %u, the device can do %u", cfg->mtu, most);
	if ((r = rte_eth_dev_configure(port.id, 1, 1, &conf)) < 0 || (r = rte_eth_dev_adjust_nb_rx_tx_desc(port.id, &nrx, &ntx)) < 0)
		return trail(ST_IO, "the port cannot be configured: %s", rte_strerror(-r));
	if ((r = rte_eth_rx_queue_setup(port.id, 0, nrx, (unsigned)socket, NULL, port.pool)) < 0 ||
		(r = rte_eth_tx_queue_setup(port.id, 0, ntx, (unsigned)socket, NULL)) < 0)
		return trail(ST_IO, "the port's queues: %s", rte_strerror(-r));
	if ((r = rte_eth_dev_start(port.id)) < 0 || (r = rte_eth_macaddr_get(port.id, &port.mac)) < 0)
		return trail(ST_IO, "the port does not start: %s", rte_strerror(-r));
	/* neighbour discovery is multicast */
	if (rte_eth_allmulticast_enable(port.id) < 0 && rte_eth_promiscuous_enable(port.id) < 0)
		return trail(ST_IO, "the port takes no multicast");
	return ST_OK;
}

enum status port_open(const struct snap_dpdk *cfg)
{
	uint32_t room = cfg->mtu + FRAME_EXTRA < 2048 ? 2048 : cfg->mtu + FRAME_EXTRA;
	enum status st;

	if (!cfg->ndevices)
		return trail(ST_INVALID, "dpdk.devices is empty: DPDK needs a device");
	if ((st = eal_start(cfg)) != ST_OK || (st = find_port(cfg)) != ST_OK)
		return st;
	port.pool = rte_pktmbuf_pool_create("weir", PORT_MBUFS - 1, 256, PORT_PRIVATE, (uint16_t)(room + RTE_PKTMBUF_HEADROOM), SOCKET_ID_ANY);
	if (!port.pool)
		return trail(ST_NOMEM, "no memory for %u mbufs: %s", PORT_MBUFS, rte_strerror(rte_errno));
	st = configure(cfg);
	port.open = st == ST_OK;
	return st;
}

void port_close(void)
{
	if (!port.open)
		return;
	port_flush();
	port.open = false;
	rte_eth_dev_stop(port.id);
	rte_eth_dev_close(port.id);
	rte_eal_cleanup();
}

const uint8_t *port_mac(void)
{
	return port.mac.addr_bytes;
}

bool port_fills_checksums(void)
{
	return port.fills_checksums;
}

/* ---- frames ---- */

static bool is_bad(const struct rte_mbuf *m)
{
	return (m->ol_flags & RTE_MBUF_F_RX_IP_CKSUM_MASK) == RTE_MBUF_F_RX_IP_CKSUM_BAD ||
		(m->ol_flags & RTE_MBUF_F_RX_L4_CKSUM_MASK) == RTE_MBUF_F_RX_L4_CKSUM_BAD || m->nb_segs != 1;
}

unsigned port_receive(struct port_frame f[PORT_BURST])
{
	struct rte_mbuf *m[PORT_BURST];
	unsigned got = rte_eth_rx_burst(port.id, 0, m, PORT_BURST), n = 0;

	for (unsigned i = 0; i < got; i++) {
		uint64_t ip = m[i]->ol_flags & RTE_MBUF_F_RX_IP_CKSUM_MASK, tcp = m[i]->ol_flags & RTE_MBUF_F_RX_L4_CKSUM_MASK;

		if (is_bad(m[i])) {
			port.count.rx_bad++;
			rte_pktmbuf_free(m[i]);
			continue;
		}
		f[n++] = (struct port_frame){ .data = rte_pktmbuf_mtod(m[i], uint8_t *), .len = (uint16_t)m[i]->data_len, .mbuf = m[i],
			.own = rte_mbuf_to_priv(m[i]), .checked = ip == RTE_MBUF_F_RX_IP_CKSUM_GOOD && tcp == RTE_MBUF_F_RX_L4_CKSUM_GOOD };
	}
	return n;
}

void port_free(void *mbuf)
{
	rte_pktmbuf_free(mbuf);
}

uint8_t *port_room(uint32_t len, void **ret_mbuf)
{
	struct rte_mbuf *m = rte_pktmbuf_alloc(port.pool);
	char *p = m ? rte_pktmbuf_append(m, (uint16_t)len) : NULL;

	if (!p) {
		rte_pktmbuf_free(m);
		port.count.tx_lost++;
		return NULL;
	}
	*ret_mbuf = m;
	return (uint8_t *)p;
}

/* What a device that fills in checksums wants to know: header lengths, and the pseudo-header's sum in the field. */
static void ask_checksums(struct rte_mbuf *m)
{
	struct rte_ipv4_hdr *ip4 = rte_pktmbuf_mtod_offset(m, struct rte_ipv4_hdr *, RTE_ETHER_HDR_LEN);
	struct rte_ipv6_hdr *ip6 = rte_pktmbuf_mtod_offset(m, struct rte_ipv6_hdr *, RTE_ETHER_HDR_LEN);
	struct rte_tcp_hdr *tcp;

	m->l2_len = RTE_ETHER_HDR_LEN;
	if (m->data_len >= 54 && ip4->version_ihl >> 4 == 4) {
		m->l3_len = rte_ipv4_hdr_len(ip4);
		m->ol_flags |= RTE_MBUF_F_TX_IPV4 | RTE_MBUF_F_TX_IP_CKSUM;
		ip4->hdr_checksum = 0;
		if (ip4->next_proto_id != IPPROTO_TCP)
			return;
		tcp = rte_pktmbuf_mtod_offset(m, struct rte_tcp_hdr *, RTE_ETHER_HDR_LEN + m->l3_len);
		tcp->cksum = rte_ipv4_phdr_cksum(ip4, 0);
		m->ol_flags |= RTE_MBUF_F_TX_TCP_CKSUM;
	} else if (m->data_len >= 74 && ip4->version_ihl >> 4 == 6 && ip6->proto == IPPROTO_TCP) {
		m->l3_len = sizeof(*ip6);
		tcp = rte_pktmbuf_mtod_offset(m, struct rte_tcp_hdr *, RTE_ETHER_HDR_LEN + sizeof(*ip6));
		tcp->cksum = rte_ipv6_phdr_cksum(ip6, 0);
		m->ol_flags |= RTE_MBUF_F_TX_IPV6 | RTE_MBUF_F_TX_TCP_CKSUM;
	}
}

void port_flush(void)
{
	uint16_t sent;

	if (!port.nqueued)
		return;
	sent = rte_eth_tx_burst(port.id, 0, port.queued, port.nqueued);
	port.nqueued = (uint16_t)(port.nqueued - sent);
	memmove(port.queued, port.queued + sent, port.nqueued * sizeof(port.queued[0]));
}

void port_send(void *mbuf, bool checksums)
{
	if (checksums)
		ask_checksums(mbuf);
	if (port.nqueued == TX_QUEUED)
		port_flush();
	if (port.nqueued == TX_QUEUED) {
		port.count.tx_lost++;
		rte_pktmbuf_free(mbuf);
		return;
	}
	port.queued[port.nqueued++] = mbuf;
}

/* Counting goes over a line of cache for each processor that DPDK could have: so not at each burst. */
bool port_is_short(void)
{
	static bool is_short;
	static unsigned asked;

	if (asked++ % BURSTS_A_COUNT == 0)
		is_short = rte_mempool_avail_count(port.pool) < PORT_MBUFS / 4;
	return is_short;
}

void port_stats(struct port_stats *ret)
{
	struct rte_eth_stats s = { 0 };

	rte_eth_stats_get(port.id, &s);
	*ret = port.count;
	ret->rx_frames = s.ipackets;
	ret->rx_octets = s.ibytes;
	ret->tx_frames = s.opackets;
	ret->tx_octets = s.obytes;
	ret->rx_missed = s.imissed + s.rx_nombuf;
	ret->rx_bad += s.ierrors;
	ret->tx_lost += s.oerrors;
	ret->mbufs = PORT_MBUFS - 1;
	ret->mbufs_used = rte_mempool_in_use_count(port.pool);
}
