#include "spool/base/clock.h"

#include <stdbool.h>
#include <time.h>

static bool faked;
static uint64_t fake_mono, fake_wall;

static uint64_t read_clock(clockid_t id)
{
	struct timespec ts;

	clock_gettime(id, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

uint64_t clock_mono_ns(void)
{
	return faked ? fake_mono : read_clock(CLOCK_MONOTONIC);
}

uint64_t clock_wall_ns(void)
{
	return faked ? fake_wall : read_clock(CLOCK_REALTIME);
}

static uint64_t steady_base; /* spool time when the monotonic clock was 0 */

uint64_t clock_steady_ns(void)
{
	if (!steady_base)
		steady_base = clock_wall_ns() - clock_mono_ns();
	return steady_base + clock_mono_ns();
}

void clock_steady_seed(uint64_t last_ns)
{
	uint64_t now = clock_wall_ns();
	bool believable = now >= last_ns && now - last_ns <= STEADY_GAP_MAX_NS;
	uint64_t then = believable ? now : last_ns;

	if (!steady_base || then > clock_steady_ns())
		steady_base = then - clock_mono_ns();
}

void clock_fake(uint64_t mono_ns, uint64_t wall_ns)
{
	faked = true;
	fake_mono = mono_ns;
	fake_wall = wall_ns;
}

void clock_fake_off(void)
{
	faked = false;
}
