#include "dataplane/route.h"

#include "spool/base/hash.h"
#include "spool/mail/address.h"

struct span route_address(const struct snapshot *snap, struct span rcpt)
{
	struct span postmaster = snap_span(snap, snap->h->settings.postmaster);

	return span_eq_nocase(rcpt, SPAN("postmaster")) && postmaster.n ? postmaster : rcpt;
}

/* Routes to the same hosts with another demand for TLS do not share connections. */
static void key_hosts(const struct snapshot *snap, const struct snap_route *r, struct out *key)
{
	static const char *const tls[] = { [SNAP_TLS_NEVER] = " tls=never", [SNAP_TLS_MAY] = "", [SNAP_TLS_MUST] = " tls=must",
		[SNAP_TLS_VERIFY] = " tls=verify" };
	uint32_t n;
	const struct snap_host *h = snap_hosts(snap, r->hosts, &n);

	out_str(key, r->kind == ROUTE_LMTP ? "lmtp:" : "smtp:");
	for (uint32_t i = 0; i < n; i++) {
		if (i)
			out_char(key, ',');
		out_add(key, snap_span(snap, h[i].name));
		out_char(key, ':');
		out_u64(key, h[i].port);
	}
	out_str(key, tls[r->tls]);
	if (r->final_)
		out_str(key, " final");
}

/* Nor do those that come from other addresses. */
static void key_sources(const struct snapshot *snap, const struct snap_route *r, struct out *key)
{
	uint32_t n;
	const struct snap_range *s = snap_ranges(snap, r->sources, &n);

	for (uint32_t i = 0; i < n; i++) {
		out_str(key, i ? "," : " from=");
		ip_write(s[i].ip, key);
	}
}

/* Nor do those that show another certificate. */
static void key_certificate(const struct snapshot *snap, const struct snap_route *r, struct out *key)
{
	struct span cert = snap_span(snap, r->client_certificate);

	if (cert.n)
		out_fmt(key, " certificate=%016llx", (unsigned long long)XXH3_64bits(cert.p, cert.n));
}

/* Nor do those that another login is for: mail must not come as somebody else's. */
static void key_login(const struct snapshot *snap, const struct snap_route *r, struct out *key)
{
	struct span user = snap_span(snap, r->user), file = snap_span(snap, r->password_file);

	if (user.n)
		out_fmt(key, " login=%016llx", (unsigned long long)(XXH3_64bits(user.p, user.n) * 31 + XXH3_64bits(file.p, file.n)));
}

/* C8: the route of a single address that has moved, else the domain's. */
static enum status find_route(const struct snapshot *snap, const struct tables *tables, struct span local, struct span domain, const struct snap_route **ret)
{
	const struct snap_route *moved = snap_find_moved(snap, domain);
	char key[ADDRESS_LOCAL_MAX + 1];
	struct out o = out_of(key, sizeof(key));
	const struct tables_domain *list;

	*ret = snap_find_route(snap, domain);
	if (!moved)
		return ST_OK;
	list = tables_find_domain(tables, snap_span(snap, moved->name));
	if (!list)
		return trail(ST_AGAIN, "The address tables of %.*s are not available", SPAN_FMT(domain));
	if (address_local_key(local, &o) == ST_OK && tables_find_alias(tables, list, out_span(&o)))
		*ret = moved;
	return ST_OK;
}

enum status route_rcpt(const struct snapshot *snap, const struct tables *tables, struct span rcpt, enum hop_tls demand, char *buf, struct next_hop *ret)
{
	struct out key = out_of(buf, ROUTE_KEY_MAX);
	static const char *const demanded[] = { [HOP_TLS_ROUTE] = "", [HOP_TLS_REQUIRED] = " requiretls", [HOP_TLS_OPTIONAL] = " tls-optional" };
	char name[ADDRESS_DOMAIN_MAX + 1];
	struct out domain = out_of(name, sizeof(name));
	struct address a;
	enum status st = address_parse(route_address(snap, rcpt), ADDRESS_UTF8 | ADDRESS_ALLOW_BARE, &a);

	if (st != ST_OK)
		return st;
	if (a.domain.n == 0)
		return trail(ST_INVALID, "no postmaster address is configured");
	if (a.is_literal)
		out_add(&domain, a.domain);
	else if ((st = address_domain_key(a.domain, &domain)) != ST_OK)
		return st;
	*ret = (struct next_hop){ .kind = ROUTE_MX, .demand = demand, .tls = (enum snap_tls)snap->h->settings.outbound_tls };
	st = find_route(snap, tables, a.local, out_span(&domain), &ret->route);
	if (st != ST_OK)
		return st;
	if (ret->route) {
		ret->kind = (enum snap_route_kind)ret->route->kind;
		ret->tls = (enum snap_tls)ret->route->tls;
		ret->final = ret->route->final_ || ret->kind == ROUTE_LMTP;
	}
	if (ret->kind == ROUTE_MX) {
		out_str(&key, "mx:");
		out_add(&key, out_span(&domain));
		ret->domain = span_of(buf + 3, domain.n);
	} else {
		key_hosts(snap, ret->route, &key);
	}
	if (ret->route) {
		key_sources(snap, ret->route, &key);
		key_certificate(snap, ret->route, &key);
		key_login(snap, ret->route, &key);
	}
	out_str(&key, demanded[demand]);
	if (key.over)
		return trail(ST_TOO_BIG, "the route of %.*s has too many hosts", SPAN_FMT(rcpt));
	ret->key = out_span(&key);
	return ST_OK;
}
