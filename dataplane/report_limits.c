#include "dataplane/report_limits.h"

#include <stdlib.h>
#include "spool/base/map.h"

enum { KEY_MAX = 2 + 16 + 512 };

struct report_limits {
	struct map *count;      /* key -> number */
	uint64_t window_ns;     /* its begin; 0: none yet */
	uint32_t total;
};

enum status report_limits_new(struct report_limits **ret)
{
	struct report_limits *l = calloc(1, sizeof(*l));

	if (!l)
		return ST_NOMEM;
	if (map_new(&l->count) != ST_OK) {
		free(l);
		return ST_NOMEM;
	}
	*ret = l;
	return ST_OK;
}

void report_limits_free(struct report_limits *l)
{
	if (!l)
		return;
	map_free(l->count);
	free(l);
}

static void turn_window(struct report_limits *l, const struct report_ask *ask)
{
	struct map *fresh;

	if (l->window_ns && ask->now_ns - l->window_ns < ask->set->reports_period_ns)
		return;
	if (map_new(&fresh) != ST_OK)
		return; /* the old counts go on: fewer reports, not more */
	map_free(l->count);
	l->count = fresh;
	l->total = 0;
	l->window_ns = ask->now_ns;
}

/* "s" address, "h" host, "d" host for double bounces, "r" host and address. Addresses without case: what differs in it only is one mailbox nearly everywhere. */
static struct span make_key(char kind, const uint8_t *host, struct span addr, char buf[KEY_MAX])
{
	struct out o = out_of(buf, KEY_MAX);

	out_char(&o, kind);
	if (host)
		out_add(&o, span_of(host, 16));
	for (size_t i = 0; i < addr.n && i < 512; i++)
		out_char(&o, addr.p[i] >= 'A' && addr.p[i] <= 'Z' ? (char)(addr.p[i] + 'a' - 'A') : addr.p[i]);
	return out_span(&o);
}

static uintptr_t counted(const struct report_limits *l, struct span key)
{
	return (uintptr_t)map_get(l->count, key);
}

static bool is_over(const struct report_limits *l, struct span key, uint32_t limit)
{
	return limit && counted(l, key) >= limit;
}

static const char *limit_reached(const struct report_limits *l, const struct report_ask *ask, struct span first, struct span second)
{
	const struct snap_settings *set = ask->set;

	if (ask->double_bounce && counted(l, second))
		return "duplicate";
	if (set->reports_total && l->total >= set->reports_total)
		return "reports.total";
	if (is_over(l, first, ask->double_bounce ? set->reports_double : set->reports_per_host))
		return ask->double_bounce ? "reports.double" : "reports.per_host";
	if (!ask->double_bounce && is_over(l, second, set->reports_per_sender))
		return "reports.per_sender";
	return NULL;
}

const char *report_limit(struct report_limits *l, const struct report_ask *ask)
{
	char by_host[KEY_MAX], by_addr[KEY_MAX];
	struct span first = make_key(ask->double_bounce ? 'd' : 'h', ask->host, SPAN_NONE, by_host);
	struct span second = ask->double_bounce ? make_key('r', ask->host, ask->failed_rcpt, by_addr) : make_key('s', NULL, ask->to, by_addr);
	const char *reached;

	turn_window(l, ask);
	reached = limit_reached(l, ask, first, second);
	if (reached)
		return reached;
	if (map_set(l->count, first, (void *)(counted(l, first) + 1)) != ST_OK || map_set(l->count, second, (void *)(counted(l, second) + 1)) != ST_OK)
		return "memory";
	l->total++;
	return NULL;
}
