#include "dataplane/pace.h"

#include "spool/base/clock.h"

enum { PATIENCE = 8 /* rounds of successes for one more connection after trouble */, STALE_S = 600 };

void pace_init(struct pace *p, uint32_t start)
{
	*p = (struct pace){ .limit = start ? start : 1 };
}

uint32_t pace_limit(const struct pace *p, uint32_t max)
{
	return p->limit < max ? p->limit : max;
}

void pace_success(struct pace *p, uint32_t conns, uint32_t max)
{
	if (conns < p->limit || p->limit >= max)
		return; /* a success with fewer says nothing about more */
	if (p->learned && ++p->successes < p->limit * PATIENCE)
		return;
	p->successes = 0;
	p->limit++;
}

static bool shrink(struct pace *p, uint32_t to, uint64_t now_ns)
{
	p->learned = true;
	p->successes = 0;
	p->slowed_ns = now_ns;
	to = to ? to : 1;
	if (to >= p->limit)
		return false;
	p->limit = to;
	return true;
}

bool pace_refused(struct pace *p, uint32_t working, uint64_t now_ns)
{
	return shrink(p, working < p->limit ? working : p->limit, now_ns);
}

bool pace_slow_down(struct pace *p, uint64_t now_ns)
{
	if (p->learned && now_ns - p->slowed_ns < NS_PER_S)
		return false;
	return shrink(p, p->limit / 2, now_ns);
}

bool pace_is_stale(const struct pace *p, uint64_t now_ns)
{
	return !p->learned || now_ns - p->slowed_ns > STALE_S * NS_PER_S;
}
