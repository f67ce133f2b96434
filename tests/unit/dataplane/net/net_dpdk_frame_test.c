/* What of a stranger's frames reaches lwIP, and under which flow. */
#include "tests/support/unit.h"

#include "dataplane/net/net_dpdk_frame.h"

static const struct frame_own own = { .mac = { 2, 0, 0, 0, 0, 1 }, .mtu = 1500 };

static struct frame looked;

static size_t ether(uint8_t *f, uint16_t type)
{
	memset(f, 0, 200);
	memcpy(f, own.mac, 6);
	f[12] = (uint8_t)(type >> 8);
	f[13] = (uint8_t)type;
	return 14;
}

static size_t ip6(uint8_t *f, uint8_t next)
{
	size_t at = ether(f, 0x86dd);

	f[at] = 0x60;
	f[at + 6] = next;
	f[at + 8] = 0xfd;
	return at + 40;
}

static enum frame_kind icmp6(uint8_t type, uint32_t mtu)
{
	uint8_t f[200];
	size_t at = ip6(f, 58);

	f[at] = type;
	for (int i = 0; i < 4; i++)
		f[at + 4 + (size_t)i] = (uint8_t)(mtu >> (24 - 8 * i));
	f[at + 8] = 0x60; /* a segment of ours comes back */
	f[at + 8 + 6] = 6;
	memcpy(f + at + 8 + 24, "\xfd\1\2\3\4\5\6\7\1\2\3\4\5\6\7\1", 16);
	memcpy(f + at + 8 + 40, "\0\31\x9c\x40\1\2\3\4", 8);
	return frame_look(f, at + 8 + 48, &own, &looked);
}

static void tcp_has_a_flow(void **state)
{
	static const uint8_t segment[24] = { 0x9c, 0x40, 0, 25, 1, 2, 3, 4, 0, 0, 0, 0, 0x60, 2, 0x12, 0x34, 0, 0, 0, 0, 2, 4, 5, 0xb4 };
	uint8_t f[200];
	struct frame ret;
	size_t at = ether(f, 0x0800);

	f[at] = 0x46; /* with options */
	f[at + 9] = 6;
	memcpy(f + at + 12, "\xc0\x00\x02\x01", 4);
	memcpy(f + at + 24, segment, 24);
	assert_int_equal(frame_look(f, at + 48, &own, &ret), FRAME_FLOW);
	assert_int_equal(ret.remote_port, 40000);
	assert_int_equal(ret.local_port, 25);
	assert_int_equal(ret.seq, 0x01020304);
	assert_true(ret.syn && !ret.ack);
	assert_int_equal(ret.window, 0x1234);
	assert_int_equal(ret.mss, 1460);
	assert_memory_equal(ret.remote_ip + 10, "\xff\xff\xc0\x00\x02\x01", 6);
	f[at + 24 + 13] = 0x12; /* SYN and ACK: not a new connection */
	assert_int_equal(frame_look(f, at + 44, &own, &ret), FRAME_FLOW);
	assert_false(ret.syn);
	assert_int_equal(frame_look(f, at + 43, &own, &ret), FRAME_DROP);
	f[at + 6] = 0x20;
	assert_int_equal(frame_look(f, at + 44, &own, &ret), FRAME_ODD);
	f[5] ^= 1; /* somebody else's */
	assert_int_equal(frame_look(f, at + 44, &own, &ret), FRAME_DROP);
}

static void a_router_speaks_of_a_segment_of_ours(void **state)
{
	static const uint8_t quoted[28] = { 0x45, 0, 5, 0xdc, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 192, 0, 2, 1, 0, 25, 0x9c, 0x40, 1, 2, 3, 4 };
	uint8_t f[200];
	struct frame ret;
	size_t at = ether(f, 0x0800), end;

	f[at] = 0x45;
	f[at + 9] = 1;
	at += 20;
	f[at] = 3;
	f[at + 1] = 4;
	f[at + 6] = 5;
	memcpy(f + at + 8, quoted, sizeof(quoted));
	end = at + 8 + sizeof(quoted);
	assert_int_equal(frame_look(f, end, &own, &ret), FRAME_TOO_BIG);
	assert_int_equal(ret.mtu, 1280);
	assert_int_equal(ret.local_port, 25);
	assert_int_equal(ret.remote_port, 40000);
	assert_int_equal(ret.seq, 0x01020304);
	assert_memory_equal(ret.remote_ip + 10, "\xff\xff\xc0\x00\x02\x01", 6);
	assert_int_equal(frame_look(f, end - 1, &own, &ret), FRAME_DROP);
	f[at + 8] = 0x46; /* options that are not there */
	assert_int_equal(frame_look(f, end, &own, &ret), FRAME_DROP);
	f[at + 8] = 0x45;
	f[at + 8 + 9] = 17;
	assert_int_equal(frame_look(f, end, &own, &ret), FRAME_DROP);
	f[at + 1] = 1; /* host unreachable: TCP waits (RFC 5461) */
	assert_int_equal(frame_look(f, end, &own, &ret), FRAME_OTHER);
}

static void segment_sizes_are_found_among_options(void **state)
{
	static const struct {
		const char *options;
		size_t n;
		bool has;
		uint16_t mss;
	} cases[] = {
		{ "", 0, false, 0 },
		{ "\2\4\5\264", 4, true, 1460 },
		{ "\1\1\2\4\0\1", 6, true, 1 },
		{ "\10\12\1\2\3\4\5\6\7\10\2\4", 12, true, 0 }, /* behind a timestamp, cut off */
		{ "\10\12\2\4\3\4\5\6\7\10\1\1", 12, false, 0 }, /* inside of one */
		{ "\0\2\4\1", 4, false, 0 },
		{ "\5\1\2\4", 4, false, 0 }, /* lwIP stops at it, too */
		{ "\5\377\2\4", 4, false, 0 },
		{ "\1\1\1\5", 4, false, 0 },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint16_t mss = 0;

		assert_int_equal(frame_mss((const uint8_t *)cases[i].options, cases[i].n, &mss), cases[i].has);
		assert_int_equal(mss, cases[i].mss);
	}
}

static void nobody_becomes_a_router_or_shrinks_a_path_to_nothing(void **state)
{
	assert_int_equal(icmp6(128, 0), FRAME_OTHER);
	assert_int_equal(icmp6(135, 0), FRAME_OTHER);
	assert_int_equal(icmp6(134, 0), FRAME_DROP);
	assert_int_equal(icmp6(137, 0), FRAME_DROP);
	assert_int_equal(icmp6(2, 1280), FRAME_TOO_BIG);
	assert_int_equal(looked.mtu, 1280);
	assert_int_equal(looked.local_port, 25);
	assert_int_equal(looked.remote_port, 40000);
	assert_int_equal(looked.seq, 0x01020304);
	assert_memory_equal(looked.remote_ip, "\xfd\1\2\3\4\5\6\7\1\2\3\4\5\6\7\1", 16);
	assert_int_equal(icmp6(2, 1499), FRAME_TOO_BIG);
	assert_int_equal(icmp6(2, 1279), FRAME_DROP);
	assert_int_equal(icmp6(2, 1500), FRAME_DROP);
	assert_int_equal(icmp6(2, 0x10500), FRAME_DROP);
}

static void neighbours_speak_of_themselves(void **state)
{
	uint8_t f[200];
	struct frame ret;
	size_t at = ether(f, 0x0806);

	memcpy(f + at, "\0\1\x08\0\6\4\0\1\2\0\0\0\0\2\xc0\0\2\1\0\0\0\0\0\0\xc0\0\2\2", 28);
	assert_int_equal(frame_look(f, at + 28, &own, &ret), FRAME_OTHER); /* it asks */
	f[at + 7] = 2;
	assert_int_equal(frame_look(f, at + 28, &own, &ret), FRAME_NEIGHBOUR);
	assert_int_equal(frame_look(f, at + 27, &own, &ret), FRAME_DROP);
	f[at + 7] = 1;
	f[at + 27] = 1; /* for itself */
	assert_int_equal(frame_look(f, at + 28, &own, &ret), FRAME_NEIGHBOUR);
	assert_int_equal(icmp6(136, 0), FRAME_NEIGHBOUR);
}

static void nothing_hides_behind_extension_headers(void **state)
{
	static const struct {
		uint8_t kind, next, type;
		enum frame_kind is;
	} v[] = { { 0, 58, 130, FRAME_OTHER }, { 0, 58, 134, FRAME_DROP }, { 0, 6, 0, FRAME_DROP }, { 44, 6, 0, FRAME_ODD }, { 44, 58, 134, FRAME_DROP },
		{ 44, 60, 0, FRAME_DROP }, { 60, 6, 0, FRAME_DROP }, { 43, 6, 0, FRAME_DROP }, { 17, 0, 0, FRAME_DROP } };

	for (size_t i = 0; i < sizeof(v) / sizeof(v[0]); i++) {
		uint8_t f[200];
		struct frame ret;
		size_t at = ip6(f, v[i].kind);

		f[at] = v[i].next;
		f[at + 8] = v[i].type;
		assert_int_equal(frame_look(f, at + 40, &own, &ret), v[i].is);
	}
}

/* ---- whose ---- */

static const struct frame_own host = { .mac = { 2, 0, 0, 0, 0, 1 }, .mtu = 1500, .has4 = true, .has6 = true, .ip4 = { 192, 0, 2, 10 },
	.ip6 = { 0xfd, 0x25, [15] = 0x10 }, .link6 = { 0xfe, 0x80, [11] = 0xff, 0xfe, [15] = 1 } };

/* A frame to the device, or to all. */
static enum frame_whose whose(uint16_t type, bool to_all, size_t at, const void *octets, size_t n, size_t len)
{
	uint8_t f[200];

	ether(f, type);
	if (to_all)
		memset(f, 0xff, 6);
	memcpy(f + at, octets, n);
	return frame_whose(f, len, &host);
}

static void the_kernel_has_what_is_not_for_our_addresses(void **state)
{
	(void)state;
	assert_int_equal(whose(0x0800, false, 30, "\xc0\x00\x02\x0a", 4, 60), FRAME_OURS);
	assert_int_equal(whose(0x0800, false, 30, "\xc0\x00\x02\x0b", 4, 60), FRAME_KERNELS);
	assert_int_equal(whose(0x0800, true, 30, "\xff\xff\xff\xff", 4, 60), FRAME_BOTH);
	assert_int_equal(whose(0x86dd, false, 38, host.ip6, 16, 80), FRAME_OURS);
	assert_int_equal(whose(0x86dd, false, 38, "\xfd\x25", 2, 80), FRAME_KERNELS);
	assert_int_equal(whose(0x86dd, true, 38, "\xff\x02", 2, 80), FRAME_BOTH);
	assert_int_equal(whose(0x88cc, true, 14, "", 0, 60), FRAME_KERNELS);
}

static void both_hear_what_neighbours_say_of_themselves(void **state)
{
	uint8_t request[28] = { 0, 1, 8, 0, 6, 4, 0, 1, [14] = 192, 0, 2, 1, [24] = 192, 0, 2, 10 }, f[200];

	(void)state;
	assert_int_equal(whose(0x0806, true, 14, request, 28, 60), FRAME_OURS);
	request[27] = 20;
	assert_int_equal(whose(0x0806, true, 14, request, 28, 60), FRAME_KERNELS);
	request[27] = 1; /* for its own address: an announcement */
	assert_int_equal(whose(0x0806, true, 14, request, 28, 60), FRAME_BOTH);
	request[7] = 2;
	assert_int_equal(whose(0x0806, false, 14, request, 28, 60), FRAME_BOTH);
	for (int type = 0; type < 256; type++) {
		size_t at = ip6(f, 58);

		memcpy(f + 38, host.link6, 16);
		f[at] = (uint8_t)type;
		assert_int_equal(frame_whose(f, at + 24, &host), type == 135 || type == 136 ? FRAME_BOTH : FRAME_OURS);
	}
}

static void what_is_for_nobody_here_is_not_the_kernels(void **state)
{
	uint8_t f[60];

	(void)state;
	memset(f, 0, sizeof(f)); /* another host's, heard because the device hears everything */
	f[12] = 8;
	assert_int_equal(frame_whose(f, sizeof(f), &host), FRAME_OURS);
	memcpy(f, host.mac, 6);
	for (size_t n = 0; n < 34; n++) /* cut off */
		assert_int_equal(frame_whose(f, n, &host), FRAME_OURS);
	assert_int_equal(frame_whose(f, 34, &host), FRAME_KERNELS);
	assert_int_equal(frame_whose(f, 34, &(struct frame_own){ .mac = { 2, 0, 0, 0, 0, 1 } }), FRAME_KERNELS); /* no IPv4 at all, 0.0.0.0 neither */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(tcp_has_a_flow),
		cmocka_unit_test(a_router_speaks_of_a_segment_of_ours),
		cmocka_unit_test(segment_sizes_are_found_among_options),
		cmocka_unit_test(nobody_becomes_a_router_or_shrinks_a_path_to_nothing),
		cmocka_unit_test(neighbours_speak_of_themselves),
		cmocka_unit_test(nothing_hides_behind_extension_headers),
		cmocka_unit_test(the_kernel_has_what_is_not_for_our_addresses),
		cmocka_unit_test(both_hear_what_neighbours_say_of_themselves),
		cmocka_unit_test(what_is_for_nobody_here_is_not_the_kernels),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
