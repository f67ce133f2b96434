#include "dataplane/net/net_dpdk_frame.h"

#include <string.h>

enum { ETHER_HEADER = 14, ETHER_IP4 = 0x0800, ETHER_ARP = 0x0806, ETHER_IP6 = 0x86dd };
enum { IP4_HEADER = 20, IP4_FRAGMENT = 0x3fff, IP6_HEADER = 40, TCP_HEADER = 20, FLAG_SYN = 0x02, FLAG_ACK = 0x10 };
enum { PROTO_HOP_BY_HOP = 0, PROTO_TCP = 6, PROTO_FRAGMENT = 44, PROTO_ICMP6 = 58, EXTENSION = 8, IP6_LEAST_MTU = 1280 };
enum { OPTION_END, OPTION_NOTHING, OPTION_MSS };
enum { ICMP6_HEADER = 8, ICMP6_TOO_BIG = 2, ICMP6_LISTENER_QUERY = 130, ICMP6_ROUTER_ADVERTISEMENT = 134, ICMP6_REDIRECT = 137 };

static uint16_t get16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

bool frame_has_mss(const uint8_t *options, size_t n)
{
	for (size_t i = 0; i < n && options[i] != OPTION_END;) {
		if (options[i] == OPTION_MSS)
			return true;
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
	if (n < TCP_HEADER)
		return FRAME_DROP;
	ret->remote_port = get16(p);
	ret->local_port = get16(p + 2);
	ret->seq = (uint32_t)get16(p + 4) << 16 | get16(p + 6);
	ret->syn = (p[13] & (FLAG_SYN | FLAG_ACK)) == FLAG_SYN;
	return FRAME_FLOW;
}

static enum frame_kind look_ip4(const uint8_t *p, size_t n, struct frame *ret)
{
	size_t header = n ? (p[0] & 15) * 4u : 0;

	if (n < IP4_HEADER || header < IP4_HEADER || n < header)
		return FRAME_DROP;
	if (get16(p + 6) & IP4_FRAGMENT)
		return p[9] == PROTO_TCP ? FRAME_ODD : FRAME_DROP;
	if (p[9] != PROTO_TCP)
		return FRAME_OTHER;
	memset(ret->remote_ip, 0, 10);
	memset(ret->remote_ip + 10, 0xff, 2);
	memcpy(ret->remote_ip + 12, p + 12, 4);
	return look_tcp(p + header, n - header, ret);
}

/* Routers are configured: what claims to be one, or to know a better one, is not listened to. A path's MTU can only become smaller, and never smaller than IPv6's least
 * (RFC 8201 4); lwIP would believe any. */
static enum frame_kind look_icmp6(const uint8_t *p, size_t n, const struct frame_own *own)
{
	if (n < ICMP6_HEADER || p[0] == ICMP6_ROUTER_ADVERTISEMENT || p[0] == ICMP6_REDIRECT)
		return FRAME_DROP;
	if (p[0] == ICMP6_TOO_BIG && (get16(p + 4) || get16(p + 6) < IP6_LEAST_MTU || get16(p + 6) >= own->mtu))
		return FRAME_DROP;
	return FRAME_OTHER;
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
		return look_icmp6(p + IP6_HEADER, n - IP6_HEADER, own);
	return look_extension(p[6], p + IP6_HEADER, n - IP6_HEADER);
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
		return FRAME_OTHER;
	default:
		return FRAME_DROP;
	}
}
