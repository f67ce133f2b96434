/* Next hops: what shares a queue and connections, and what must not. */
#include "tests/support/unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "control/schema.h"
#include "dataplane/route.h"
#include "dataplane/terms.h"
#include "spool/base/clock.h"

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

static void another_source_does_not_share(void **state)
{
	assert_string_equal(key_of("a@from.example", SNAP_TLS_MAY), "smtp:hub.example:25 from=127.0.0.1");
}

static const struct snap_route *route_of(const char *domain)
{
	const struct snap_route *r = snap_find_route(&snap, span_str(domain));

	assert_non_null(r);
	return r;
}

static void what_a_route_does_not_say_is_the_nodes(void **state)
{
	const struct snap_settings *set = &snap.h->settings;
	const struct snap_route *own = route_of("from.example"), *none = route_of("one.example");

	assert_int_equal(terms_life(set, own, false), UINT64_MAX);
	assert_int_equal(terms_life(set, own, true), UINT64_MAX);
	assert_int_equal(terms_notice(set, own), 0);
	assert_int_equal(terms_life(set, none, false), set->queue_life_ns);
	assert_int_equal(terms_life(set, NULL, true), set->bounce_life_ns);
	assert_int_equal(terms_notice(set, none), set->delay_notice_ns);
	assert_false(terms_on_hold(none, 0));
	assert_false(terms_on_hold(NULL, 0));
}

/* The end is the first moment at which it is over; a life begins there for what came before, and nowhere else. */
static void a_hold_has_an_end(void **state)
{
	const struct snap_route *r = route_of("hold.example");
	uint64_t end = 1795248000 * NS_PER_S;

	assert_true(terms_on_hold(r, end - 1));
	assert_false(terms_on_hold(r, end));
	assert_int_equal(terms_born(r, end - 7, end), end);
	assert_int_equal(terms_born(r, end + 7, end + 9), end + 7);
	assert_int_equal(terms_born(r, end - 7, end - 1), end - 7);
	assert_int_equal(terms_born(NULL, 5, 9), 5);
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
	      "  - {domain: verify.example, to: \"smtp:hub.example:25\", tls: verify}\n"
	      "  - {domain: from.example, to: \"smtp:hub.example:25\", source: [127.0.0.1], life: unlimited, delay_notice: off}\n"
	      "  - {domain: hold.example, to: mx, hold_until: 2026-11-21T08:00, life: 1h}\n", f);
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
		cmocka_unit_test(by_mx_each_domain_is_its_own), cmocka_unit_test(another_source_does_not_share),
		cmocka_unit_test(what_a_route_does_not_say_is_the_nodes), cmocka_unit_test(a_hold_has_an_end) };

	return cmocka_run_group_tests(tests, begin, end);
}
