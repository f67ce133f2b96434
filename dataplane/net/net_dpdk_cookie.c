#include "dataplane/net/net_dpdk_cookie.h"

#include <string.h>
#include "dataplane/net/net_dpdk_seed.h"

enum { ETHER = 14, IP4 = 20, IP6 = 40, TCP = 20, OPTION = 4, SIZE_BITS = 3, TTL = 64 };
enum { FLAG_SYN = 0x02, FLAG_ACK = 0x10 };

/* What most peers name, rounded down: Ethernet, with tunnels, IPv6, jumbo frames. */
static const uint16_t sizes[1 << SIZE_BITS] = { 536, 1024, 1220, 1340, 1400, 1440, 1460, 8940 };

static void put16(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static void put32(uint8_t *p, uint32_t v)
{
	put16(p, v >> 16);
	put16(p + 2, v);
}

/* ---- the number ---- */

/* A hash of the flow, the peer's own number and the time, above the index of its segment size. */
static uint32_t number(const struct frame *f, uint32_t peer_isn, uint64_t slot, uint32_t size)
{
	uint8_t key[16 + 4 + 4 + 8 + 1];

	memcpy(key, f->remote_ip, 16);
	put16(key + 16, f->remote_port);
	put16(key + 18, f->local_port);
	put32(key + 20, peer_isn);
	memcpy(key + 24, &slot, 8);
	key[32] = (uint8_t)size;
	return (uint32_t)seed_hash(key, sizeof(key)) << SIZE_BITS | size;
}

uint32_t cookie_make(const struct frame *syn, uint64_t now_s)
{
	uint16_t named = syn->mss ? syn->mss : sizes[0]; /* RFC 9293 3.7.1 */
	uint32_t size = (1 << SIZE_BITS) - 1;

	while (size && sizes[size] > named)
		size--;
	return number(syn, syn->seq, now_s / COOKIE_SLOT_S, size);
}

bool cookie_check(const struct frame *ack, uint64_t now_s, uint16_t *ret_mss)
{
	uint32_t isn = ack->ack_seq - 1, size = isn & ((1 << SIZE_BITS) - 1);
	uint64_t slot = now_s / COOKIE_SLOT_S;

	*ret_mss = sizes[size];
	return isn == number(ack, ack->seq - 1, slot, size) || isn == number(ack, ack->seq - 1, slot - 1, size);
}

/* ---- frames ---- */

static uint16_t fold(uint32_t sum)
{
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)sum;
}

static void put_sum(uint8_t *field, uint32_t sum)
{
	uint16_t v = (uint16_t)~fold(sum);

	memcpy(field, &v, 2); /* the sum lies as it does in memory: stack_checksum */
}

static size_t header_of_ip(bool v4)
{
	return ETHER + (v4 ? IP4 : IP6);
}

/* Ethernet and IP without options, from what p has; back: addresses change places. */
static void put_ip(const uint8_t *p, bool v4, bool back, uint8_t *to)
{
	size_t len = v4 ? 4 : 16;
	const uint8_t *from_ip = p + ETHER + (v4 ? 12 : 8), *to_ip = from_ip + len;
	uint8_t *ip = to + ETHER, *ips = ip + (v4 ? 12 : 8);

	memset(to, 0, COOKIE_FRAME_MAX);
	memcpy(to, back ? p + 6 : p, 6);
	memcpy(to + 6, back ? p : p + 6, 6);
	memcpy(to + 12, p + 12, 2);
	if (v4) {
		ip[0] = 0x45;
		put16(ip + 2, IP4 + TCP + OPTION);
		ip[6] = 0x40; /* don't fragment */
		ip[8] = TTL;
		ip[9] = 6;
	} else {
		ip[0] = 0x60;
		put16(ip + 4, TCP + OPTION);
		ip[6] = 6;
		ip[7] = TTL;
	}
	memcpy(ips, back ? to_ip : from_ip, len);
	memcpy(ips + len, back ? from_ip : to_ip, len);
}

static void put_tcp(uint8_t *tcp, uint16_t from_port, uint16_t to_port, uint32_t seq, uint8_t flags, uint16_t window, uint16_t mss)
{
	put16(tcp, from_port);
	put16(tcp + 2, to_port);
	put32(tcp + 4, seq);
	tcp[12] = (TCP + OPTION) / 4 << 4;
	tcp[13] = flags;
	put16(tcp + 14, window);
	tcp[20] = 2;
	tcp[21] = OPTION;
	put16(tcp + 22, mss);
}

static void put_sums(uint8_t *to, bool v4)
{
	uint8_t *ip = to + ETHER, *tcp = to + header_of_ip(v4);
	uint8_t length_and_protocol[4] = { 0, TCP + OPTION, 0, 6 };
	uint32_t sum = stack_checksum(length_and_protocol, 4);

	if (v4)
		put_sum(ip + 10, stack_checksum(ip, IP4));
	sum += v4 ? stack_checksum(ip + 12, 8) : stack_checksum(ip + 8, 32);
	put_sum(tcp + 16, sum + stack_checksum(tcp, TCP + OPTION));
}

size_t cookie_answer(const uint8_t *p, const struct frame *syn, uint32_t isn, uint16_t mtu, uint8_t ret[COOKIE_FRAME_MAX])
{
	bool v4 = p[12] == 0x08;
	uint8_t *tcp = ret + header_of_ip(v4);

	put_ip(p, v4, true, ret);
	put_tcp(tcp, syn->local_port, syn->remote_port, isn, FLAG_SYN | FLAG_ACK, UINT16_MAX, (uint16_t)(mtu - (v4 ? IP4 : IP6) - TCP));
	put32(tcp + 8, syn->seq + 1);
	put_sums(ret, v4);
	return (size_t)(tcp - ret) + TCP + OPTION;
}

size_t cookie_syn_of(const uint8_t *p, const struct frame *ack, uint16_t mss, uint8_t ret[COOKIE_FRAME_MAX])
{
	bool v4 = p[12] == 0x08;
	uint8_t *tcp = ret + header_of_ip(v4);

	put_ip(p, v4, false, ret);
	put_tcp(tcp, ack->remote_port, ack->local_port, ack->seq - 1, FLAG_SYN, ack->window, mss);
	return (size_t)(tcp - ret) + TCP + OPTION;
}
