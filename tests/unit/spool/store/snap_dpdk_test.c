/* The group dpdk as a worker reads it. */
#include "tests/support/unit.h"

#include <stdlib.h>
#include "spool/store/snap_dpdk.h"

/* A snapshot with nothing but these strings. */
static struct snapshot snapshot_of(const char *devices, const char *ip4, const char *gateway4, const char *ip6, const char *gateway6, const char *kernel)
{
	static char bytes[sizeof(struct snap_header) + 2048];
	struct snap_header *h = (struct snap_header *)(void *)bytes;
	struct snap_settings *set = &h->settings;
	const char *text[] = { devices, ip4, gateway4, ip6, gateway6, kernel };
	struct snap_str *to[] = { &set->dpdk_devices, &set->dpdk_ip4, &set->dpdk_gateway4, &set->dpdk_ip6, &set->dpdk_gateway6,
		&set->dpdk_kernel };
	uint32_t at = sizeof(struct snap_header);

	memset(bytes, 0, sizeof(bytes));
	set->dpdk_mtu = 1500;
	set->workers = 2;
	for (size_t i = 0; i < sizeof(to) / sizeof(to[0]); i++) {
		*to[i] = (struct snap_str){ at, (uint32_t)strlen(text[i]) };
		memcpy(bytes + at, text[i], strlen(text[i]) + 1);
		at += (uint32_t)strlen(text[i]) + 1;
	}
	return (struct snapshot){ .h = h, .bytes = sizeof(bytes) };
}

static void each_worker_has_its_own(void **state)
{
	struct snapshot s = snapshot_of(" net_null0  net_af_packet0,iface=eth%w ", "10.25.%w.10/24", "10.25.%w.1", "fd25:%w::10/64", "fe80::1", "weir%w");
	struct snap_dpdk d;

	assert_ok(snap_dpdk(&s, 7, &d));
	assert_int_equal(d.ndevices, 2);
	assert_string_equal(d.device[1], "net_af_packet0,iface=eth7");
	assert_string_equal(d.kernel, "weir7");
	assert_false(d.shared);
	assert_memory_equal(d.ip4 + 10, "\xff\xff\x0a\x19\x07\x0a", 6);
	assert_memory_equal(d.gateway4 + 12, "\x0a\x19\x07\x01", 4);
	assert_int_equal(d.prefix4, 24);
	assert_memory_equal(d.ip6, "\xfd\x25\x00\x07", 4);
	assert_true(d.has_ip4 && d.has_gateway4 && d.has_ip6 && d.has_gateway6);
}

static void all_share_one(void **state)
{
	struct snapshot s = snapshot_of("net_af_xdp0,iface=eth1,start_queue=%w", "10.25.0.10/24", "", "", "", "weir");
	struct snap_dpdk d;

	assert_ok(snap_dpdk(&s, 1, &d));
	assert_true(d.shared);
	assert_string_equal(d.kernel, "weir");
}

static void what_is_wrong_is_said(void **state)
{
	static const struct {
		const char *text[6], *says;
	} bad[] = {
		{ { "", "10.0.0.1/8", "", "", "" }, "dpdk.devices is empty" },
		{ { "a b c d e f g h i", "10.0.0.1/8", "", "", "" }, "at most 8 devices" },
		{ { "a", "", "", "", "" }, "an address of its own" },
		{ { "a", "10.0.0.1", "", "", "" }, "dpdk.ipv4: \"10.0.0.1\"" },
		{ { "a", "10.0.0.1/0", "", "", "" }, "dpdk.ipv4: \"10.0.0.1/0\"" },
		{ { "a", "10.0.0.1/33", "", "", "" }, "dpdk.ipv4: \"10.0.0.1/33\"" },
		{ { "a", "fd00::1/64", "", "", "" }, "dpdk.ipv4: \"fd00::1/64\"" },
		{ { "a", "", "", "fd00::1/48", "" }, "dpdk.ipv6: \"fd00::1/48\"" },
		{ { "a", "", "", "10.0.0.1/24", "" }, "dpdk.ipv6: \"10.0.0.1/24\"" },
		{ { "a", "10.0.0.1/8", "fe80::1", "", "" }, "dpdk.gateway4: \"fe80::1\"" },
		{ { "a", "10.0.0.1/8", "", "", "fe80::1", "" }, "dpdk.gateway6 is there without" },
		{ { "a", "10.0.0.%w/8", "", "", "", "weir" }, "write for example weir%w" },
		{ { "a", "10.0.0.1/8", "", "", "", "weir%w" }, "write for example weir, without %w" },
		{ { "a", "10.0.0.1/8", "", "", "", "a b" }, "dpdk.kernel: \"a b\" is not the name" },
		{ { "a", "10.0.0.1/8", "", "", "", "a-name-of-16-chr" }, "at most 15" },
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct snapshot s = snapshot_of(bad[i].text[0], bad[i].text[1], bad[i].text[2], bad[i].text[3], bad[i].text[4], bad[i].text[5] ? bad[i].text[5] : "");
		struct snap_dpdk d;

		assert_int_equal(snap_dpdk(&s, 0, &d), ST_INVALID);
		if (!strstr(trail_text(), bad[i].says))
			fail_msg("%s: %s", bad[i].says, trail_text());
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_worker_has_its_own),
		cmocka_unit_test(all_share_one),
		cmocka_unit_test(what_is_wrong_is_said),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
