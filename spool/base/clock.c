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
