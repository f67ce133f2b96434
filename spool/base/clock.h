/* Time. Timers use the monotonic clock only, so that a wall clock that jumps bounces nothing (P18).
 *
 * Units: nanoseconds in uint64_t everywhere (_ns). A test may put a fake clock in place. */
#ifndef WEIR_SPOOL_BASE_CLOCK_H
#define WEIR_SPOOL_BASE_CLOCK_H

#include <stdint.h>

#define NS_PER_S 1000000000ull
#define NS_PER_MS 1000000ull
#define NS_PER_US 1000ull

/* CLOCK_MONOTONIC, or the fake clock. */
uint64_t clock_mono_ns(void);
/* CLOCK_REALTIME since the epoch, or the fake clock. */
uint64_t clock_wall_ns(void);
/* Spool time: like the wall clock, but it never jumps. It starts where clock_steady_seed put it and goes on by the monotonic clock, so that what is measured by it
 * (a message's age, its next attempt) is right whatever happens to the wall clock (P18). Without a seed it starts at the wall clock. */
uint64_t clock_steady_ns(void);
/* last_ns: the newest spool time on record. The time since then is taken from the wall clock when that is believable (0 to STEADY_GAP_MAX_NS), else as none. */
void clock_steady_seed(uint64_t last_ns);
#define STEADY_GAP_MAX_NS (90 * 86400 * NS_PER_S)
/* Both clocks stand at these values until clock_fake_off(). Tests only. */
void clock_fake(uint64_t mono_ns, uint64_t wall_ns);
void clock_fake_off(void);

#endif
