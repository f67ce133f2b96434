/* Connections that we make. */
#include "tests/support/net_rig.h"

#include <netinet/in.h>
#include "dataplane/net/transport.h"

static void it_connects(void **state)
{
	struct rig *r = *state;
	struct rig_conn *c = rig_connected(r);
	uint8_t ip[16], want_ip[16];
	uint16_t port, want_port;

	net_unpack(&r->at, want_ip, &want_port);
	net_peer(c->conn, ip, &port);
	assert_memory_equal(ip, want_ip, 16);
	assert_int_equal(port, want_port);
}

static void a_connected_connection_knows_its_local_address(void **state)
{
	struct rig *r = *state;
	struct rig_conn *c = rig_connected(r);
	uint8_t ip[16];
	uint16_t port;

	net_local(c->conn, ip, &port);
	assert_memory_equal(ip, "\0\0\0\0\0\0\0\0\0\0\xff\xff", 12);
	assert_memory_equal(ip + 12, r->t->own_ip4, 4);
	assert_true(port);
}

static void a_source_address_is_used(void **state)
{
	struct rig *r = *state;
	struct sockaddr_storage at;
	struct sockaddr_in source = { .sin_family = AF_INET };
	struct rig_conn *c = &r->conn[r->nconns++];
	uint8_t ip[16];
	uint16_t port;

	memcpy(&source.sin_addr, r->t->own_ip4, 4);
	r->listener = r->t->peer->listen(&at);
	assert_ok(net_connect(r->net, (struct sockaddr *)&at, (struct sockaddr *)&source, c, &c->conn));
	RIG_UNTIL(r, c->connected);
	net_local(c->conn, ip, &port);
	assert_memory_equal(ip + 12, &source.sin_addr, 4);
}

static void a_refused_connection_says_so(void **state)
{
	struct rig *r = *state;
	struct sockaddr_storage at;
	struct rig_conn *c;

	r->t->peer->closed_port(&at);
	c = rig_connect(r, &at);
	rig_closed(r, c);
	assert_false(c->connected);
	assert_int_equal(c->status, ST_DENIED);
	assert_string_equal(c->reason, "connection refused");
	assert_int_equal(net_conns(r->net), 0);
}

static void an_abort_while_connecting_ends_it(void **state)
{
	struct rig *r = *state;
	struct sockaddr_storage at;
	struct rig_conn *c;

	r->listener = r->t->peer->listen(&at);
	c = rig_connect(r, &at);
	net_abort(c->conn);
	assert_false(c->closed); /* never from inside the call */
	rig_closed(r, c);
	assert_false(c->connected);
	assert_int_equal(c->status, ST_OK);
}

static void output_written_before_it_is_connected_goes_out_after(void **state)
{
	struct rig *r = *state;
	struct rig_conn *c;
	char got[4];

	r->listener = r->t->peer->listen(&r->at);
	c = rig_connect(r, &r->at);
	assert_ok(net_write(c->conn, SPAN("EHLO")));
	RIG_UNTIL(r, r->t->peer->accept(&r->peer, r->listener) == 0);
	rig_peer_read(r, got, 4);
	assert_memory_equal(got, "EHLO", 4);
}

static void beyond_the_limit_connecting_fails(void **state)
{
	struct rig *r = *state;
	struct net_conn *one_more;

	r->listener = r->t->peer->listen(&r->at);
	for (unsigned i = 0; i < RIG_CONNS; i++)
		(void)rig_connect(r, &r->at);
	assert_int_equal(net_connect(r->net, (struct sockaddr *)&r->at, NULL, r, &one_more), ST_FULL);
	net_abort(r->conn[3].conn);
	rig_closed(r, &r->conn[3]);
	assert_int_equal(net_conns(r->net), RIG_CONNS - 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		RIG_TEST(it_connects),
		RIG_TEST(a_connected_connection_knows_its_local_address),
		RIG_TEST(a_source_address_is_used),
		RIG_TEST(a_refused_connection_says_so),
		RIG_TEST(an_abort_while_connecting_ends_it),
		RIG_TEST(output_written_before_it_is_connected_goes_out_after),
		RIG_TEST(beyond_the_limit_connecting_fails),
	};

	return RIG_RUN("connect", tests);
}
