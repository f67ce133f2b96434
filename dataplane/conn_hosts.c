/* From a destination's name to an address to connect to: MX, addresses, and what TLS each host must have; one after the other until a session is of use. */
#include "dataplane/conn_internal.h"

#include <netinet/in.h>
#include "spool/base/counters.h"

void conn_release_answers(struct out_conn *c)
{
	if (c->query)
		dns_cancel(c->query);
	c->query = NULL;
	if (c->addr)
		dns_answer_release(c->addr);
	c->addr = NULL;
}

void conn_host_failed(struct out_conn *c, const struct reply *why)
{
	if (!c->have_failure || !reply_is_permanent(why) || !reply_is_temporary(&c->failure))
		c->failure = *why;
	c->have_failure = true;
}

/* No host is left to try. While other connections of the destination work it is not the destination's fault. */
static void give_up(struct out_conn *c)
{
	struct dest *d = c->dest;
	struct reply why = c->failure;
	struct logline l;
	char text[REPLY_TEXT_MAX + 32];
	struct out o = out_of(text, sizeof(text));

	counter_add(C_OUT_CONN_FAILED, 1);
	reply_line(&why, &o);
	log_begin(&l, LOG_LVL_INFO, "unreachable");
	log_str(&l, "dest", d->key);
	log_span(&l, "reply", out_span(&o));
	log_str(&l, "tls_policy", c->peer.decision.name);
	log_emit(&l);
	conn_free(c);
	outbound_conn_refused(d);
	if (d->nconns == d->nconnecting)
		outbound_dest_failed(d, &why);
}

/* ---- finding a host ---- */

/* What the connection to c->host must be is known: connects, or goes on with the next host. */
static void judge_host(struct out_conn *c)
{
	if (c->peer.decision.refuse) {
		conn_host_failed(c, &c->peer.decision.reply);
		conn_next_host(c);
		return;
	}
	conn_next_addr(c);
}

void conn_on_peer(void *ctx)
{
	struct out_conn *c = ctx;

	if (c->host_asked)
		judge_host(c);
	else
		conn_next_host(c);
}

/* RFC 7672 2.2.1: the names of mail exchangers must be as trustworthy as their addresses; those of routes are the operator's. */
static void ask_peer(struct out_conn *c)
{
	bool secure = c->dest->kind != ROUTE_MX || (c->mx && c->mx->secure);

	c->host_asked = true;
	if (peer_host(&c->peer, c->host, c->port, secure, c->addr) == ST_OK)
		judge_host(c);
}

static void take_addresses(struct out_conn *c, struct dns_answer *a)
{
	c->addr = a;
	c->next_addr = 0;
	if (a->result != DNS_FOUND) {
		bool later = a->result == DNS_TEMPFAIL;
		struct reply r;

		reply_set(&r, later ? 451 : 550, later ? "4.4.3" : "5.4.4", "Address of %s: %s", c->host, a->text);
		conn_host_failed(c, &r);
		conn_next_host(c);
		return;
	}
	ask_peer(c);
}

static void on_addresses(void *ctx, struct dns_answer *a)
{
	struct out_conn *c = ctx;

	c->query = NULL;
	take_addresses(c, a);
}

/* The addresses of c->host: itself when it is an address. */
static void resolve_host(struct out_conn *c)
{
	struct dns_answer *a;
	enum status st;

	if (ip_parse(span_str(c->host), c->ip) == ST_OK) {
		c->next_addr = UINT32_MAX; /* next_addr tries c->ip, once */
		ask_peer(c);
		return;
	}
	st = dns_addr(c->w->dns, span_str(c->host), on_addresses, c, &a, &c->query);
	if (st == ST_OK) {
		take_addresses(c, a);
	} else if (st != ST_AGAIN) {
		c->have_failure = true;
		reply_set(&c->failure, 451, "4.4.3", "Address of %s: %s", c->host, trail_text());
		conn_next_host(c);
	}
}

static void on_mx(void *ctx, struct dns_answer *a)
{
	struct out_conn *c = ctx;

	c->query = NULL;
	c->mx = a;
	conn_next_host(c);
}

/* False when there is no MX to use; the reason is in failure. */
static bool mx_usable(struct out_conn *c)
{
	switch (c->mx->result) {
	case DNS_FOUND:
		return true;
	case DNS_NULL_MX:
		reply_set(&c->failure, 556, "5.1.10", "%.*s takes no mail (null MX)", SPAN_FMT(c->dest->domain));
		return false;
	case DNS_NXDOMAIN:
	case DNS_NODATA:
		reply_set(&c->failure, 550, "5.1.2", "%.*s: %s", SPAN_FMT(c->dest->domain), c->mx->text);
		return false;
	case DNS_TEMPFAIL:
		break;
	}
	reply_set(&c->failure, 451, "4.4.3", "MX of %.*s: %s", SPAN_FMT(c->dest->domain), c->mx->text);
	return false;
}

/* How many exchangers may be used: those that are not better preferred than ourselves would send it back to us (B1, RFC 5321 5.1). */
static uint32_t mx_better(struct out_conn *c)
{
	struct span host = snap_span(&c->cfg->snap, c->cfg->set->hostname);
	uint32_t own = 0, n = 0;

	while (own < c->mx->nmx && !span_eq_nocase(span_str(c->mx->mx[own].name), host))
		own++;
	if (own == c->mx->nmx)
		return own;
	while (c->mx->mx[n].preference < c->mx->mx[own].preference)
		n++;
	if (!n)
		reply_set(&c->failure, 550, "5.4.6", "%.*s: this relay is its best preferred mail exchanger, and has no route for it", SPAN_FMT(c->dest->domain));
	return n;
}

static void set_host(struct out_conn *c, struct span name, uint16_t port)
{
	struct out o = out_of(c->host, sizeof(c->host) - 1);

	out_add(&o, name);
	c->host[o.n] = '\0';
	c->port = port;
	c->next_host++;
	c->no_tls = false;
	resolve_host(c);
}

static void next_mx(struct out_conn *c)
{
	uint16_t port = (uint16_t)c->cfg->set->smtp_port;
	enum status st;

	if (c->dest->domain.n && c->dest->domain.p[0] == '[') { /* an address literal has no MX */
		if (c->next_host)
			give_up(c);
		else
			set_host(c, c->dest->domain, port);
		return;
	}
	if (!c->mx) {
		st = dns_mx(c->w->dns, c->dest->domain, on_mx, c, &c->mx, &c->query);
		if (st == ST_AGAIN)
			return;
		if (st != ST_OK) {
			reply_set(&c->failure, 451, "4.4.3", "MX of %.*s: %s", SPAN_FMT(c->dest->domain), trail_text());
			give_up(c);
			return;
		}
	}
	if ((c->next_host == 0 && !mx_usable(c)) || c->next_host >= mx_better(c))
		give_up(c);
	else if (peer_domain(&c->peer) == ST_OK)
		set_host(c, span_str(c->mx->mx[c->next_host].name), port);
}

/* Goes on with the next host of the destination. */
void conn_next_host(struct out_conn *c)
{
	const struct snap_host *hosts;
	uint32_t n = 0;

	c->phase = CONN_RESOLVING;
	c->host_asked = false;
	conn_release_answers(c);
	if (c->dest->kind == ROUTE_MX) {
		next_mx(c);
		return;
	}
	hosts = snap_hosts(&c->dest->cfg->snap, c->dest->route->hosts, &n);
	if (c->next_host >= n)
		give_up(c);
	else
		set_host(c, snap_span(&c->dest->cfg->snap, hosts[c->next_host].name), (uint16_t)hosts[c->next_host].port);
}

void conn_again(struct out_conn *c)
{
	struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_port = htons(c->port) };
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_port = htons(c->port) };
	static const uint8_t mapped[12] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff };
	bool is4 = memcmp(c->ip, mapped, sizeof(mapped)) == 0;
	enum status st;

	memcpy(&v4.sin_addr, c->ip + 12, 4);
	memcpy(&v6.sin6_addr, c->ip, 16);
	c->phase = CONN_CONNECTING;
	c->tls_failed = c->starting_tls = c->no_requiretls = false;
	conn_deadline(c, c->cfg->set->connect_timeout_ns);
	st = conn_connect(c, is4 ? (struct sockaddr *)&v4 : (struct sockaddr *)&v6);
	if (st == ST_OK)
		return;
	c->conn = NULL;
	c->have_failure = true;
	reply_set(&c->failure, 451, st == ST_NOT_FOUND ? "4.3.5" : "4.4.1", "Connection to %s: %s", c->host, trail_text());
	conn_next_addr(c);
}

void conn_next_addr(struct out_conn *c)
{
	if (c->next_addr == UINT32_MAX) {
		c->next_addr--;
		conn_again(c);
	} else if (c->addr && c->next_addr < c->addr->naddr) {
		memcpy(c->ip, c->addr->addr[c->next_addr++], 16);
		conn_again(c);
	} else {
		conn_next_host(c);
	}
}

