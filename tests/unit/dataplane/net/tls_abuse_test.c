/* Peers that break TLS, or try to slip plaintext into it: nothing that was not protected is read (rule P4). */
#include "tests/support/net_rig.h"

#include <errno.h>

static struct rig_conn *secured(struct rig *r)
{
	struct rig_conn *c;
	char none[16];

	rig_listen(r, r->tls_server);
	c = rig_accepted(r);
	peer_tls(&r->peer, r->tls_client, false);
	RIG_UNTIL(r, (peer_tls_turn(&r->peer, none, sizeof(none)), r->peer.tls_on && c->tls_on));
	return c;
}

static void starttls(struct rig *r, struct rig_conn *c, struct net_event *ev)
{
	if (ev->type != NET_DATA)
		return;
	ev->used = ev->data.n < 8 ? ev->data.n : 8;
	assert_ok(net_write(c->conn, SPAN("220")));
	net_start_tls(c->conn, r->tls_server, NULL);
	r->hook = NULL;
}

static void plaintext_in_one_piece_with_starttls_ends_the_connection(void **state)
{
	struct rig *r = *state;
	struct rig_conn *c;
	char got[16];
	ssize_t end;

	rig_listen(r, NULL);
	c = rig_accepted(r);
	r->hook = starttls;
	rig_peer_write(r, SPAN("STARTTLSMAIL FROM:<>"));
	rig_closed(r, c);
	assert_int_equal(rig_peer_read_all(r, got, sizeof(got), &end), 0);
	assert_int_equal(end, 0);
	assert_int_equal(c->status, ST_DENIED);
	assert_int_equal(c->len, 8);
}

static void plaintext_in_place_of_a_handshake_ends_the_connection(void **state)
{
	struct rig *r = *state;
	struct rig_conn *c;

	rig_listen(r, NULL);
	c = rig_accepted(r);
	r->hook = starttls;
	rig_peer_write(r, SPAN("STARTTLS"));
	RIG_UNTIL(r, c->len == 8);
	assert_ok(net_write(c->conn, SPAN("secret")));
	rig_peer_write(r, SPAN("MAIL FROM:<>\r\n"));
	rig_closed(r, c);
	assert_int_equal(c->status, ST_DENIED);
	assert_int_equal(c->len, 8);
	assert_false(c->tls_on);
}

static void what_waits_for_a_handshake_that_fails_is_never_sent(void **state)
{
	struct rig *r = *state;
	struct rig_conn *c;
	char got[256];
	size_t n;
	ssize_t end;

	rig_listen(r, r->tls_server);
	c = rig_accepted(r);
	assert_ok(net_write(c->conn, SPAN("secret")));
	rig_peer_write(r, SPAN("MAIL FROM:<>\r\n"));
	n = rig_peer_read_all(r, got, sizeof(got), &end);
	assert_null(memmem(got, n, "secret", 6));
	rig_closed(r, c);
}

static void plaintext_behind_close_notify_is_not_read(void **state)
{
	struct rig *r = *state;
	struct rig_conn *c = secured(r);
	char wire[512];
	size_t n;

	peer_tls_write(&r->peer, SPAN("NOOP"));
	tls_session_close(r->peer.tls);
	n = peer_tls_take(&r->peer, wire, sizeof(wire) - 14);
	memcpy(wire + n, "MAIL FROM:<>\r\n", 14); /* in one segment with the alert */
	rig_peer_write(r, span_of(wire, n + 14));
	RIG_UNTIL(r, c->eof);
	rig_peer_write(r, SPAN("RCPT TO:<victim>\r\n")); /* and in one of its own */
	rig_rest(r);
	net_resume(c->conn);
	rig_rest(r);
	assert_int_equal(c->len, 4);
	assert_memory_equal(c->data, "NOOP", 4);
	assert_false(c->closed);
	net_close(c->conn);
	r->peer.ops->close(&r->peer);
	rig_closed(r, c);
}

static void nothing_is_read_after_a_tls_error(void **state)
{
	struct rig *r = *state;
	struct rig_conn *c = secured(r);
	char wire[512], got[4096];
	size_t n;
	ssize_t end;

	rig_peer_write(r, SPAN("MAIL FROM:<>\r\n")); /* no TLS record */
	CHECK(tls_session_write(r->peer.tls, SPAN("RCPT")));
	n = peer_tls_take(&r->peer, wire, sizeof(wire));
	rig_peer_write(r, span_of(wire, n));
	rig_rest(r);
	assert_int_equal(c->len, 0);
	rig_peer_read_all(r, got, sizeof(got), &end); /* the alert, then the end */
	assert_int_equal(end, 0);
	r->peer.ops->close(&r->peer);
	rig_closed(r, c);
	assert_int_equal(c->len, 0);
	assert_int_equal(c->status, ST_IO);
	assert_string_not_equal(c->reason, "");
}

static void a_record_that_was_changed_on_the_way_is_an_error(void **state)
{
	struct rig *r = *state;
	struct rig_conn *c = secured(r);
	char wire[512];
	size_t n;

	CHECK(tls_session_write(r->peer.tls, SPAN("MAIL FROM:<>\r\n")));
	n = peer_tls_take(&r->peer, wire, sizeof(wire));
	wire[n - 1] ^= 1;
	rig_peer_write(r, span_of(wire, n));
	rig_closed(r, c);
	assert_int_equal(c->len, 0);
	assert_int_equal(c->status, ST_IO);
}

/* Truncation: without close_notify it may be an attacker who ended the stream. */
static void an_end_without_close_notify_is_no_orderly_end(void **state)
{
	struct rig *r = *state;
	struct rig_conn *c = secured(r);

	peer_tls_write(&r->peer, SPAN("DATA"));
	r->peer.ops->fin(&r->peer);
	rig_closed(r, c);
	assert_int_equal(c->len, 4);
	assert_false(c->eof);
	assert_int_equal(c->status, ST_CLOSED);
}

static void a_peer_that_leaves_in_the_handshake_is_gone(void **state)
{
	struct rig *r = *state;
	struct rig_conn *c;

	rig_listen(r, r->tls_server);
	c = rig_accepted(r);
	r->peer.ops->fin(&r->peer);
	rig_closed(r, c);
	assert_false(c->tls_on);
	assert_int_equal(c->status, ST_CLOSED);
}

static void closing_in_a_handshake_that_never_ends_has_its_limit(void **state)
{
	struct rig *r = *state;
	struct rig_conn *c;
	uint64_t begin;

	rig_listen(r, r->tls_server);
	c = rig_accepted(r);
	assert_ok(net_write(c->conn, SPAN("421 secret")));
	net_close(c->conn);
	begin = clock_mono_ns();
	rig_closed(r, c);
	assert_true(clock_mono_ns() - begin >= RIG_CLOSE_NS);
	assert_int_equal(c->status, ST_TIMEOUT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		RIG_TEST(plaintext_in_one_piece_with_starttls_ends_the_connection),
		RIG_TEST(plaintext_in_place_of_a_handshake_ends_the_connection),
		RIG_TEST(what_waits_for_a_handshake_that_fails_is_never_sent),
		RIG_TEST(plaintext_behind_close_notify_is_not_read),
		RIG_TEST(nothing_is_read_after_a_tls_error),
		RIG_TEST(a_record_that_was_changed_on_the_way_is_an_error),
		RIG_TEST(an_end_without_close_notify_is_no_orderly_end),
		RIG_TEST(a_peer_that_leaves_in_the_handshake_is_gone),
		RIG_TEST(closing_in_a_handshake_that_never_ends_has_its_limit),
	};

	return RIG_RUN("abuse of TLS", tests);
}
