/* The simulated network behind transport.h. */
#include <stdlib.h>
#include "dataplane/net/net_sim_internal.h"

static struct sim_end *end_of(struct net_conn *c)
{
	struct sim_conn *sc = conn_io(c);

	return sc->end;
}

static void take(struct net_conn *c, struct sim_end *e)
{
	struct sim_conn *sc = conn_io(c);

	sc->end = e;
	e->state = END_CONN;
	e->conn = c;
}

void sim_net_accept(struct sim_end *e)
{
	struct sim_port *p = sim_port_find(e->link->sim, e->port);
	struct sim_end *from = sim_peer(e);
	struct net_conn *c;

	if (e->state != END_WAITING || !p || !p->net || p->net->paused)
		return;
	c = up_accepted(p->net->net, p->listener);
	if (!c) {
		sim_end_leave(e, false);
		return;
	}
	take(c, e);
	memcpy(c->peer_ip, from->ip, 16);
	c->peer_port = from->port;
	memcpy(c->local_ip, e->ip, 16);
	c->local_port = e->port;
	up_open(c);
}

/* What waits for this net is accepted, but not from inside this call. */
static void accept_waiting(struct sim_net *sn)
{
	struct sim_link *l;

	STAILQ_FOREACH(l, &sn->sim->links, entry) {
		struct sim_port *p = sim_port_find(sn->sim, l->end[1].port);

		if (l->end[1].state == END_WAITING && p && p->net == sn)
			sim_event_add(EV_ACCEPT, &l->end[1], sn->sim->now_ns);
	}
}

static enum status start(struct net *n)
{
	struct sim_net *sn;

	if (!n->cfg.sim)
		return trail(ST_INVALID, "a simulated network is needed");
	sn = calloc(1, sizeof(*sn));
	if (!sn)
		return ST_NOMEM;
	sn->sim = n->cfg.sim;
	sn->net = n;
	sn->wake_ns = UINT64_MAX;
	LIST_INSERT_HEAD(&sn->sim->nets, sn, entry);
	n->transport = sn;
	return ST_OK;
}

static void stop(struct net *n)
{
	struct sim_net *sn = n->transport;

	for (unsigned i = 0; i < SIM_PORTS; i++) {
		struct sim_port *p = &sn->sim->port[i];

		if (!p->port || p->net != sn)
			continue;
		p->net = NULL;
		if (p->is_net_own)
			sim_port_end(sn->sim, p);
	}
	LIST_REMOVE(sn, entry);
	free(sn);
}

/* fd, or with -1 port, is a port of the simulated network, opened already or not. */
static enum status do_listen(struct net *n, const struct net_listen *l, uint32_t listener)
{
	struct sim_net *sn = n->transport;
	uint16_t port = l->fd < 0 ? l->port : (uint16_t)l->fd;
	struct sim_port *p = sim_port_find(sn->sim, port);
	enum status st;

	if (!p) {
		st = sim_port_add(sn->sim, port, &p);
		if (st != ST_OK)
			return st;
		p->is_net_own = true;
	}
	p->net = sn;
	p->listener = listener;
	accept_waiting(sn);
	return ST_OK;
}

static void do_accept_pause(struct net *n, bool pause)
{
	struct sim_net *sn = n->transport;

	sn->paused = pause;
	if (!pause)
		accept_waiting(sn);
}

static enum status do_connect(struct net_conn *c, const struct sockaddr *to, const struct sockaddr *source)
{
	struct sim_net *sn = c->net->transport;
	struct sim_link *l = sim_link_new(sn->sim, to, source);

	if (!l)
		return ST_NOMEM;
	take(c, &l->end[0]);
	return ST_OK;
}

static void do_recv(struct net_conn *c, bool on)
{
	struct sim_end *e = end_of(c);

	e->recv_on = on;
	if (on && !STAILQ_EMPTY(&e->held))
		sim_event_add(EV_RECV, e, e->link->sim->now_ns);
}

static void do_send(struct net_conn *c, const struct span *v, unsigned n)
{
	struct sim_end *e = end_of(c);

	CHECK(!e->npending && n <= NET_SLICES_MAX);
	memcpy(e->pending, v, n * sizeof(*v));
	e->npending = n;
	e->next = 0;
	sim_pump(e);
}

static void do_shutdown(struct net_conn *c)
{
	struct sim_end *e = end_of(c);

	e->fin_sent = true;
	sim_to_peer(e, EV_EOF);
}

static void do_release(struct net_conn *c, bool reset)
{
	sim_end_leave(end_of(c), reset);
	up_released(c);
}

static void do_wake(struct net *n, uint64_t at_ns)
{
	struct sim_net *sn = n->transport;

	sn->wake_ns = at_ns;
}

const struct transport_ops net_sim_ops = {
	.conn_bytes = sizeof(struct sim_conn),
	.start = start,
	.stop = stop,
	.listen = do_listen,
	.accept_pause = do_accept_pause,
	.connect = do_connect,
	.recv = do_recv,
	.send = do_send,
	.shutdown = do_shutdown,
	.release = do_release,
	.wake = do_wake,
};
