/* Listeners: accepting, addresses, pausing, and that nothing is left behind. */
#include "tests/support/net_rig.h"

#include <dirent.h>
#include "dataplane/net/transport.h"

static void a_connection_is_accepted_with_its_listener_and_addresses(void **state)
{
	struct rig *r = *state;
	struct sockaddr_storage peer;
	uint8_t ip[16], want_ip[16];
	uint16_t port, want_port;
	struct rig_conn *c;

	rig_listen(r, NULL);
	c = rig_accepted(r);
	assert_true(c->accepted);
	assert_int_equal(net_conns(r->net), 1);

	r->peer.ops->local(&r->peer, &peer);
	net_unpack(&peer, want_ip, &want_port);
	net_peer(c->conn, ip, &port);
	assert_memory_equal(ip, want_ip, 16);
	assert_int_equal(port, want_port);
}

static void an_accepted_connection_knows_its_local_address(void **state)
{
	struct rig *r = *state;
	uint8_t ip[16], want_ip[16];
	uint16_t port, want_port;
	struct rig_conn *c;

	rig_listen(r, NULL);
	c = rig_accepted(r);
	net_unpack(&r->at, want_ip, &want_port);
	net_local(c->conn, ip, &port);
	assert_memory_equal(ip, want_ip, 16);
	assert_int_equal(port, want_port);
}

static void a_paused_listener_accepts_nothing_until_it_goes_on(void **state)
{
	struct rig *r = *state;

	rig_listen(r, NULL);
	net_accept_pause(r->net, true);
	rig_rest(r);
	assert_int_equal(r->t->peer->dial(&r->peer, &r->at), 0);
	rig_rest(r);
	assert_int_equal(r->nconns, 0);
	net_accept_pause(r->net, false);
	RIG_UNTIL(r, r->nconns == 1);
}

/* The cancel of the pause is still under way when the listener is to go on. */
static void a_listener_survives_pausing_and_going_on_at_once(void **state)
{
	struct rig *r = *state;

	rig_listen(r, NULL);
	net_accept_pause(r->net, true);
	net_accept_pause(r->net, false);
	rig_rest(r);
	rig_accepted(r);
}

static void a_listener_paused_again_at_once_stays_paused(void **state)
{
	struct rig *r = *state;

	rig_listen(r, NULL);
	net_accept_pause(r->net, true);
	net_accept_pause(r->net, false);
	net_accept_pause(r->net, true);
	rig_rest(r);
	assert_int_equal(r->t->peer->dial(&r->peer, &r->at), 0);
	rig_rest(r);
	assert_int_equal(r->nconns, 0);
	net_accept_pause(r->net, false);
	RIG_UNTIL(r, r->nconns == 1);
}

static void beyond_the_limit_a_connection_is_closed_at_once(void **state)
{
	struct rig *r = *state;
	struct peer more[RIG_CONNS] = { 0 };
	char byte;
	ssize_t n = -1;

	rig_listen(r, NULL);
	for (unsigned i = 0; i < RIG_CONNS; i++)
		assert_int_equal(r->t->peer->dial(&more[i], &r->at), 0);
	RIG_UNTIL(r, r->nconns == RIG_CONNS);
	assert_int_equal(r->t->peer->dial(&r->peer, &r->at), 0);
	assert_int_equal(rig_peer_read_all(r, &byte, 1, &n), 0);
	assert_int_equal(net_conns(r->net), RIG_CONNS);
	for (unsigned i = 0; i < RIG_CONNS; i++)
		peer_done(&more[i]);
}

static unsigned open_files(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned n = 0;

	assert_non_null(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static void net_free_closes_every_connection(void **state)
{
	struct rig *r = *state;
	unsigned before = open_files();
	char byte;
	ssize_t n = 0;

	(void)rig_connected(r); /* no accept is armed, so that nothing else makes net_free wait */
	rig_end(r);
	if (r->t->dpdk)
		assert_true(open_files() <= before + 2); /* the device's own are closed, too */
	else
		assert_int_equal(open_files(), before + (r->t->has_files ? 2 : 0)); /* the peer's end and its listener */
	assert_int_equal(rig_peer_read_all(r, &byte, 1, &n), 0);
}

static void net_free_frees_the_listener(void **state)
{
	struct rig *r = *state;
	struct peer p = { 0 };

	rig_listen(r, NULL);
	rig_accepted(r);
	rig_end(r);
	if (r->t->dpdk) { /* nobody is left to refuse it: the process was the host */
		assert_int_equal(r->t->peer->dial(&p, &r->at), 0);
		rig_rest(r);
		assert_int_equal(p.ops->write(&p, SPAN("x")), -EAGAIN);
	} else {
		r->t->peer->unlisten(r->listener);
		r->listener = -1;
		rig_turn(r);
		assert_int_equal(r->t->peer->dial(&p, &r->at), -ECONNREFUSED);
	}
	peer_done(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		RIG_TEST(a_connection_is_accepted_with_its_listener_and_addresses),
		RIG_TEST(an_accepted_connection_knows_its_local_address),
		RIG_TEST(a_paused_listener_accepts_nothing_until_it_goes_on),
		RIG_TEST(a_listener_survives_pausing_and_going_on_at_once),
		RIG_TEST(a_listener_paused_again_at_once_stays_paused),
		RIG_TEST(beyond_the_limit_a_connection_is_closed_at_once),
		RIG_TEST(net_free_closes_every_connection),
		RIG_TEST(net_free_frees_the_listener),
	};

	return RIG_RUN("listen", tests);
}
