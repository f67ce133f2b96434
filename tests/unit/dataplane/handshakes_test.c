/* P23: handshakes of a client in a minute. */
#include "tests/support/unit.h"

#include "dataplane/handshakes.h"
#include "spool/base/clock.h"

static const uint8_t four[16] = { [10] = 0xff, [11] = 0xff, 192, 0, 2, 1 };

static void a_minute_at_once_and_then_one_by_one(void **state)
{
	struct handshakes *h;
	uint64_t now = 1000 * NS_PER_S;
	uint8_t other[16];

	assert_ok(handshakes_new(&h));
	for (int i = 0; i < 60; i++)
		assert_true(handshakes_allow(h, four, 60, now));
	assert_false(handshakes_allow(h, four, 60, now));
	assert_false(handshakes_allow(h, four, 60, now + NS_PER_S - 1)); /* what is refused costs nothing */
	assert_true(handshakes_allow(h, four, 60, now + NS_PER_S));
	assert_false(handshakes_allow(h, four, 60, now + NS_PER_S));
	memcpy(other, four, 16);
	other[15]++;
	assert_true(handshakes_allow(h, other, 60, now)); /* another client */
	now += 61 * NS_PER_S;
	for (int i = 0; i < 60; i++)
		assert_true(handshakes_allow(h, four, 60, now));
	assert_false(handshakes_allow(h, four, 60, now));
	for (int i = 0; i < 1000; i++)
		assert_true(handshakes_allow(h, four, 0, now)); /* no limit */
	handshakes_free(h);
}

static void an_ipv6_client_is_a_64(void **state)
{
	struct handshakes *h;
	uint8_t ip[16] = { 0x20, 1, 0xd, 0xb8 };

	assert_ok(handshakes_new(&h));
	assert_true(handshakes_allow(h, ip, 1, NS_PER_S));
	ip[15] = 7;
	assert_false(handshakes_allow(h, ip, 1, NS_PER_S));
	ip[7] = 7;
	assert_true(handshakes_allow(h, ip, 1, NS_PER_S));
	handshakes_free(h);
}

static void memory_is_bounded(void **state)
{
	struct handshakes *h;
	uint8_t ip[16];

	assert_ok(handshakes_new(&h));
	memcpy(ip, four, 16);
	for (uint32_t i = 0; i < 70000; i++) {
		memcpy(ip + 12, &i, 4);
		assert_true(handshakes_allow(h, ip, 1, NS_PER_S));
	}
	assert_int_equal(handshakes_clients(h), 65536);
	assert_false(handshakes_allow(h, ip, 1, NS_PER_S)); /* the last one is known */
	assert_true(handshakes_allow(h, four, 1, 1000 * NS_PER_S));
	assert_int_equal(handshakes_clients(h), 1); /* all others have their minute again */
	handshakes_free(h);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(a_minute_at_once_and_then_one_by_one), cmocka_unit_test(an_ipv6_client_is_a_64),
		cmocka_unit_test(memory_is_bounded) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
