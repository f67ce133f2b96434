/* Ends that we make: orderly, by reset, and with a time limit that needs no turn of the loop. */
#include "tests/support/net_rig.h"

#include <errno.h>
#include <stdlib.h>

static void closing_sends_what_was_written_and_then_the_end(void **state)
{
	struct rig *r = *state;
	struct rig_conn *c;
	char got[64];
	ssize_t end;

	rig_listen(r, NULL);
	c = rig_accepted(r);
	assert_ok(net_write(c->conn, SPAN("221 2.0.0 Bye\r\n")));
	net_close(c->conn);
	assert_int_equal(rig_peer_read_all(r, got, sizeof(got), &end), 15);
	assert_int_equal(end, 0);
	assert_false(c->closed); /* it lingers for the peer's end */
	r->peer.ops->close(&r->peer);
	rig_closed(r, c);
	assert_int_equal(c->status, ST_OK);
}

/* RFC 1122 4.2.2.13: closing with unread input would send a reset, which may overtake the last reply. */
static void a_lingering_connection_reads_and_drops_what_comes(void **state)
{
	struct rig *r = *state;
	struct rig_conn *c;
	char got[64];
	ssize_t end;

	rig_listen(r, NULL);
	c = rig_accepted(r);
	net_pause(c->conn);
	rig_peer_write(r, SPAN("more"));
	rig_rest(r);
	assert_ok(net_write(c->conn, SPAN("421")));
	net_close(c->conn);
	rig_turn(r);
	rig_peer_write(r, SPAN("and more"));
	assert_int_equal(rig_peer_read_all(r, got, sizeof(got), &end), 3);
	assert_int_equal(end, 0);
	assert_false(c->closed);
	assert_int_equal(c->len, 0);
	r->peer.ops->close(&r->peer);
	rig_closed(r, c);
}

/* Only what the transport completes wakes the loop. */
static void sleep_until_closed(struct rig *r, struct rig_conn *c, uint64_t limit_ns)
{
	uint64_t begin = clock_mono_ns();

	while (!c->closed) {
		net_poll(r->net);
		if (!c->closed)
			rig_wait(r, 4 * NS_PER_S);
		assert_true(clock_mono_ns() < begin + limit_ns);
	}
}

static void lingering_ends_by_itself(void **state)
{
	struct rig *r = *state;
	struct rig_conn *c;
	uint64_t begin;

	rig_listen(r, NULL);
	c = rig_accepted(r);
	net_close(c->conn);
	begin = clock_mono_ns();
	sleep_until_closed(r, c, 3 * NS_PER_S);
	assert_true(clock_mono_ns() - begin >= RIG_LINGER_NS);
	assert_int_equal(c->status, ST_OK);
}

static void each_lingering_connection_has_its_own_time(void **state)
{
	struct rig *r = *state;
	struct peer first;
	uint64_t begin;

	rig_listen(r, NULL);
	net_close(rig_accepted(r)->conn);
	first = r->peer;
	begin = clock_mono_ns();
	while (clock_mono_ns() < begin + RIG_LINGER_NS / 2)
		rig_turn(r);
	net_close(rig_accepted(r)->conn);
	sleep_until_closed(r, &r->conn[0], 3 * NS_PER_S);
	assert_false(r->conn[1].closed);
	sleep_until_closed(r, &r->conn[1], 3 * NS_PER_S);
	assert_true(clock_mono_ns() - begin >= RIG_LINGER_NS * 3 / 2);
	peer_done(&first);
}

/* A peer that takes no reply may not keep a connection for ever. */
static void closing_does_not_wait_for_ever_for_a_peer_that_does_not_read(void **state)
{
	struct rig *r = *state;
	size_t n = 8 << 20;
	char *data = calloc(1, n);
	struct rig_conn *c;
	uint64_t begin;

	rig_listen(r, NULL);
	c = rig_accepted(r);
	net_send(c->conn, (struct span[]){ span_of(data, n) }, 1);
	rig_turn(r);
	net_close(c->conn);
	begin = clock_mono_ns();
	sleep_until_closed(r, c, 3 * NS_PER_S);
	assert_true(clock_mono_ns() - begin >= RIG_CLOSE_NS);
	assert_int_equal(c->status, ST_TIMEOUT);
	free(data);
}

static void an_abort_resets_and_throws_output_away(void **state)
{
	struct rig *r = *state;
	struct rig_conn *c;
	char got[8];
	ssize_t end;

	rig_listen(r, NULL);
	c = rig_accepted(r);
	rig_rest(r); /* a receive is under way */
	assert_ok(net_write(c->conn, SPAN("x")));
	net_abort(c->conn);
	assert_false(c->closed);
	rig_closed(r, c);
	assert_int_equal(c->status, ST_OK);
	assert_int_equal(rig_peer_read_all(r, got, sizeof(got), &end), 0);
	assert_int_equal(end, -ECONNRESET);
}

static void an_abort_ends_a_send_under_way(void **state)
{
	struct rig *r = *state;
	size_t n = 8 << 20;
	char *data = calloc(1, n), *got = malloc(n);
	struct rig_conn *c;
	ssize_t end;

	rig_listen(r, NULL);
	c = rig_accepted(r);
	net_send(c->conn, (struct span[]){ span_of(data, n) }, 1);
	rig_rest(r);
	net_abort(c->conn);
	rig_closed(r, c);
	assert_true(rig_peer_read_all(r, got, n, &end) < n);
	assert_int_equal(end, -ECONNRESET);
	free(data);
	free(got);
}

static void an_idle_connection_stays_until_its_owner_ends_it(void **state)
{
	struct rig *r = *state;
	struct rig_conn *c;
	char got[8];
	uint64_t begin;
	ssize_t end;

	rig_listen(r, NULL);
	c = rig_accepted(r);
	begin = clock_mono_ns();
	while (clock_mono_ns() < begin + 2 * RIG_CLOSE_NS)
		rig_turn(r);
	assert_false(c->closed);
	assert_ok(net_write(c->conn, SPAN("421")));
	net_close(c->conn);
	sleep_until_closed(r, c, 3 * NS_PER_S);
	assert_int_equal(rig_peer_read_all(r, got, sizeof(got), &end), 3);
}

static void closing_twice_and_aborting_while_lingering_are_one_end(void **state)
{
	struct rig *r = *state;
	struct rig_conn *c;

	rig_listen(r, NULL);
	c = rig_accepted(r);
	net_close(c->conn);
	net_close(c->conn);
	rig_rest(r);
	assert_false(c->closed);
	net_abort(c->conn);
	net_abort(c->conn);
	rig_closed(r, c);
	rig_rest(r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		RIG_TEST(closing_sends_what_was_written_and_then_the_end),
		RIG_TEST(a_lingering_connection_reads_and_drops_what_comes),
		RIG_TEST(lingering_ends_by_itself),
		RIG_TEST(each_lingering_connection_has_its_own_time),
		RIG_TEST(closing_does_not_wait_for_ever_for_a_peer_that_does_not_read),
		RIG_TEST(an_abort_resets_and_throws_output_away),
		RIG_TEST(an_abort_ends_a_send_under_way),
		RIG_TEST(an_idle_connection_stays_until_its_owner_ends_it),
		RIG_TEST(closing_twice_and_aborting_while_lingering_are_one_end),
	};

	return RIG_RUN_BAD_WIRE_TOO("close", tests);
}
