/* From which address a connection goes out (F1): of those that its route names, else of the node's, one of the family of the host. */
#include "dataplane/conn_internal.h"

#include <netinet/in.h>
#include "spool/mail/address.h"

/* The same one for a destination as long as the list is the same: receivers judge senders by it. */
static uint32_t first_choice(const struct dest *d, uint32_t n)
{
	return n ? d->tag % n : 0;
}

static bool is_v4(const uint8_t ip[16])
{
	static const uint8_t mapped[12] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff };

	return memcmp(ip, mapped, sizeof(mapped)) == 0;
}

static enum status connect_from(struct out_conn *c, const struct sockaddr *to, const uint8_t ip[16])
{
	struct sockaddr_in v4 = { .sin_family = AF_INET };
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6 };

	memcpy(&v4.sin_addr, ip + 12, 4);
	memcpy(&v6.sin6_addr, ip, 16);
	return net_connect(c->w->net, to, is_v4(ip) ? (struct sockaddr *)&v4 : (struct sockaddr *)&v6, c, &c->conn);
}

static enum status absent(struct out_conn *c, const uint8_t ip[16])
{
	char text[48];
	struct out o = out_of(text, sizeof(text));

	ip_write(ip, &o);
	c->w->source_absent_ns = c->w->now_ns;
	return trail(ST_NOT_FOUND, "the source address %.*s is not one of this node", SPAN_FMT(out_span(&o)));
}

enum status conn_connect(struct out_conn *c, const struct sockaddr *to)
{
	const struct snap_route *route = c->dest->route;
	bool own = route && route->sources.n, dpdk = c->cfg->set->transport == NET_DPDK;
	const struct snapshot *snap = own ? &c->dest->cfg->snap : &c->cfg->snap;
	uint32_t n, at;
	const struct snap_range *s = snap_ranges(snap, own ? route->sources : c->cfg->set->sources, &n);
	const uint8_t *last = NULL;

	at = first_choice(c->dest, n);
	for (uint32_t i = 0; i < n && !dpdk; i++, at = (at + 1) % n) {
		enum status st;

		if (is_v4(s[at].ip) != (to->sa_family == AF_INET))
			continue;
		st = connect_from(c, to, s[at].ip);
		if (st != ST_NOT_FOUND)
			return st;
		last = s[at].ip;
	}
	return last ? absent(c, last) : net_connect(c->w->net, to, NULL, c, &c->conn);
}
