/* Ports of the simulated network, and far ends that are no net's. */
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include "dataplane/net/net_sim_internal.h"

/* ---- ports ---- */

struct sim_port *sim_port_find(struct sim *s, uint16_t port)
{
	for (unsigned i = 0; i < SIM_PORTS; i++)
		if (port && s->port[i].port == port)
			return &s->port[i];
	return NULL;
}

enum status sim_port_add(struct sim *s, uint16_t port, struct sim_port **ret)
{
	for (unsigned i = 0; i < SIM_PORTS; i++)
		if (!s->port[i].port) {
			s->port[i] = (struct sim_port){ .port = port };
			*ret = &s->port[i];
			return ST_OK;
		}
	return trail(ST_FULL, "the simulated network has %d ports", SIM_PORTS);
}

void sim_port_end(struct sim *s, struct sim_port *p)
{
	struct sim_link *l;

	STAILQ_FOREACH(l, &s->links, entry)
		if (l->end[1].state == END_WAITING && l->end[1].port == p->port)
			sim_end_leave(&l->end[1], true);
	*p = (struct sim_port){ 0 };
}

static void pack(const uint8_t ip[16], uint16_t port, struct sockaddr_storage *ret)
{
	struct sockaddr_in *a = (struct sockaddr_in *)(void *)ret;

	memset(ret, 0, sizeof(*ret));
	a->sin_family = AF_INET;
	a->sin_port = htons(port);
	memcpy(&a->sin_addr, ip + 12, 4);
}

void sim_closed_port(struct sim *s, struct sockaddr_storage *ret)
{
	static const uint8_t loopback[16] = { [12] = 127, [15] = 1 };

	pack(loopback, s->next_port++, ret);
}

uint16_t sim_open(struct sim *s, struct sockaddr_storage *ret)
{
	uint16_t port = s->next_port;
	struct sim_port *p;

	sim_closed_port(s, ret);
	CHECK(sim_port_add(s, port, &p) == ST_OK);
	return port;
}

void sim_open_end(struct sim *s, uint16_t port)
{
	struct sim_port *p = sim_port_find(s, port);

	if (p)
		sim_port_end(s, p);
}

/* ---- ends ---- */

int sim_dial(struct sim *s, const struct sockaddr_storage *to, const struct sockaddr_storage *from, struct sim_end **ret)
{
	uint8_t ip[16];
	uint16_t port;
	struct sim_link *l;

	net_unpack(to, ip, &port);
	if (!sim_port_find(s, port))
		return -ECONNREFUSED;
	l = sim_link_new(s, (const struct sockaddr *)to, (const struct sockaddr *)from);
	CHECK(l);
	l->end[0].state = END_SOCKET;
	*ret = &l->end[0];
	return 0;
}

int sim_accept(struct sim *s, uint16_t port, struct sim_end **ret)
{
	struct sim_link *l;

	STAILQ_FOREACH(l, &s->links, entry)
		if (l->end[1].state == END_WAITING && l->end[1].port == port) {
			l->end[1].state = END_SOCKET;
			*ret = &l->end[1];
			return 0;
		}
	return -EAGAIN;
}

ssize_t sim_read(struct sim_end *e, char *buf, size_t cap)
{
	struct sim_event *ev = STAILQ_FIRST(&e->held);
	size_t n;

	if (!ev)
		return e->broken ? -ECONNRESET : -EAGAIN;
	if (ev->type != EV_DATA) /* the end stays the end */
		return ev->type == EV_EOF ? 0 : -ECONNRESET;
	n = ev->n - ev->off < cap ? ev->n - ev->off : cap;
	memcpy(buf, ev->data + ev->off, n);
	ev->off += n;
	if (ev->off == ev->n) {
		STAILQ_REMOVE_HEAD(&e->held, held);
		free(ev);
	}
	sim_taken(e, n);
	return (ssize_t)n;
}

ssize_t sim_write(struct sim_end *e, struct span data)
{
	size_t room = sim_room(e, data.n);

	if (e->broken)
		return -ECONNRESET;
	if (!room)
		return -EAGAIN;
	data.n = room;
	e->pending[0] = data;
	e->npending = 1;
	e->next = 0;
	sim_pump(e);
	e->npending = e->next = 0; /* a cut may have left something, which is lost */
	return (ssize_t)data.n;
}

void sim_fin(struct sim_end *e)
{
	if (!e->fin_sent)
		sim_to_peer(e, EV_EOF);
	e->fin_sent = true;
}

static bool has_unread(const struct sim_end *e)
{
	const struct sim_event *ev = STAILQ_FIRST(&e->held);

	return ev && ev->type == EV_DATA;
}

static void drop_held(struct sim_end *e)
{
	struct sim_event *ev;

	while ((ev = STAILQ_FIRST(&e->held))) {
		STAILQ_REMOVE_HEAD(&e->held, held);
		free(ev);
	}
}

void sim_reset(struct sim_end *e)
{
	drop_held(e);
	sim_end_leave(e, true);
}

void sim_close(struct sim_end *e)
{
	bool reset = has_unread(e);

	drop_held(e);
	sim_end_leave(e, reset);
}

void sim_local(const struct sim_end *e, struct sockaddr_storage *ret)
{
	pack(e->ip, e->port, ret);
}
