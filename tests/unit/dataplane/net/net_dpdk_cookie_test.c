/* SYN cookies: what goes out and comes back is the same connection; nothing else is. */
#include "tests/support/unit.h"

#include "dataplane/net/net_dpdk_cookie.h"
#include "dataplane/net/net_dpdk_seed.h"

static const struct frame_own own = { .mac = { 2, 0, 0, 0, 0, 1 }, .mtu = 1500 }, peer = { .mac = { 2, 0, 0, 0, 0, 2 }, .mtu = 1500 };

static int begin(void **state)
{
	return seed_init() == ST_OK ? 0 : -1;
}

static struct frame a_syn(uint16_t mss)
{
	return (struct frame){ .remote_ip = { [10] = 0xff, [11] = 0xff, 192, 0, 2, 7 }, .remote_port = 40000, .local_port = 25, .seq = 0xfffffff0, .mss = mss, .syn = true };
}

static struct frame its_ack(const struct frame *syn, uint32_t cookie)
{
	struct frame ack = *syn;

	ack.syn = false;
	ack.ack = true;
	ack.seq = syn->seq + 1;
	ack.ack_seq = cookie + 1;
	return ack;
}

static void a_cookie_comes_back(void **state)
{
	static const struct {
		uint16_t named, kept;
	} v[] = { { 0, 536 }, { 1, 536 }, { 536, 536 }, { 1219, 1024 }, { 1220, 1220 }, { 1460, 1460 }, { 8960, 8940 }, { 65535, 8940 } };

	for (size_t i = 0; i < sizeof(v) / sizeof(v[0]); i++) {
		struct frame syn = a_syn(v[i].named), ack = its_ack(&syn, cookie_make(&syn, 1000));
		uint16_t mss;

		assert_true(cookie_check(&ack, 1000, &mss));
		assert_int_equal(mss, v[i].kept);
		assert_true(cookie_check(&ack, 1000 + COOKIE_SLOT_S, &mss));
		assert_false(cookie_check(&ack, 1000 + 2 * COOKIE_SLOT_S, &mss));
	}
}

static void nothing_else_does(void **state)
{
	struct frame syn = a_syn(1460), good = its_ack(&syn, cookie_make(&syn, 1000)), bad;
	uint16_t mss;
	unsigned guessed = 0;

	bad = good;
	bad.remote_port++;
	assert_false(cookie_check(&bad, 1000, &mss));
	bad = good;
	bad.local_port++;
	assert_false(cookie_check(&bad, 1000, &mss));
	bad = good;
	bad.remote_ip[15]++;
	assert_false(cookie_check(&bad, 1000, &mss));
	bad = good;
	bad.seq++;
	assert_false(cookie_check(&bad, 1000, &mss));
	for (uint32_t i = 1; i < 1000000; i++) {
		bad = good;
		bad.ack_seq += i * 2654435761u;
		guessed += cookie_check(&bad, 1000, &mss);
	}
	assert_true(guessed <= 2); /* one in 2^28 */
}

static uint16_t sum_of(const uint8_t *p, size_t n, uint32_t sum)
{
	sum += stack_checksum(p, (int)n);
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)sum;
}

static size_t syn_frame(bool v4, uint8_t *p)
{
	size_t ip = v4 ? 20 : 40;
	uint8_t *tcp = p + 14 + ip;

	memset(p, 0, 100);
	memcpy(p, own.mac, 6);
	memcpy(p + 6, peer.mac, 6);
	memcpy(p + 12, v4 ? "\x08\0" : "\x86\xdd", 2);
	p[14] = v4 ? 0x45 : 0x60;
	p[14 + (v4 ? 9 : 6)] = 6;
	memcpy(p + 14 + (v4 ? 12 : 8), v4 ? "\xc0\0\2\7\xc0\0\2\1" : "\xfd\0\0\0\0\0\0\0\0\0\0\0\0\0\0\7\xfd\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1", v4 ? 8 : 32);
	memcpy(tcp, "\x9c\x40\0\31\1\2\3\4\0\0\0\0\x60\2\xff\xff\0\0\0\0\2\4\5\xb4", 24);
	return 14 + ip + 24;
}

static void the_frames_are_right(void **state)
{
	for (int v4 = 0; v4 < 2; v4++) {
		uint8_t p[100], out[COOKIE_FRAME_MAX];
		size_t n = syn_frame(v4, p), len, ip = v4 ? 20 : 40;
		struct frame syn, answer, again;
		uint32_t cookie;

		assert_int_equal(frame_look(p, n, &own, &syn), FRAME_FLOW);
		cookie = cookie_make(&syn, 5);
		len = cookie_answer(p, &syn, cookie, own.mtu, out);
		assert_int_equal(len, 14 + ip + 24);
		assert_int_equal(frame_look(out, len, &peer, &answer), FRAME_FLOW);
		assert_int_equal(answer.seq, cookie);
		assert_int_equal(answer.ack_seq, syn.seq + 1);
		assert_int_equal(answer.remote_port, 25);
		assert_int_equal(answer.local_port, 40000);
		assert_memory_equal(out + 14 + ip + 20, v4 ? "\2\4\x05\xb4" : "\2\4\x05\xa0", 4);
		if (v4)
			assert_int_equal(sum_of(out + 14, 20, 0), 0xffff);
		assert_int_equal(sum_of(out + 14 + ip, 24, stack_checksum(v4 ? out + 26 : out + 22, v4 ? 8 : 32) + (uint32_t)stack_checksum("\0\30\0\6", 4)), 0xffff);
		/* and back: the ACK's SYN is the SYN that was, but for its options */
		syn = its_ack(&syn, cookie);
		len = cookie_syn_of(p, &syn, 1460, out);
		assert_int_equal(frame_look(out, len, &own, &again), FRAME_FLOW);
		assert_true(again.syn);
		assert_int_equal(again.seq, 0x01020304);
		assert_int_equal(again.mss, 1460);
		assert_int_equal(again.remote_port, 40000);
		assert_memory_equal(again.remote_ip, syn.remote_ip, 16);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_cookie_comes_back),
		cmocka_unit_test(nothing_else_does),
		cmocka_unit_test(the_frames_are_right),
	};

	return cmocka_run_group_tests(tests, begin, NULL);
}
