/* Far ends in a simulated network. */
#include "tests/support/net_peer.h"

#include <errno.h>
#include "dataplane/net/net_sim.h"

static struct sim *network;

void peer_sim_network(struct sim *s)
{
	network = s;
}

static int sim_peer_listen(struct sockaddr_storage *ret)
{
	return sim_open(network, ret);
}

static void sim_peer_closed_port(struct sockaddr_storage *ret)
{
	sim_closed_port(network, ret);
}

static int sim_peer_dial(struct peer *p, const struct sockaddr_storage *to)
{
	p->ops = &peer_sim;
	p->end = NULL;
	return sim_dial(network, to, NULL, &p->end);
}

static int sim_peer_accept(struct peer *p, int listener)
{
	p->ops = &peer_sim;
	return sim_accept(network, (uint16_t)listener, &p->end);
}

static ssize_t sim_peer_read(struct peer *p, char *buf, size_t cap)
{
	return sim_read(p->end, buf, cap);
}

static ssize_t sim_peer_write(struct peer *p, struct span s)
{
	return sim_write(p->end, s);
}

static void sim_peer_fin(struct peer *p)
{
	sim_fin(p->end);
}

static void sim_peer_reset(struct peer *p)
{
	sim_reset(p->end);
	p->end = NULL;
}

static void sim_peer_close(struct peer *p)
{
	if (p->end)
		sim_close(p->end);
	p->end = NULL;
}

static void sim_peer_local(struct peer *p, struct sockaddr_storage *ret)
{
	sim_local(p->end, ret);
}

static void sim_peer_unlisten(int listener)
{
	sim_open_end(network, (uint16_t)listener);
}

const struct peer_ops peer_sim = {
	.listen = sim_peer_listen,
	.closed_port = sim_peer_closed_port,
	.dial = sim_peer_dial,
	.accept = sim_peer_accept,
	.read = sim_peer_read,
	.write = sim_peer_write,
	.fin = sim_peer_fin,
	.reset = sim_peer_reset,
	.close = sim_peer_close,
	.local = sim_peer_local,
	.unlisten = sim_peer_unlisten,
};
