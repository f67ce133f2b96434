#include "dataplane/lookup/rate.h"

#include <math.h>

/* Two events are never nearer than this: the limit for i -> 0 without a division by zero. */
#define INTERVAL_MIN_S 1e-6

double rate_after(const struct rate_state *s, double now_s, double c, double period_s)
{
	double x, f;

	if (!s->known)
		return c;
	x = now_s - s->t_s;
	x = (x < INTERVAL_MIN_S ? INTERVAL_MIN_S : x) / period_s;
	/* (1 - e^-x) / x; near 0 by its series, where the difference would lose its digits */
	f = x < 1e-4 ? 1 - x / 2 + x * x / 6 : (1 - exp(-x)) / x;
	return f * c + (1 - x * f) * s->r;
}

bool rate_is_over(double r, double limit)
{
	return limit > 0 && r >= limit;
}

double rate_event(struct rate_state *s, double now_s, double c, double period_s, double limit, bool leaky, bool *ret_over)
{
	double r = rate_after(s, now_s, c, period_s);

	*ret_over = rate_is_over(r, limit);
	if (c < 0 && r < 0)
		r = 0;
	if ((c > 0 && !(leaky && *ret_over)) || (c < 0 && s->known)) {
		if (!s->known || now_s > s->t_s)
			s->t_s = now_s;
		s->r = r;
		s->known = true;
	}
	return r;
}

double rate_wait_s(const struct rate_state *s, double now_s, double period_s, double limit)
{
	double low = 0, high = period_s;

	if (limit <= 0 || !rate_is_over(rate_after(s, now_s, 1, period_s), limit))
		return 0;
	while (rate_is_over(rate_after(s, now_s + high, 1, period_s), limit) && high < 1e9)
		high *= 2;
	while (high - low > 0.5) {
		double mid = (low + high) / 2;

		if (rate_is_over(rate_after(s, now_s + mid, 1, period_s), limit))
			low = mid;
		else
			high = mid;
	}
	return ceil(high);
}
