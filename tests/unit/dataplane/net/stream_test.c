/* Bytes in both directions: order, back-pressure and bounds. */
#include "tests/support/net_rig.h"

#include <errno.h>
#include <stdlib.h>

enum { MUCH = 16 << 20, BOUND = 4 << 20 };

static void what_comes_is_told(void **state)
{
	struct rig *r = *state;
	struct rig_conn *c;

	rig_listen(r, NULL);
	c = rig_accepted(r);
	rig_peer_write(r, SPAN("EHLO client.example\r\n"));
	RIG_UNTIL(r, c->len == 21);
	rig_peer_write(r, SPAN("QUIT\r\n"));
	RIG_UNTIL(r, c->len == 27);
	assert_memory_equal(c->data, "EHLO client.example\r\nQUIT\r\n", 27);
}

static void take_three(struct rig *r, struct rig_conn *c, struct net_event *ev)
{
	if (ev->type == NET_DATA && ev->data.n > 3)
		ev->used = 3;
}

static void what_the_handler_leaves_is_offered_again_after_net_resume(void **state)
{
	struct rig *r = *state;
	struct rig_conn *c;

	rig_listen(r, NULL);
	c = rig_accepted(r);
	r->hook = take_three;
	rig_peer_write(r, SPAN("abcdefgh"));
	RIG_UNTIL(r, c->len == 3);
	rig_rest(r);
	assert_int_equal(c->len, 3);
	net_resume(c->conn);
	assert_int_equal(c->len, 3); /* never from inside the call */
	RIG_UNTIL(r, c->len == 6);
	rig_peer_write(r, SPAN("ij"));
	rig_rest(r);
	assert_int_equal(c->len, 6);
	r->hook = NULL;
	net_resume(c->conn);
	RIG_UNTIL(r, c->len == 10);
	assert_memory_equal(c->data, "abcdefghij", 10);
}

/* The peer writes until nothing goes any more for a while; gives how much went. */
static size_t fill(struct rig *r, const char *data, size_t n)
{
	uint64_t last = clock_mono_ns();
	size_t sent = 0;

	while (sent < n && clock_mono_ns() < last + 100 * NS_PER_MS) {
		ssize_t w = r->peer.ops->write(&r->peer, span_of(data + sent, n - sent < 65536 ? n - sent : 65536));

		if (w > 0) {
			sent += (size_t)w;
			last = clock_mono_ns();
		}
		rig_turn(r);
	}
	return sent;
}

static void a_paused_connection_holds_the_peer_back_and_loses_nothing(void **state)
{
	struct rig *r = *state;
	char *data = malloc(MUCH);
	struct rig_conn *c;
	size_t sent;

	assert_non_null(data);
	rig_pattern(data, MUCH, 0);
	rig_listen(r, NULL);
	c = rig_accepted(r);
	net_pause(c->conn);
	sent = fill(r, data, MUCH);
	assert_true(sent < BOUND);
	assert_int_equal(c->len, 0);
	net_resume(c->conn);
	rig_peer_write(r, span_of(data + sent, MUCH - sent));
	RIG_UNTIL(r, c->len == MUCH);
	assert_memory_equal(c->data, data, MUCH);
	free(data);
}

/* Writes all of it in chunks, each again when it was not taken; gives how often that was. */
static unsigned write_all(struct rig *r, struct rig_conn *c, const char *data, size_t n, size_t chunk, char *got)
{
	size_t sent = 0, seen = 0;
	unsigned full = 0;

	while (seen < n) {
		ssize_t k;

		while (sent < n) {
			enum status st = net_write(c->conn, span_of(data + sent, chunk));

			if (st == ST_FULL) {
				full++;
				break;
			}
			assert_ok(st);
			sent += chunk;
		}
		rig_turn(r);
		k = r->peer.ops->read(&r->peer, got + seen, n - seen);
		seen += k > 0 ? (size_t)k : 0;
	}
	return full;
}

static void a_write_that_was_not_taken_can_be_repeated(void **state)
{
	enum { CHUNK = 20000, ALL = CHUNK * 100 };
	struct rig *r = *state;
	char *data = malloc(ALL), *got = malloc(ALL);
	struct rig_conn *c;

	assert_true(data && got);
	rig_pattern(data, ALL, 0);
	rig_listen(r, NULL);
	c = rig_accepted(r);
	assert_true(write_all(r, c, data, ALL, CHUNK, got) > 0);
	assert_memory_equal(got, data, ALL);
	RIG_UNTIL(r, c->ndrained > 0);
	free(data);
	free(got);
}

static void a_write_larger_than_the_bound_is_taken_when_nothing_waits(void **state)
{
	struct rig *r = *state;
	size_t n = 3 * NET_WRITE_MAX;
	char *data = malloc(n), *got = malloc(n);
	struct rig_conn *c;

	assert_true(data && got);
	rig_pattern(data, n, 0);
	rig_listen(r, NULL);
	c = rig_accepted(r);
	assert_ok(net_write(c->conn, span_of(data, n)));
	assert_int_equal(net_write(c->conn, SPAN("x")), ST_FULL);
	rig_peer_read(r, got, n);
	assert_memory_equal(got, data, n);
	RIG_UNTIL(r, c->ndrained == 1);
	free(data);
	free(got);
}

static void slices_go_after_what_was_written_and_before_what_is_written_later(void **state)
{
	struct rig *r = *state;
	size_t n = 1 << 20, seen = 0;
	char *body = malloc(n), *got = malloc(n + 8);
	struct rig_conn *c;
	bool quit = false;

	assert_true(body && got);
	rig_pattern(body, n, 0);
	rig_listen(r, NULL);
	c = rig_accepted(r);
	assert_ok(net_write(c->conn, SPAN("DATA")));
	net_send(c->conn, (struct span[]){ span_of(body, 1000), SPAN_NONE, span_of(body + 1000, n - 1000) }, 3);
	while (seen < n + 8) {
		ssize_t k;

		quit = quit || net_write(c->conn, SPAN("QUIT")) == ST_OK;
		rig_turn(r);
		k = r->peer.ops->read(&r->peer, got + seen, n + 8 - seen);
		seen += k > 0 ? (size_t)k : 0;
	}
	assert_memory_equal(got, "DATA", 4);
	assert_memory_equal(got + 4, body, n);
	assert_memory_equal(got + 4 + n, "QUIT", 4);
	RIG_UNTIL(r, c->nsent == 1);
	free(body);
	free(got);
}

static void slices_without_bytes_are_sent_at_once(void **state)
{
	struct rig *r = *state;
	struct rig_conn *c;

	rig_listen(r, NULL);
	c = rig_accepted(r);
	net_send(c->conn, (struct span[]){ SPAN("") }, 1);
	RIG_UNTIL(r, c->nsent == 1);
	net_send(c->conn, NULL, 0);
	RIG_UNTIL(r, c->nsent == 2);
}

static void a_half_closed_peer_still_gets_its_answer(void **state)
{
	struct rig *r = *state;
	struct rig_conn *c;
	char got[8];
	ssize_t end;

	rig_listen(r, NULL);
	c = rig_accepted(r);
	rig_peer_write(r, SPAN("QUIT\r\n"));
	r->peer.ops->fin(&r->peer);
	RIG_UNTIL(r, c->eof);
	assert_int_equal(c->len, 6);
	assert_ok(net_write(c->conn, SPAN("221")));
	net_close(c->conn);
	assert_int_equal(rig_peer_read_all(r, got, sizeof(got), &end), 3);
	assert_int_equal(end, 0);
	rig_closed(r, c);
	assert_int_equal(c->status, ST_OK);
}

static void the_end_of_the_stream_comes_after_what_was_left(void **state)
{
	struct rig *r = *state;
	struct rig_conn *c;

	rig_listen(r, NULL);
	c = rig_accepted(r);
	r->hook = take_three;
	rig_peer_write(r, SPAN("abcdef"));
	r->peer.ops->fin(&r->peer);
	RIG_UNTIL(r, c->len == 3);
	rig_rest(r);
	assert_false(c->eof);
	net_resume(c->conn);
	RIG_UNTIL(r, c->eof);
	assert_int_equal(c->len, 6);
}

static void a_reset_by_the_peer_is_told(void **state)
{
	struct rig *r = *state;
	struct rig_conn *c;

	rig_listen(r, NULL);
	c = rig_accepted(r);
	r->peer.ops->reset(&r->peer);
	rig_closed(r, c);
	assert_false(c->eof);
	assert_int_equal(c->status, ST_CLOSED);
	assert_string_equal(c->reason, "connection reset by peer");
}

static void a_reset_ends_output_that_waits(void **state)
{
	struct rig *r = *state;
	size_t n = 8 << 20;
	char *data = calloc(1, n);
	struct rig_conn *c;

	rig_listen(r, NULL);
	c = rig_accepted(r);
	net_send(c->conn, (struct span[]){ span_of(data, n) }, 1);
	rig_rest(r);
	r->peer.ops->reset(&r->peer);
	rig_closed(r, c);
	assert_int_equal(c->nsent, 0);
	free(data);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		RIG_TEST(what_comes_is_told),
		RIG_TEST(what_the_handler_leaves_is_offered_again_after_net_resume),
		RIG_TEST(a_paused_connection_holds_the_peer_back_and_loses_nothing),
		RIG_TEST(a_write_that_was_not_taken_can_be_repeated),
		RIG_TEST(a_write_larger_than_the_bound_is_taken_when_nothing_waits),
		RIG_TEST(slices_go_after_what_was_written_and_before_what_is_written_later),
		RIG_TEST(slices_without_bytes_are_sent_at_once),
		RIG_TEST(a_half_closed_peer_still_gets_its_answer),
		RIG_TEST(the_end_of_the_stream_comes_after_what_was_left),
		RIG_TEST(a_reset_by_the_peer_is_told),
		RIG_TEST(a_reset_ends_output_that_waits),
	};

	return RIG_RUN_BAD_WIRE_TOO("stream", tests);
}
