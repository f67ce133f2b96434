#include "dataplane/net/net_dpdk_frame.h"

#include <string.h>

enum { ETHER_HEADER = 14, ETHER_IP4 = 0x0800, ETHER_ARP = 0x0806, ETHER_IP6 = 0x86dd };
enum { IP4_HEADER = 20, IP4_FRAGMENT = 0x3fff, IP6_HEADER = 40, TCP_HEADER = 20, FLAG_FIN = 0x01, FLAG_SYN = 0x02, FLAG_RST = 0x04, FLAG_ACK = 0x10 };
enum { PROTO_HOP_BY_HOP = 0, PROTO_ICMP = 1, PROTO_TCP = 6, PROTO_FRAGMENT = 44, PROTO_ICMP6 = 58, EXTENSION = 8, IP6_LEAST_MTU = 1280 };
enum { OPTION_END, OPTION_NOTHING, OPTION_MSS };
enum { ICMP_HEADER = 8, ICMP_UNREACHABLE = 3, ICMP_TOO_BIG = 4, QUOTED = 8 };
enum { ICMP6_HEADER = 8, ICMP6_TOO_BIG = 2, ICMP6_LISTENER_QUERY = 130, ICMP6_ROUTER_ADVERTISEMENT = 134, ICMP6_SOLICITATION = 135, ICMP6_NEIGHBOUR = 136, ICMP6_REDIRECT = 137 };
enum { ARP_LEN = 28, ARP_REPLY = 2, ARP_OWN_IP = 14, ARP_TARGET_IP = 24 };

static uint16_t get16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static uint32_t get32(const uint8_t *p)
{
	return (uint32_t)get16(p) << 16 | get16(p + 2);
}

bool frame_mss(const uint8_t *options, size_t n, uint16_t *ret_mss)
{
	for (size_t i = 0; i < n && options[i] != OPTION_END;) {
		if (options[i] == OPTION_MSS) {
			*ret_mss = i + 4 <= n && options[i + 1] == 4 ? get16(options + i + 2) : 0;
			return true;
		}
		if (options[i] == OPTION_NOTHING)
			i++;
		else if (i + 1 < n && options[i + 1] >= 2)
			i += options[i + 1];
		else
			break;
	}
	return false;
}

static enum frame_kind look_tcp(const uint8_t *p, size_t n, struct frame *ret)
{
	size_t header;

	if (n < TCP_HEADER)
		return FRAME_DROP;
	ret->remote_port = get16(p);
	ret->local_port = get16(p + 2);
	ret->seq = get32(p + 4);
	ret->ack_seq = get32(p + 8);
	ret->window = get16(p + 14);
	ret->syn = (p[13] & (FLAG_SYN | FLAG_ACK)) == FLAG_SYN;
	ret->ack = (p[13] & (FLAG_SYN | FLAG_ACK | FLAG_RST | FLAG_FIN)) == FLAG_ACK;
	ret->mss = 0;
	header = (p[12] >> 4) * 4u;
	if (ret->syn && header > TCP_HEADER && header <= n)
		frame_mss(p + TCP_HEADER, header - TCP_HEADER, &ret->mss);
	return FRAME_FLOW;
}

static void map4(const uint8_t *ip, uint8_t ret[16])
{
	memset(ret, 0, 10);
	memset(ret + 10, 0xff, 2);
	memcpy(ret + 12, ip, 4);
}

/* Of our segment, as far as a router must send it back: ports and sequence number. */
static enum frame_kind quoted_tcp(const uint8_t *p, uint16_t mtu, struct frame *ret)
{
	ret->local_port = get16(p);
	ret->remote_port = get16(p + 2);
	ret->seq = get32(p + 4);
	ret->mtu = mtu;
	ret->syn = ret->ack = false;
	return FRAME_TOO_BIG;
}

/* RFC 1191. Of everything else lwIP takes only echo requests. */
static enum frame_kind look_icmp(const uint8_t *p, size_t n, struct frame *ret)
{
	const uint8_t *ip = p + ICMP_HEADER;
	size_t header;

	if (n < ICMP_HEADER || p[0] != ICMP_UNREACHABLE || p[1] != ICMP_TOO_BIG)
		return n < ICMP_HEADER ? FRAME_DROP : FRAME_OTHER;
	if (n < ICMP_HEADER + IP4_HEADER + QUOTED)
		return FRAME_DROP;
	header = (ip[0] & 15) * 4u;
	if (ip[0] >> 4 != 4 || header < IP4_HEADER || n < ICMP_HEADER + header + QUOTED || ip[9] != PROTO_TCP)
		return FRAME_DROP;
	map4(ip + 16, ret->remote_ip);
	return quoted_tcp(ip + header, get16(p + 6), ret);
}

static enum frame_kind look_ip4(const uint8_t *p, size_t n, struct frame *ret)
{
	size_t header = n ? (p[0] & 15) * 4u : 0;

	if (n < IP4_HEADER || header < IP4_HEADER || n < header)
		return FRAME_DROP;
	if (get16(p + 6) & IP4_FRAGMENT)
		return p[9] == PROTO_TCP ? FRAME_ODD : FRAME_DROP;
	if (p[9] == PROTO_ICMP)
		return look_icmp(p + header, n - header, ret);
	if (p[9] != PROTO_TCP)
		return FRAME_OTHER;
	map4(p + 12, ret->remote_ip);
	return look_tcp(p + header, n - header, ret);
}

/* Routers are configured: what claims to be one, or to know a better one, is not listened to. A path's MTU can only become smaller, and never smaller than IPv6's least
 * (RFC 8201 4); lwIP would believe any. */
static enum frame_kind look_icmp6(const uint8_t *p, size_t n, const struct frame_own *own, struct frame *ret)
{
	const uint8_t *ip = p + ICMP6_HEADER;

	if (n < ICMP6_HEADER || p[0] == ICMP6_ROUTER_ADVERTISEMENT || p[0] == ICMP6_REDIRECT)
		return FRAME_DROP;
	if (p[0] != ICMP6_TOO_BIG)
		return p[0] == ICMP6_NEIGHBOUR ? FRAME_NEIGHBOUR : FRAME_OTHER;
	if (get16(p + 4) || get16(p + 6) < IP6_LEAST_MTU || get16(p + 6) >= own->mtu || n < ICMP6_HEADER + IP6_HEADER + QUOTED || ip[6] != PROTO_TCP)
		return FRAME_DROP;
	memcpy(ret->remote_ip, ip + 24, 16);
	return quoted_tcp(ip + IP6_HEADER, get16(p + 6), ret);
}

/* Of extension headers, in which what is dropped above could hide (RFC 6980), only two kinds come from honest neighbours: a router's query for multicast listeners has
 * the router alert, and TCP may be fragmented on its way. */
static enum frame_kind look_extension(uint8_t kind, const uint8_t *p, size_t n)
{
	if (kind == PROTO_FRAGMENT && n >= EXTENSION && p[0] == PROTO_TCP)
		return FRAME_ODD;
	if (kind == PROTO_HOP_BY_HOP && n > EXTENSION && p[0] == PROTO_ICMP6 && p[1] == 0 && p[EXTENSION] == ICMP6_LISTENER_QUERY)
		return FRAME_OTHER;
	return FRAME_DROP;
}

static enum frame_kind look_ip6(const uint8_t *p, size_t n, const struct frame_own *own, struct frame *ret)
{
	static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };

	if (n < IP6_HEADER || memcmp(p + 8, mapped, sizeof(mapped)) == 0) /* IPv4 in disguise (RFC 4291 2.5.5.2) is never on a wire */
		return FRAME_DROP;
	memcpy(ret->remote_ip, p + 8, 16);
	if (p[6] == PROTO_TCP)
		return look_tcp(p + IP6_HEADER, n - IP6_HEADER, ret);
	if (p[6] == PROTO_ICMP6)
		return look_icmp6(p + IP6_HEADER, n - IP6_HEADER, own, ret);
	return look_extension(p[6], p + IP6_HEADER, n - IP6_HEADER);
}

/* A reply, or a request for its own address: a host that has just got it (RFC 5227 3). */
static enum frame_kind look_arp(const uint8_t *p, size_t n)
{
	if (n < ARP_LEN)
		return FRAME_DROP;
	return get16(p + 6) == ARP_REPLY || memcmp(p + ARP_OWN_IP, p + ARP_TARGET_IP, 4) == 0 ? FRAME_NEIGHBOUR : FRAME_OTHER;
}

/* A device that hears everything also brings what is for others. */
enum frame_kind frame_look(const uint8_t *p, size_t n, const struct frame_own *own, struct frame *ret)
{
	if (n < ETHER_HEADER || (!(p[0] & 1) && memcmp(p, own->mac, 6) != 0))
		return FRAME_DROP;
	switch (get16(p + 12)) {
	case ETHER_IP4:
		return look_ip4(p + ETHER_HEADER, n - ETHER_HEADER, ret);
	case ETHER_IP6:
		return look_ip6(p + ETHER_HEADER, n - ETHER_HEADER, own, ret);
	case ETHER_ARP:
		return look_arp(p + ETHER_HEADER, n - ETHER_HEADER);
	default:
		return FRAME_DROP;
	}
}

/* ---- whose ---- */

static enum frame_whose whose_arp(const uint8_t *p, size_t n, const struct frame_own *own)
{
	if (look_arp(p, n) == FRAME_NEIGHBOUR)
		return FRAME_BOTH;
	return n < ARP_LEN || (own->has4 && memcmp(p + ARP_TARGET_IP, own->ip4, 4) == 0) ? FRAME_OURS : FRAME_KERNELS;
}

static enum frame_whose whose_ip4(const uint8_t *p, size_t n, const struct frame_own *own)
{
	return n < IP4_HEADER || (own->has4 && memcmp(p + 16, own->ip4, 4) == 0) ? FRAME_OURS : FRAME_KERNELS;
}

/* Both make the same link-local address from the same hardware address: there the kernel only meets its neighbours. */
static enum frame_whose whose_ip6(const uint8_t *p, size_t n, const struct frame_own *own)
{
	uint8_t type = n > IP6_HEADER && p[6] == PROTO_ICMP6 ? p[IP6_HEADER] : 0;

	if (n < IP6_HEADER || (own->has6 && memcmp(p + 24, own->ip6, 16) == 0))
		return FRAME_OURS;
	if (!own->has6 || memcmp(p + 24, own->link6, 16) != 0)
		return FRAME_KERNELS;
	return type == ICMP6_SOLICITATION || type == ICMP6_NEIGHBOUR ? FRAME_BOTH : FRAME_OURS;
}

enum frame_whose frame_whose(const uint8_t *p, size_t n, const struct frame_own *own)
{
	bool to_all = n && (p[0] & 1);

	if (n < ETHER_HEADER || (!to_all && memcmp(p, own->mac, 6) != 0))
		return FRAME_OURS; /* frame_look drops it */
	switch (get16(p + 12)) {
	case ETHER_ARP:
		return whose_arp(p + ETHER_HEADER, n - ETHER_HEADER, own);
	case ETHER_IP4:
		return to_all ? FRAME_BOTH : whose_ip4(p + ETHER_HEADER, n - ETHER_HEADER, own);
	case ETHER_IP6:
		return to_all ? FRAME_BOTH : whose_ip6(p + ETHER_HEADER, n - ETHER_HEADER, own);
	default:
		return FRAME_KERNELS;
	}
}
