#include "dataplane/admit.h"

#include <stdio.h>
#include "dataplane/clients.h"
#include "dataplane/decide.h"
#include "dataplane/dictionary.h"
#include "dataplane/inbound.h"
#include "dataplane/policy/connections.h"
#include "spool/base/clock.h"
#include "spool/base/counters.h"
#include "spool/mail/rule_counts.h"

static void log_client(const struct session *s, const char *event, const char *why)
{
	char ip[48];
	struct out o = out_of(ip, sizeof(ip));
	struct logline l;

	ip_write(s->facts.client_ip, &o);
	log_begin(&l, LOG_LVL_INFO, event);
	log_span(&l, "client", out_span(&o));
	log_str(&l, "why", why);
	log_emit(&l);
}

/* ---- limits ---- */

static uintptr_t count(struct map *m, const uint8_t ip[16], int change)
{
	struct span key = span_of(ip, 16);
	uintptr_t n = (uintptr_t)map_get(m, key);

	if (!n && change < 0)
		return 0;
	n += (uintptr_t)change;
	if (n == 0)
		map_del(m, key);
	else if (change && map_set(m, key, (void *)n) != ST_OK)
		return 0; /* without memory the client is not counted: never refused for our own trouble */
	return n;
}

/* The /24 of an IPv4 address, the /64 of an IPv6 one: about what one owner has. */
static void network_of(const uint8_t ip[16], uint8_t ret[16])
{
	static const uint8_t mapped[12] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff };
	size_t keep = memcmp(ip, mapped, sizeof(mapped)) == 0 ? 15 : 8;

	memset(ret, 0, 16);
	memcpy(ret, ip, keep);
}

void admit_count(struct session *s, int change)
{
	uint8_t net[16];

	if (change < 0 && !s->counted)
		return;
	s->counted = change > 0;
	network_of(s->facts.client_ip, net);
	count(s->w->inbound->per_client, s->facts.client_ip, change);
	count(s->w->inbound->per_network, net, change);
}

static enum conn_finding look(const struct session *s)
{
	const struct inbound *in = s->w->inbound;
	struct conn_counts n = { .all = in->nsessions, .all_max = s->cfg->set->conns_max };
	uint8_t net[16];

	network_of(s->facts.client_ip, net);
	if (n.all_max > s->w->gate.sessions_max)
		n.all_max = s->w->gate.sessions_max;
	n.client = (uint32_t)count(in->per_client, s->facts.client_ip, 0);
	n.network = (uint32_t)count(in->per_network, net, 0);
	return policy_connection(&s->facts, &n);
}

/* Who it was; in a flood one line a second says it. */
static void too_many(struct session *s, enum conn_finding why, struct reply *r)
{
	static const struct {
		const char *enhanced, *text;
	} row[] = { [CONN_TOO_MANY] = { "4.3.2", "" }, [CONN_TOO_MANY_OF_CLIENT] = { "4.7.0", " from your host" }, [CONN_TOO_MANY_OF_NETWORK] = { "4.7.0", " from your network" } };
	struct inbound *in = s->w->inbound;
	char what[64];

	reply_set(r, 421, row[why].enhanced, "%s: too many connections%s", snap_cstr(&s->cfg->snap, s->cfg->set->hostname), row[why].text);
	counter_add(C_SESSIONS_REFUSED_OWN, s->facts.net != NULL);
	if (in->said_ns && s->w->now_ns - in->said_ns < NS_PER_S)
		return;
	in->said_ns = s->w->now_ns;
	snprintf(what, sizeof(what), "too many%s, class %s", row[why].text, class_words[policy_class(&s->facts)]);
	log_client(s, "connection-refused", what);
}

bool admit_refusal(struct session *s, struct reply *r)
{
	const char *host = snap_cstr(&s->cfg->snap, s->cfg->set->hostname);
	enum conn_finding why = look(s);

	if (!worker_store(s->w))
		reply_set(r, 421, "4.3.0", "%s: the spool of this node is out of order, try another one", host);
	else if (s->w->stopping)
		reply_set(r, 421, "4.3.2", "%s: shutting down, try another node", host);
	else if (why != CONN_GOOD)
		too_many(s, why, r);
	else if (!dictionary_refuses(s->w, &s->facts))
		return false;
	else {
		counter_add(C_BAD_REFUSED, 1);
		rule_count(RULE_DICTIONARY, policy_class(&s->facts), POLICY_DEFER);
		dictionary_refusal(&s->facts, r);
		policy_help(&s->cfg->snap, RULE_DICTIONARY, r);
	}
	return true;
}

/* ---- balancers ---- */

static void proxy_refuse(struct session *s, const char *why)
{
	counter_add(C_PROXY_REFUSED, 1);
	log_client(s, "proxy-refused", why);
	s->waits = WAITS_CLOSE;
	net_close(s->conn);
}

bool admit_balancer(struct session *s)
{
	static const uint8_t nobody[16];

	if (memcmp(s->facts.client_ip, nobody, sizeof(nobody)) == 0) { /* it was reset before it was accepted, as health checks are */
		s->waits = WAITS_CLOSE;
		net_abort(s->conn);
		return false;
	}
	if (!snap_is_balancer(&s->cfg->snap, s->facts.client_ip)) {
		proxy_refuse(s, "not in balancers");
		return false;
	}
	s->waits = WAITS_PROXY;
	return true;
}

bool admit_proxy(struct session *s, struct net_event *ev)
{
	switch (proxy_take(&s->proxy, ev->data, &ev->used)) {
	case PROXY_MORE:
		return false;
	case PROXY_BAD:
		ev->used = ev->data.n;
		proxy_refuse(s, s->proxy.why);
		return false;
	case PROXY_CLIENT:
		counter_add(C_PROXIED, 1);
		memcpy(s->facts.client_ip, s->proxy.ip, sizeof(s->facts.client_ip));
		s->client_port = s->proxy.port;
		break;
	case PROXY_LOCAL:
		break;
	}
	s->waits = WAITS_NOTHING;
	net_preface_taken(s->conn);
	return true;
}

/* ---- XCLIENT ---- */

static void xclient_log(const struct session *s, const struct smtp_xclient *x)
{
	char from[48], to[48];
	struct out f = out_of(from, sizeof(from)), t = out_of(to, sizeof(to));
	struct logline l;

	ip_write(s->facts.client_ip, &f);
	ip_write(x->has & XCLIENT_ADDR ? x->addr : s->facts.client_ip, &t);
	log_begin(&l, LOG_LVL_INFO, "xclient");
	log_span(&l, "client", out_span(&f));
	log_span(&l, "becomes", out_span(&t));
	if (x->login.n)
		log_span(&l, "user", x->login);
	log_emit(&l);
}

static void client_becomes(struct session *s, const struct smtp_xclient *x)
{
	if (x->has & XCLIENT_PORT)
		s->client_port = x->port;
	if (!(x->has & XCLIENT_ADDR))
		return;
	admit_count(s, -1);
	memcpy(s->facts.client_ip, x->addr, sizeof(s->facts.client_ip));
	clients_session(s);
	admit_count(s, 1);
}

void admit_xclient(struct session *s)
{
	const struct smtp_xclient *x = s->smtp.xclient;
	struct reply r;

	if (!x) {
		counter_add(C_XCLIENT_REFUSED, 1);
		log_client(s, "xclient-refused", "not in xclient_clients");
		reply_set(&r, 550, "5.7.0", "XCLIENT is not for you");
		smtp_server_reply(&s->smtp, &r);
		return;
	}
	counter_add(C_XCLIENT, 1);
	xclient_log(s, x);
	client_becomes(s, x);
	if (admit_refusal(s, &r)) {
		counter_add(C_SESSIONS_REFUSED, 1);
		smtp_server_reply(&s->smtp, &r);
		return;
	}
	smtp_server_xclient_ok(&s->smtp);
	s->facts.auth_user = s->smtp.auth_user;
	decide_other_client(s);
}

/* ---- the greeting ---- */

bool admit_waits(struct session *s)
{
	if (!s->banner_delay_ns || s->facts.net)
		return false;
	s->waits = WAITS_BANNER;
	return true;
}

void admit_greet(struct session *s)
{
	s->waits = WAITS_NOTHING;
	s->banner_delay_ns = 0;
}

void admit_early(struct session *s, struct net_event *ev)
{
	struct reply r;

	ev->used = ev->data.n;
	counter_add(C_EARLY_TALKERS, 1);
	log_client(s, "early-talker", "data before the greeting");
	reply_set(&r, 554, "5.5.0", "%s: you talked before the greeting", snap_cstr(&s->cfg->snap, s->cfg->set->hostname));
	smtp_server_refuse(&s->smtp, &r);
	inbound_close(s);
}
