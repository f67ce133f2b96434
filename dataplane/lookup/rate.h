/* The rate measure of rule D1: an exponentially weighted moving average. Pure functions; the script in rate.lua computes the same.
 *
 * State (t, r); an event of weight c at now: i = now - t, a = e^(-i/p), r' = (1 - a) c p / i + a r (r + c for i -> 0); the first event r = c.
 * A clock that goes back counts as i = 0. */
#ifndef WEIR_DATAPLANE_LOOKUP_RATE_H
#define WEIR_DATAPLANE_LOOKUP_RATE_H

#include <stdbool.h>
#include <stdint.h>

struct rate_state {
	double t_s; /* time of the last event counted; seconds since the epoch */
	double r;
	bool known;
};

/* r' after an event of weight c (0: only looks). Does not change s. */
double rate_after(const struct rate_state *s, double now_s, double c, double period_s);
/* Over when r' >= limit; limit 0 is no limit. */
bool rate_is_over(double r, double limit);
/* Counts: strict always, leaky only when not over. A weight below 0 takes back what was counted, never below nothing. Gives r'. */
double rate_event(struct rate_state *s, double now_s, double c, double period_s, double limit, bool leaky, bool *ret_over);
/* Seconds from now until one more event of weight 1 is not over. 0: now. */
double rate_wait_s(const struct rate_state *s, double now_s, double period_s, double limit);

#endif
