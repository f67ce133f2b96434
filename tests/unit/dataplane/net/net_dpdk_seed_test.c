/* SipHash by the vectors of its authors; the checksum against the definition. */
#include "tests/support/unit.h"

#include "dataplane/net/net_dpdk_seed.h"

static void siphash_gives_the_published_values(void **state)
{
	/* key 00..0f, message 00..n-1: the reference implementation's table, vectors_sip64 */
	static const struct {
		size_t n;
		uint64_t hash;
	} v[] = { { 0, 0x726fdb47dd0e0e31ull }, { 1, 0x74f839c593dc67fdull }, { 7, 0xab0200f58b01d137ull }, { 8, 0x93f5f5799a932462ull },
		{ 15, 0xa129ca6149be45e5ull } };
	uint64_t key[2];
	uint8_t bytes[16];

	for (uint8_t i = 0; i < 16; i++)
		bytes[i] = i;
	memcpy(key, bytes, 16);
	for (size_t i = 0; i < sizeof(v) / sizeof(v[0]); i++)
		assert_true(siphash(key, bytes, v[i].n) == v[i].hash);
}

static uint16_t slow_sum(const uint8_t *p, int n)
{
	uint32_t sum = 0;

	for (int i = 0; i < n; i++)
		sum += (uint32_t)p[i] << (i % 2 ? 8 : 0);
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)sum;
}

static void checksums_of_every_length_and_place(void **state)
{
	uint8_t data[2048 + 16];

	assert_ok(seed_init());
	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)(stack_random() & 0xff);
	memset(data + 100, 0xff, 64);
	for (int n = 0; n < 2048; n++)
		for (int at = 0; at < 9; at += 3)
			assert_int_equal(stack_checksum(data + at, n), slow_sum(data + at, n));
}

static void keys_are_fresh(void **state)
{
	uint64_t first;

	assert_ok(seed_init());
	first = seed_hash("flow", 4);
	assert_true(first == seed_hash("flow", 4));
	assert_ok(seed_init());
	assert_true(first != seed_hash("flow", 4));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(siphash_gives_the_published_values),
		cmocka_unit_test(checksums_of_every_length_and_place),
		cmocka_unit_test(keys_are_fresh),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
