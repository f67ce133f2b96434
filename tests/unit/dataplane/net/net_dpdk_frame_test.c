/* What of a stranger's frames reaches lwIP, and under which flow. */
#include "tests/support/unit.h"

#include "dataplane/net/net_dpdk_frame.h"

static const struct frame_own own = { .mac = { 2, 0, 0, 0, 0, 1 }, .mtu = 1500 };

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
	struct frame ret;
	size_t at = ip6(f, 58);

	f[at] = type;
	for (int i = 0; i < 4; i++)
		f[at + 4 + (size_t)i] = (uint8_t)(mtu >> (24 - 8 * i));
	return frame_look(f, at + 48, &own, &ret);
}

static void tcp_has_a_flow(void **state)
{
	static const uint8_t segment[20] = { 0x9c, 0x40, 0, 25, 1, 2, 3, 4, 0, 0, 0, 0, 0x50, 2 };
	uint8_t f[200];
	struct frame ret;
	size_t at = ether(f, 0x0800);

	f[at] = 0x46; /* with options */
	f[at + 9] = 6;
	memcpy(f + at + 12, "\xc0\x00\x02\x01", 4);
	memcpy(f + at + 24, segment, 20);
	assert_int_equal(frame_look(f, at + 44, &own, &ret), FRAME_FLOW);
	assert_int_equal(ret.remote_port, 40000);
	assert_int_equal(ret.local_port, 25);
	assert_int_equal(ret.seq, 0x01020304);
	assert_true(ret.syn);
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

static void segment_sizes_are_found_among_options(void **state)
{
	static const struct {
		const char *options;
		size_t n;
		bool has;
	} cases[] = {
		{ "", 0, false },
		{ "\2\4\0\1", 4, true },
		{ "\1\1\2\4\0\1", 6, true },
		{ "\10\12\1\2\3\4\5\6\7\10\2\4", 12, true }, /* behind a timestamp */
		{ "\10\12\2\4\3\4\5\6\7\10\1\1", 12, false }, /* inside of one */
		{ "\0\2\4\1", 4, false },
		{ "\5\1\2\4", 4, false }, /* lwIP stops at it, too */
		{ "\5\377\2\4", 4, false },
		{ "\1\1\1\5", 4, false },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		assert_int_equal(frame_has_mss((const uint8_t *)cases[i].options, cases[i].n), cases[i].has);
}

static void nobody_becomes_a_router_or_shrinks_a_path_to_nothing(void **state)
{
	assert_int_equal(icmp6(128, 0), FRAME_OTHER);
	assert_int_equal(icmp6(135, 0), FRAME_OTHER);
	assert_int_equal(icmp6(134, 0), FRAME_DROP);
	assert_int_equal(icmp6(137, 0), FRAME_DROP);
	assert_int_equal(icmp6(2, 1280), FRAME_OTHER);
	assert_int_equal(icmp6(2, 1499), FRAME_OTHER);
	assert_int_equal(icmp6(2, 1279), FRAME_DROP);
	assert_int_equal(icmp6(2, 1500), FRAME_DROP);
	assert_int_equal(icmp6(2, 0x10500), FRAME_DROP);
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(tcp_has_a_flow),
		cmocka_unit_test(segment_sizes_are_found_among_options),
		cmocka_unit_test(nobody_becomes_a_router_or_shrinks_a_path_to_nothing),
		cmocka_unit_test(nothing_hides_behind_extension_headers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
