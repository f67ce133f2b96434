/* TLS below the seam: handshakes in both roles, bounds, order and ends. */
#include "tests/support/net_rig.h"

#include <errno.h>
#include <stdlib.h>

enum { MUCH = 16 << 20, BOUND = 4 << 20 };

/* An accepted connection with TLS on. */
static struct rig_conn *secured(struct rig *r)
{
	struct rig_conn *c;
	char none[16];

	rig_listen(r, r->tls_server);
	c = rig_accepted(r);
	peer_tls(&r->peer, r->tls_client, false);
	RIG_UNTIL(r, (assert_int_equal(peer_tls_turn(&r->peer, none, sizeof(none)), 0), r->peer.tls_on && c->tls_on));
	return c;
}

static void we_are_the_server(void **state)
{
	struct rig *r = *state;
	struct rig_conn *c = secured(r);
	char got[3];

	assert_non_null(net_tls_text(c->conn));
	peer_tls_write(&r->peer, SPAN("EHLO"));
	RIG_UNTIL(r, c->len == 4);
	assert_memory_equal(c->data, "EHLO", 4);
	assert_ok(net_write(c->conn, SPAN("250")));
	rig_peer_tls_read(r, got, 3);
	assert_memory_equal(got, "250", 3);
}

static void we_are_the_client(void **state)
{
	struct rig *r = *state;
	struct rig_conn *c = rig_connected(r);
	char got[16];

	peer_tls(&r->peer, r->tls_server, true);
	net_start_tls(c->conn, r->tls_client, &(struct tls_peer){ .name = SPAN("weir.test") });
	assert_null(net_tls_text(c->conn));
	RIG_UNTIL(r, (assert_int_equal(peer_tls_turn(&r->peer, got, sizeof(got)), 0), c->tls_on));
	assert_ok(net_write(c->conn, SPAN("EHLO")));
	rig_peer_tls_read(r, got, 4);
	assert_memory_equal(got, "EHLO", 4);
	peer_tls_write(&r->peer, SPAN("250"));
	RIG_UNTIL(r, c->len == 3);
}

static void a_certificate_that_is_not_trusted_ends_a_verified_client(void **state)
{
	struct rig *r = *state;
	struct rig_conn *c = rig_connected(r);
	struct tls_context *strict;
	char none[16];

	assert_ok(tls_client_new(NULL, &strict));
	peer_tls(&r->peer, r->tls_server, true);
	net_start_tls(c->conn, strict, &(struct tls_peer){ .check = TLS_CHECK_NAME, .name = SPAN("weir.test") });
	RIG_UNTIL(r, (peer_tls_turn(&r->peer, none, sizeof(none)), c->closed));
	assert_false(c->tls_on);
	assert_int_equal(c->status, ST_DENIED);
	tls_context_free(strict);
}

static void starttls(struct rig *r, struct rig_conn *c, struct net_event *ev)
{
	if (ev->type != NET_DATA)
		return;
	assert_ok(net_write(c->conn, SPAN("220")));
	net_start_tls(c->conn, r->tls_server, NULL);
	ev->used = ev->data.n < 8 ? ev->data.n : 8;
	r->hook = NULL;
}

static void the_reply_before_the_handshake_goes_in_the_clear(void **state)
{
	struct rig *r = *state;
	struct rig_conn *c;
	char got[16];

	rig_listen(r, NULL);
	c = rig_accepted(r);
	r->hook = starttls;
	rig_peer_write(r, SPAN("STARTTLS"));
	rig_peer_read(r, got, 3);
	assert_memory_equal(got, "220", 3);
	peer_tls(&r->peer, r->tls_client, false);
	RIG_UNTIL(r, (peer_tls_turn(&r->peer, got, sizeof(got)), c->tls_on));
}

static void what_is_written_in_a_handshake_goes_encrypted(void **state)
{
	struct rig *r = *state;
	struct rig_conn *c;
	char got[16];

	rig_listen(r, NULL);
	c = rig_accepted(r);
	r->hook = starttls;
	rig_peer_write(r, SPAN("STARTTLS"));
	RIG_UNTIL(r, c->len == 8);
	assert_ok(net_write(c->conn, SPAN("secret")));
	rig_peer_read(r, got, 3);
	assert_memory_equal(got, "220", 3);
	rig_rest(r);
	assert_int_equal(r->peer.ops->read(&r->peer, got, sizeof(got)), -EAGAIN);
	peer_tls(&r->peer, r->tls_client, false);
	rig_peer_tls_read(r, got, 6);
	assert_memory_equal(got, "secret", 6);
}

static void greet(struct rig *r, struct rig_conn *c, struct net_event *ev)
{
	if (ev->type == NET_ACCEPTED)
		assert_ok(net_write(c->conn, SPAN("220 hello")));
}

static void a_greeting_with_implicit_tls_goes_encrypted(void **state)
{
	struct rig *r = *state;
	char got[16];

	r->hook = greet;
	rig_listen(r, r->tls_server);
	(void)rig_accepted(r);
	rig_rest(r);
	assert_int_equal(r->peer.ops->read(&r->peer, got, sizeof(got)), -EAGAIN);
	peer_tls(&r->peer, r->tls_client, false);
	rig_peer_tls_read(r, got, 9);
	assert_memory_equal(got, "220 hello", 9);
}

static void refuse(struct rig *r, struct rig_conn *c, struct net_event *ev)
{
	if (ev->type != NET_ACCEPTED)
		return;
	assert_ok(net_write(c->conn, SPAN("421 later")));
	net_close(c->conn);
}

static void a_refusal_with_implicit_tls_ends_the_handshake_first(void **state)
{
	struct rig *r = *state;
	struct rig_conn *c;
	char got[16];

	r->hook = refuse;
	rig_listen(r, r->tls_server);
	c = rig_accepted(r);
	peer_tls(&r->peer, r->tls_client, false);
	rig_peer_tls_read(r, got, 9);
	assert_memory_equal(got, "421 later", 9);
	RIG_UNTIL(r, (peer_tls_turn(&r->peer, got, sizeof(got)), r->peer.tls_end));
	r->peer.ops->close(&r->peer);
	rig_closed(r, c);
	assert_int_equal(c->status, ST_OK);
	assert_false(c->tls_on); /* no event but the end follows net_close */
}

static void slices_given_in_a_handshake_go_encrypted(void **state)
{
	struct rig *r = *state;
	size_t n = 1 << 20;
	char *body = malloc(n), *got = malloc(n);
	struct rig_conn *c;

	assert_true(body && got);
	rig_pattern(body, n, 0);
	rig_listen(r, r->tls_server);
	c = rig_accepted(r);
	net_send(c->conn, (struct span[]){ span_of(body, 70000), span_of(body + 70000, n - 70000) }, 2);
	peer_tls(&r->peer, r->tls_client, false);
	rig_peer_tls_read(r, got, n);
	assert_memory_equal(got, body, n);
	RIG_UNTIL(r, c->nsent == 1);
	free(body);
	free(got);
}

static void a_write_that_was_not_taken_can_be_repeated(void **state)
{
	enum { CHUNK = 20000, ALL = CHUNK * 100 };
	struct rig *r = *state;
	char *data = malloc(ALL), *got = malloc(ALL + CHUNK);
	struct rig_conn *c = secured(r);
	size_t sent = 0, seen = 0;
	unsigned full = 0;

	assert_true(data && got);
	rig_pattern(data, ALL, 0);
	while (seen < ALL) {
		while (sent < ALL && net_write(c->conn, span_of(data + sent, CHUNK)) == ST_OK)
			sent += CHUNK;
		full += sent < ALL;
		rig_turn(r);
		seen += peer_tls_turn(&r->peer, got + seen, ALL + CHUNK - seen);
	}
	assert_true(full > 0);
	assert_int_equal(seen, ALL);
	assert_memory_equal(got, data, ALL);
	RIG_UNTIL(r, c->ndrained > 0);
	free(data);
	free(got);
}

/* The peer encrypts and sends until nothing went for so long; gives how much was encrypted. */
static size_t fill(struct rig *r, const char *data, size_t n, uint64_t patience_ns)
{
	uint64_t last = clock_mono_ns();
	size_t sent = 0;

	while (sent < n && clock_mono_ns() < last + patience_ns) {
		char none[1];

		peer_tls_turn(&r->peer, none, sizeof(none));
		if (!peer_tls_waits(&r->peer)) {
			peer_tls_write(&r->peer, span_of(data + sent, 16384));
			sent += 16384;
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
	struct rig_conn *c = secured(r);
	size_t sent;

	assert_non_null(data);
	rig_pattern(data, MUCH, 0);
	net_pause(c->conn);
	sent = fill(r, data, MUCH, 100 * NS_PER_MS);
	assert_true(sent < BOUND);
	assert_int_equal(c->len, 0);
	net_resume(c->conn);
	assert_int_equal(fill(r, data + sent, MUCH - sent, RIG_PATIENCE_NS), MUCH - sent);
	RIG_UNTIL(r, (peer_tls_turn(&r->peer, (char[1]){ 0 }, 1), c->len == MUCH));
	assert_memory_equal(c->data, data, MUCH);
	free(data);
}

static void leave_all(struct rig *r, struct rig_conn *c, struct net_event *ev)
{
	if (ev->type == NET_DATA)
		ev->used = 0;
}

static void a_handler_that_leaves_everything_holds_the_peer_back(void **state)
{
	struct rig *r = *state;
	char *data = malloc(MUCH);
	struct rig_conn *c = secured(r);
	size_t sent;

	assert_non_null(data);
	rig_pattern(data, MUCH, 0);
	r->hook = leave_all;
	sent = fill(r, data, MUCH, 100 * NS_PER_MS);
	assert_true(sent < BOUND);
	r->hook = NULL;
	net_resume(c->conn);
	RIG_UNTIL(r, (peer_tls_turn(&r->peer, (char[1]){ 0 }, 1), c->len == sent));
	assert_memory_equal(c->data, data, sent);
	free(data);
}

static void close_notify_is_the_end_and_is_answered(void **state)
{
	struct rig *r = *state;
	struct rig_conn *c = secured(r);
	char got[16];

	peer_tls_write(&r->peer, SPAN("QUIT"));
	tls_session_close(r->peer.tls);
	RIG_UNTIL(r, (peer_tls_turn(&r->peer, got, sizeof(got)), c->eof));
	assert_int_equal(c->len, 4);
	assert_ok(net_write(c->conn, SPAN("221")));
	net_close(c->conn);
	rig_peer_tls_read(r, got, 3);
	assert_memory_equal(got, "221", 3);
	RIG_UNTIL(r, (peer_tls_turn(&r->peer, got, sizeof(got)), r->peer.tls_end));
	r->peer.ops->close(&r->peer);
	rig_closed(r, c);
	assert_int_equal(c->status, ST_OK);
}

static void our_close_sends_close_notify(void **state)
{
	struct rig *r = *state;
	struct rig_conn *c = secured(r);
	char got[16];

	assert_ok(net_write(c->conn, SPAN("221")));
	net_close(c->conn);
	rig_peer_tls_read(r, got, 3);
	RIG_UNTIL(r, (peer_tls_turn(&r->peer, got, sizeof(got)), r->peer.tls_end));
	assert_false(c->closed);
	r->peer.ops->close(&r->peer);
	rig_closed(r, c);
}

static void an_end_that_comes_while_paused_is_told_after_the_data(void **state)
{
	struct rig *r = *state;
	struct rig_conn *c = secured(r);

	net_pause(c->conn);
	peer_tls_write(&r->peer, SPAN("last words"));
	tls_session_close(r->peer.tls);
	peer_tls_turn(&r->peer, (char[1]){ 0 }, 1);
	r->peer.ops->fin(&r->peer);
	rig_rest(r);
	assert_false(c->closed || c->eof);
	net_resume(c->conn);
	RIG_UNTIL(r, c->eof);
	assert_int_equal(c->len, 10);
	net_close(c->conn);
	rig_closed(r, c);
	assert_int_equal(c->status, ST_OK);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		RIG_TEST(we_are_the_server),
		RIG_TEST(we_are_the_client),
		RIG_TEST(a_certificate_that_is_not_trusted_ends_a_verified_client),
		RIG_TEST(the_reply_before_the_handshake_goes_in_the_clear),
		RIG_TEST(what_is_written_in_a_handshake_goes_encrypted),
		RIG_TEST(a_greeting_with_implicit_tls_goes_encrypted),
		RIG_TEST(a_refusal_with_implicit_tls_ends_the_handshake_first),
		RIG_TEST(slices_given_in_a_handshake_go_encrypted),
		RIG_TEST(a_write_that_was_not_taken_can_be_repeated),
		RIG_TEST(a_paused_connection_holds_the_peer_back_and_loses_nothing),
		RIG_TEST(a_handler_that_leaves_everything_holds_the_peer_back),
		RIG_TEST(close_notify_is_the_end_and_is_answered),
		RIG_TEST(our_close_sends_close_notify),
		RIG_TEST(an_end_that_comes_while_paused_is_told_after_the_data),
	};

	return RIG_RUN("tls", tests);
}
