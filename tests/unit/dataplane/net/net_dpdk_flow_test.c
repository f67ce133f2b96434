/* lwIP's connections in lists by flow: none is lost, each is found in its own bucket, timers see all. */
#include "tests/support/unit.h"

#include "dataplane/net/lwip/hooks.h"
#include "dataplane/net/net_dpdk_flow.h"
#include "dataplane/net/net_dpdk_seed.h"
#include "dataplane/net/net_dpdk_stack.h"
#include <lwip/init.h>
#include <lwip/priv/tcp_priv.h>
#include "spool/base/clock.h"

enum { MANY = 5000, TICKS_FOR_TIME_WAIT = 32 };

static struct tcp_pcb *pcb[MANY];

static void peer(uint32_t i, uint8_t ret_ip[16], uint16_t *ret_port)
{
	static const uint8_t mapped[16] = { [10] = 0xff, [11] = 0xff, 192, 0, 2 };

	memcpy(ret_ip, mapped, 16);
	ret_ip[15] = (uint8_t)(i % 200);
	*ret_port = (uint16_t)(2000 + i / 200);
}

static size_t length(const struct tcp_pcb *list)
{
	size_t n = 0;

	for (; list; list = list->next)
		n++;
	return n;
}

static bool contains(const struct tcp_pcb *list, const struct tcp_pcb *p)
{
	while (list && list != p)
		list = list->next;
	return list != NULL;
}

static void make(uint32_t i, enum tcp_state state)
{
	uint8_t ip[16];
	uint16_t port;

	peer(i, ip, &port);
	flow_load(flow_bucket(ip, port, 25));
	pcb[i] = tcp_new_ip_type(IPADDR_TYPE_V4);
	assert_non_null(pcb[i]);
	stack_ip_of(ip, &pcb[i]->remote_ip);
	pcb[i]->remote_port = port;
	pcb[i]->local_port = 25;
	pcb[i]->state = state;
	if (state == TIME_WAIT)
		TCP_REG(&tcp_tw_pcbs, pcb[i]);
	else
		TCP_REG_ACTIVE(pcb[i]);
}

static int begin(void **state)
{
	lwip_init();
	flow_init();
	return seed_init() == ST_OK ? 0 : -1;
}

static void every_connection_is_in_its_own_bucket(void **state)
{
	struct flow_stats f;

	for (uint32_t i = 0; i < MANY; i++)
		make(i, i % 10 ? ESTABLISHED : TIME_WAIT);
	for (int round = 0; round < 3; round++) {
		for (uint32_t i = 0; i < MANY; i++) {
			flow_load_pcb(pcb[i]);
			assert_true(contains(i % 10 ? tcp_active_pcbs : tcp_tw_pcbs, pcb[i]));
			assert_true(length(tcp_active_pcbs) < 30);
		}
		flow_load_all();
		assert_int_equal(length(tcp_active_pcbs), MANY * 9 / 10);
		assert_int_equal(length(tcp_tw_pcbs), MANY / 10);
		for (int i = 0; i < TICKS_FOR_TIME_WAIT; i++)
			flow_tick();
	}
	flow_stats(&f);
	assert_int_equal(f.active, MANY * 9 / 10);
	assert_int_equal(f.time_wait, MANY / 10);
}

/* lwIP remembers in 8 bits which call of its timers saw a connection last. */
static void timers_see_each_connection_once(void **state)
{
	enum { ROUNDS = 20 };
	uint32_t before = tcp_ticks;

	for (uint32_t i = 1; i < MANY; i += i % 10 == 9 ? 2 : 1) {
		pcb[i]->pollinterval = 255;
		pcb[i]->polltmr = 0;
	}
	for (int i = 0; i < 2 * ROUNDS; i++)
		flow_tick();
	assert_int_equal(tcp_ticks - before, ROUNDS);
	for (uint32_t i = 1; i < MANY; i += i % 10 == 9 ? 2 : 1)
		assert_int_equal(pcb[i]->polltmr, ROUNDS);
}

static void time_wait_ends(void **state)
{
	struct flow_stats f;

	for (uint32_t i = 20; i < 200; i += 10)
		pcb[i]->tmr = tcp_ticks - (uint32_t)(2 * TCP_MSL / TCP_SLOW_INTERVAL);
	for (int i = 0; i < TICKS_FOR_TIME_WAIT; i++)
		flow_tick();
	flow_stats(&f);
	assert_int_equal(f.time_wait, MANY / 10 - 20);
	flow_load_all();
	assert_int_equal(length(tcp_tw_pcbs), MANY / 10 - 20);
}

static void a_new_syn_recycles_time_wait_and_an_old_one_does_not(void **state)
{
	struct flow_stats f;
	uint8_t ip[16];
	uint16_t port;

	for (uint32_t i = 0; i < 20; i += 10) {
		peer(i, ip, &port);
		flow_load(flow_bucket(ip, port, 25));
		pcb[i]->rcv_nxt = 0xfffffff0;
		assert_true(flow_syn(ip, port, 25, 0xffffffe0)); /* lwIP acknowledges what it had before */
		assert_true(contains(tcp_tw_pcbs, pcb[i]));
		assert_true(flow_in_time_wait(ip, port, 25));
		assert_true(flow_syn(ip, port, 25, 5)); /* newer: numbers wrap */
		assert_false(contains(tcp_tw_pcbs, pcb[i]));
		assert_false(flow_in_time_wait(ip, port, 25));
	}
	flow_stats(&f);
	assert_int_equal(f.time_wait_recycled, 2);
	flow_load_all();
	assert_int_equal(length(tcp_tw_pcbs), MANY / 10 - 2);
}

static void a_new_port_is_nobody_elses(void **state)
{
	uint8_t ip[16];
	uint16_t port;

	peer(1, ip, &port);
	for (int i = 0; i < 1000; i++) {
		uint16_t local = flow_new_port(ip, port);

		assert_true(local >= 1024);
		for (const struct tcp_pcb *p = tcp_active_pcbs; p; p = p->next)
			assert_false(p->local_port == local && p->remote_port == port && p->remote_ip.u_addr.ip4.addr == pcb[1]->remote_ip.u_addr.ip4.addr);
	}
}

static void all_can_be_ended(void **state)
{
	struct flow_stats f;

	for (uint32_t i = 0; i < MANY; i++)
		if (i % 10) {
			flow_load_pcb(pcb[i]);
			tcp_abandon(pcb[i], 0);
		}
	flow_load_all();
	assert_null(tcp_active_pcbs);
	flow_tick();
	flow_stats(&f);
	assert_int_equal(f.active, 0);
}

static void sequence_numbers_follow_the_clock_and_nothing_else(void **state)
{
	ip_addr_t ip;
	uint8_t bytes[16];
	uint16_t port;
	uint32_t first, second, other, again;

	peer(1, bytes, &port);
	stack_ip_of(bytes, &ip);
	clock_fake(NS_PER_S, 0);
	first = stack_isn(&ip, 25, &ip, port);
	other = stack_isn(&ip, 25, &ip, (uint16_t)(port + 1));
	clock_fake(2 * NS_PER_S, 0);
	second = stack_isn(&ip, 25, &ip, port);
	assert_int_equal(second - first, 250000); /* one in 4 us: later connections of a flow begin above earlier ones */
	assert_ok(seed_init());
	again = stack_isn(&ip, 25, &ip, port);
	clock_fake_off();
	assert_int_not_equal(first, other);
	assert_int_not_equal(second, again); /* another key, another place */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_connection_is_in_its_own_bucket),
		cmocka_unit_test(timers_see_each_connection_once),
		cmocka_unit_test(a_new_syn_recycles_time_wait_and_an_old_one_does_not),
		cmocka_unit_test(time_wait_ends),
		cmocka_unit_test(a_new_port_is_nobody_elses),
		cmocka_unit_test(all_can_be_ended),
		cmocka_unit_test(sequence_numbers_follow_the_clock_and_nothing_else),
	};

	return cmocka_run_group_tests(tests, begin, NULL);
}
