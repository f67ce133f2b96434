#include "control/progress.h"

#include "spool/base/clock.h"

#define EVERY_NS (100 * NS_PER_MS)

void progress_tell(struct progress *p, enum progress_phase phase, uint64_t done, uint64_t of)
{
	uint64_t now = clock_mono_ns();

	if (!p || !p->to || (p->phase == phase && now - p->told_ns < EVERY_NS))
		return;
	p->phase = phase;
	p->told_ns = now;
	fprintf(p->to, "progress %d %llu %llu\n", (int)phase, (unsigned long long)done, (unsigned long long)of);
	fflush(p->to);
}
