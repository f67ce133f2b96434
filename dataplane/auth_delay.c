#include "dataplane/auth_delay.h"

#include "dataplane/session.h"

uint64_t auth_delay_due(uint64_t begun_ns, uint64_t now_ns, uint64_t delay_ns)
{
	uint64_t took = now_ns > begun_ns ? now_ns - begun_ns : 0;

	if (!delay_ns)
		return now_ns;
	return begun_ns + (took / delay_ns + 1) * delay_ns;
}

void auth_delay_begin(struct session *s)
{
	s->auth_begun_ns = s->w->now_ns;
}

bool auth_delay_wait(struct session *s)
{
	uint64_t delay_ns = s->cfg->set->auth_delay_ns;

	if (!delay_ns)
		return false;
	s->auth_timer.kind = TIMER_AUTH;
	s->waits = WAITS_AUTH;
	wheel_set(s->w->wheel, &s->auth_timer, auth_delay_due(s->auth_begun_ns, s->w->now_ns, delay_ns));
	return true;
}

void auth_delay_cancel(struct session *s)
{
	wheel_cancel(s->w->wheel, &s->auth_timer);
}
