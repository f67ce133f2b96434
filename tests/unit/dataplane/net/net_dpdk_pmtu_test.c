/* Path MTUs: what is believed, for how long, and which packets may be cut. */
#include "tests/support/unit.h"

#include "dataplane/net/lwip/hooks.h"
#include "dataplane/net/net_dpdk_pmtu.h"
#include "dataplane/net/net_dpdk_seed.h"
#include "dataplane/net/net_dpdk_stack.h"
#include <lwip/priv/tcp_priv.h>

static const uint8_t four[16] = { [10] = 0xff, [11] = 0xff, 192, 0, 2, 7 }, six[16] = { 0xfd, [15] = 7 };

static int begin(void **state)
{
	return seed_init() == ST_OK ? 0 : -1;
}

static void paths_shrink_and_are_forgotten(void **state)
{
	assert_int_equal(pmtu_of(four, 100), 0);
	pmtu_learn(four, 1400, 100);
	assert_int_equal(pmtu_of(four, 100), 1400);
	pmtu_learn(four, 1450, 100); /* a late word */
	assert_int_equal(pmtu_of(four, 100), 1400);
	pmtu_learn(four, 0, 100); /* an old router */
	assert_int_equal(pmtu_of(four, 100), 576);
	pmtu_learn(four, 68, 100);
	assert_int_equal(pmtu_of(four, 100), PMTU_LEAST4);
	pmtu_learn(six, 1280, 100);
	assert_int_equal(pmtu_of(six, 99 + PMTU_LIFE_S), 1280);
	assert_int_equal(pmtu_of(six, 100 + PMTU_LIFE_S), 0);
	pmtu_learn(six, 1400, 100 + PMTU_LIFE_S);
	assert_int_equal(pmtu_of(six, 100 + PMTU_LIFE_S), 1400);
}

static bool is_marked(uint16_t len, bool fix, uint64_t now_s)
{
	uint8_t f[1600] = { [12] = 8, [14] = 0x45, [23] = 6, [26] = 10, 0, 0, 1, 192, 0, 2, 7 };
	uint16_t sum = (uint16_t)~stack_checksum(f + 14, 20);

	memcpy(f + 24, &sum, 2);
	pmtu_mark(f, len, fix, now_s);
	if (fix)
		assert_int_equal(stack_checksum(f + 14, 20), 0xffff);
	return f[20] & 0x40;
}

static void packets_that_do_not_fit_may_be_cut(void **state)
{
	pmtu_learn(four, 1000, 10000);
	assert_true(is_marked(14 + 1000, true, 10000));
	assert_false(is_marked(14 + 1001, true, 10000));
	assert_true(is_marked(14 + 1500, false, 10000 + PMTU_LIFE_S));
	for (uint16_t i = 40; i < 900; i++)
		assert_true(is_marked(i, true, 10000));
}

static void segments_shrink_when_none_is_on_its_way(void **state)
{
	struct tcp_seg one = { 0 };
	struct tcp_pcb pcb = { .mss = 1460, .unacked = &one };

	pmtu_learn(four, 1000, 20000);
	stack_ip_of(four, &pcb.remote_ip);
	assert_false(pmtu_fits(&pcb, 20000));
	assert_int_equal(pcb.mss, 1460);
	pcb.unacked = NULL;
	assert_true(pmtu_fits(&pcb, 20000));
	assert_int_equal(pcb.mss, 960);
	pcb.unacked = &one;
	assert_true(pmtu_fits(&pcb, 20000));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(paths_shrink_and_are_forgotten),
		cmocka_unit_test(packets_that_do_not_fit_may_be_cut),
		cmocka_unit_test(segments_shrink_when_none_is_on_its_way),
	};

	return cmocka_run_group_tests(tests, begin, NULL);
}
