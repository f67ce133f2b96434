#include "dataplane/terms.h"

#include <time.h>
#include "dataplane/route.h"
#include "spool/base/clock.h"

bool terms_on_hold(const struct snap_route *route, uint64_t now_ns)
{
	return route && route->hold_until_ns > now_ns;
}

uint64_t terms_born(const struct snap_route *route, uint64_t arrived_ns, uint64_t now_ns)
{
	return route && route->hold_until_ns <= now_ns && route->hold_until_ns > arrived_ns ? route->hold_until_ns : arrived_ns;
}

uint64_t terms_life(const struct snap_settings *set, const struct snap_route *route, bool is_report)
{
	uint64_t node = is_report ? set->bounce_life_ns : set->queue_life_ns;

	return route && route->life_ns ? route->life_ns : node;
}

uint64_t terms_notice(const struct snap_settings *set, const struct snap_route *route)
{
	return route && route->notice_ns != UINT64_MAX ? route->notice_ns : set->delay_notice_ns;
}

void terms_hold_text(const struct snapshot *snap, const struct snap_route *route, struct out *o)
{
	struct span reason = snap_span(snap, route->hold_reason);
	time_t at = (time_t)(route->hold_until_ns / NS_PER_S);
	char text[32];
	struct tm tm;

	out_str(o, "on hold");
	if (route->hold_until_ns != UINT64_MAX && gmtime_r(&at, &tm) && strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm)) {
		out_str(o, " until ");
		out_str(o, text);
	}
	if (reason.n)
		out_str(o, ": ");
	out_add(o, reason);
}

bool terms_takes(const struct snapshot *snap, const struct tables *tables, struct span rcpt, uint64_t size, struct reply *ret)
{
	char key[ROUTE_KEY_MAX];
	struct next_hop hop;

	if (route_rcpt(snap, tables, rcpt, HOP_TLS_ROUTE, key, &hop) != ST_OK || !hop.route || !hop.route->size_max || size <= hop.route->size_max)
		return true; /* what is wrong with the address is said elsewhere */
	reply_set(ret, 552, "5.3.4", "%.*s: its destination takes messages of at most %llu bytes", SPAN_FMT(rcpt), (unsigned long long)hop.route->size_max);
	return false;
}

bool terms_envelope_takes(const struct snapshot *snap, const struct tables *tables, const struct envelope *env, uint64_t size, struct reply *ret)
{
	for (uint32_t i = 0; i < env->nrcpt; i++)
		if (terms_takes(snap, tables, env->rcpt[i].addr, size, ret))
			return true;
	return !env->nrcpt;
}
