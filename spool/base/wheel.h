/* Timers: a hierarchical wheel of intrusive timers with a tick of 10 ms (never early, at most one tick
 * late as long as the owner calls wheel_expire in time).
 *
 * Owner: the struct timer is embedded by its user and must be cancelled before it is freed. */
#ifndef WEIR_SPOOL_BASE_WHEEL_H
#define WEIR_SPOOL_BASE_WHEEL_H

#include <stdbool.h>
#include <stdint.h>

struct timer {
	struct timer *next, **prevp; /* NULL when not armed */
	uint64_t due_tick;
	int kind;                    /* the user's: which table row handles it */
};

struct wheel;

struct wheel *wheel_new(uint64_t now_ns);
void wheel_free(struct wheel *w);
/* Arms, or moves an armed timer. */
void wheel_set(struct wheel *w, struct timer *t, uint64_t due_ns);
void wheel_cancel(struct wheel *w, struct timer *t);
static inline bool timer_armed(const struct timer *t)
{
	return t->prevp != 0;
}
/* Takes out and gives one timer that is due at now_ns, or NULL. Call until NULL. */
struct timer *wheel_expire(struct wheel *w, uint64_t now_ns);
/* Nanoseconds until the wheel needs to be looked at again (0 when due); UINT64_MAX when it is empty. */
uint64_t wheel_wait_ns(const struct wheel *w, uint64_t now_ns);

#endif
