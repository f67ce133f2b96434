/* P16, A3, A5: how many connections whom may have. */
#include "tests/support/tables_fixture.h"

#include "dataplane/policy/connections.h"

static const char config[] = "limits: {connections: 1000, connections_per_client: 20, connections_per_own_client: 50, connections_per_network: 100, connections_reserved: 10}\n"
			     "relay_clients:\n"
			     "  - {network: 192.0.2.0/25, class: robust}\n"
			     "  - {network: 192.0.2.128/25, class: fragile}\n"
			     "  - {network: 192.0.2.7, class: robust, connections: 70}\n"
			     "  - {network: 192.0.2.8, class: robust, connections: none}\n";

static struct fixture x;

static int begin(void **state)
{
	fixture_begin(&x);
	if (!fixture_compile(&x, config))
		fail_msg("%s", x.errors);
	return 0;
}

static int end(void **state)
{
	fixture_end(&x);
	return 0;
}

static enum conn_finding look(const char *ip, struct conn_counts n)
{
	struct policy_facts f = { .snap = &x.snap, .tables = &x.tables };

	assert_ok(ip_parse(span_str(ip), f.client_ip));
	f.net = snap_find_net(&x.snap, f.client_ip);
	n.all_max = 1000;
	return policy_connection(&f, &n);
}

/* The number with which the first is one too many. */
static uint32_t most(const char *ip, enum conn_finding because, size_t member)
{
	for (uint32_t i = 1; i <= 1000; i++) {
		struct conn_counts n = { 0 };

		*(uint32_t *)(void *)((char *)&n + member) = i;
		if (look(ip, n) != CONN_GOOD) {
			assert_int_equal(look(ip, n), because);
			return i - 1;
		}
	}
	return UINT32_MAX;
}

static void an_address_has_the_cap_of_its_class_or_entry(void **state)
{
	const size_t client = offsetof(struct conn_counts, client);

	assert_int_equal(most("198.51.100.1", CONN_TOO_MANY_OF_CLIENT, client), 20);
	assert_int_equal(most("192.0.2.1", CONN_TOO_MANY_OF_CLIENT, client), 50);
	assert_int_equal(most("192.0.2.200", CONN_TOO_MANY_OF_CLIENT, client), 50);
	assert_int_equal(most("192.0.2.7", CONN_TOO_MANY_OF_CLIENT, client), 70);
	assert_int_equal(most("192.0.2.8", CONN_TOO_MANY_OF_CLIENT, client), UINT32_MAX);
}

static void only_networks_outside_have_a_cap(void **state)
{
	const size_t network = offsetof(struct conn_counts, network);

	assert_int_equal(most("198.51.100.1", CONN_TOO_MANY_OF_NETWORK, network), 100);
	assert_int_equal(most("192.0.2.1", CONN_TOO_MANY_OF_NETWORK, network), UINT32_MAX);
	assert_int_equal(most("192.0.2.200", CONN_TOO_MANY_OF_NETWORK, network), UINT32_MAX);
}

static void the_last_are_for_those_without_a_queue(void **state)
{
	const size_t all = offsetof(struct conn_counts, all);

	assert_int_equal(most("198.51.100.1", CONN_TOO_MANY, all), 900);
	assert_int_equal(most("192.0.2.1", CONN_TOO_MANY, all), 950);
	assert_int_equal(most("192.0.2.200", CONN_TOO_MANY, all), UINT32_MAX); /* a thousand: all */
	assert_int_equal(look("192.0.2.200", (struct conn_counts){ .all = 1001 }), CONN_TOO_MANY);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_address_has_the_cap_of_its_class_or_entry),
		cmocka_unit_test(only_networks_outside_have_a_cap),
		cmocka_unit_test(the_last_are_for_those_without_a_queue),
	};

	return cmocka_run_group_tests(tests, begin, end);
}
