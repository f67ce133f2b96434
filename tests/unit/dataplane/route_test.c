/* Next hops: what shares a queue and connections, and what must not. */
#include "tests/support/unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "control/schema.h"
#include "dataplane/route.h"

static struct model model;
static struct snapshot snap;

static const char *key_of(const char *rcpt, enum snap_tls tls)
{
	static char buf[2][ROUTE_KEY_MAX + 1];
	static unsigned turn;
	char *b = buf[turn++ % 2];
	struct next_hop hop;

	assert_ok(route_rcpt(&snap, &(struct tables){ 0 }, span_str(rcpt), HOP_TLS_ROUTE, b, &hop));
	assert_int_equal(hop.tls, tls);
	b[hop.key.n] = '\0';
	return b;
}

static void same_hosts_share(void **state)
{
	assert_string_equal(key_of("a@one.example", SNAP_TLS_MAY), key_of("b@two.example", SNAP_TLS_MAY));
}

/* A connection that was made without a look at the certificate must not carry mail that needs one. */
static void another_demand_for_tls_does_not_share(void **state)
{
	static const char *const rcpt[] = { "a@never.example", "a@one.example", "a@must.example", "a@verify.example" };

	for (unsigned i = SNAP_TLS_NEVER; i <= SNAP_TLS_VERIFY; i++)
		for (unsigned k = 0; k < i; k++)
			assert_string_not_equal(key_of(rcpt[i], (enum snap_tls)i), key_of(rcpt[k], (enum snap_tls)k));
}

static void by_mx_each_domain_is_its_own(void **state)
{
	assert_string_equal(key_of("a@ELSE.example", SNAP_TLS_MAY), "mx:else.example");
}

static int begin(void **state)
{
	char path[] = "/tmp/weir-route-XXXXXX";
	int fd = mkstemp(path);
	FILE *f = fdopen(fd, "w");
	bool ok;

	assert_non_null(f);
	fputs("hostname: relay.cam.example\nroutes:\n"
	      "  - {domain: one.example, to: \"smtp:hub.example:25\"}\n  - {domain: two.example, to: \"smtp:hub.example:25\"}\n"
	      "  - {domain: never.example, to: \"smtp:hub.example:25\", tls: never}\n  - {domain: must.example, to: \"smtp:hub.example:25\", tls: must}\n"
	      "  - {domain: verify.example, to: \"smtp:hub.example:25\", tls: verify}\n", f);
	fclose(f);
	ok = model_read(&model, path, "/tmp", 1, stderr);
	unlink(path);
	snap = (struct snapshot){ .h = (const struct snap_header *)(const void *)model.bytes, .bytes = model.n };
	return ok ? 0 : -1;
}

static int end(void **state)
{
	free(model.bytes);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(same_hosts_share), cmocka_unit_test(another_demand_for_tls_does_not_share),
		cmocka_unit_test(by_mx_each_domain_is_its_own) };

	return cmocka_run_group_tests(tests, begin, end);
}
