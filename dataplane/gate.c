#include "dataplane/gate.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include "dataplane/inbound.h"
#include "spool/base/clock.h"
#include "spool/base/counters.h"

enum { BACKLOG = 4096, OWN_FILES = 64, FILES_A_SCANNER = 3, SESSIONS_LEAST = 16, BEAT_MAX_S = 5 };

/* ---- descriptors ---- */

/* Sessions that leave enough descriptors for everything else. */
static uint32_t sessions_max(const struct worker *w)
{
	const struct snap_settings *set = w->cfg->set;
	struct rlimit r;
	uint64_t own, deliveries = set->outbound_conns_max;

	if (getrlimit(RLIMIT_NOFILE, &r) < 0 || r.rlim_cur > UINT32_MAX)
		return UINT32_MAX;
	own = OWN_FILES + FILES_A_SCANNER * set->scanners + set->spool_max_bytes / set->segment_bytes * w->nstore / set->partitions;
	if (deliveries > r.rlim_cur / 4)
		deliveries = r.rlim_cur / 4;
	return r.rlim_cur > own + deliveries + SESSIONS_LEAST ? (uint32_t)(r.rlim_cur - own - deliveries) : SESSIONS_LEAST;
}

static bool files_are_short(const struct worker *w)
{
	uint32_t n = inbound_sessions(w), max = w->gate.sessions_max;

	return n >= max || (w->gate.closed && n > max - max / SESSIONS_LEAST);
}

/* ---- other workers ---- */

static bool takes_mail(const struct counters_page *p)
{
	uint64_t beat = atomic_load(&p->beat_ns), now = clock_mono_ns();
	pid_t pid = (pid_t)atomic_load(&p->pid);

	return pid && atomic_load(&p->v[C_TAKES_MAIL]) && (now < beat || now - beat < BEAT_MAX_S * NS_PER_S) &&
		(kill(pid, 0) == 0 || errno == EPERM);
}

static bool another_takes_mail(const struct worker *w)
{
	const struct counters_page *p;
	char path[4096];
	bool found = false;

	for (uint32_t i = 0; i < w->cfg->set->workers && !found; i++) {
		snprintf(path, sizeof(path), "%s/stats/dataplane-%u", w->opt->run_dir, i);
		if (i == w->opt->index || counters_map(path, &p) != ST_OK)
			continue;
		found = takes_mail(p);
		counters_unmap(p);
	}
	return found;
}

/* ---- the port ---- */

static enum status join_port(struct worker *w)
{
	for (uint32_t i = 0; i < w->opt->nlisten; i++)
		if (listen(w->opt->listen_fds[i], BACKLOG) < 0)
			return trail_errno(errno, "listening socket %u", i);
	w->gate.aside = false;
	return ST_OK;
}

/* A listening socket that is shut down stays bound, and listen() brings it back; meanwhile it gets no part of what SO_REUSEPORT divides. */
static void leave_port(struct worker *w)
{
	for (uint32_t i = 0; i < w->opt->nlisten; i++)
		shutdown(w->opt->listen_fds[i], SHUT_RD);
	w->gate.aside = true;
}

enum status gate_open(struct worker *w)
{
	w->gate.sessions_max = sessions_max(w);
	if (w->gate.sessions_max < w->cfg->set->conns_max)
		log_msg(LOG_LVL_WARN, "few-descriptors", "accepting pauses at %u connections, limits.connections is %u: raise the limit of open files",
			w->gate.sessions_max, w->cfg->set->conns_max);
	return join_port(w);
}

void gate_tick(struct worker *w)
{
	bool aside = !worker_store(w) && !w->stopping && another_takes_mail(w);

	counter_set(C_TAKES_MAIL, worker_store(w) && !w->stopping);
	if (aside == w->gate.aside)
		return;
	if (aside)
		leave_port(w);
	else if (join_port(w) != ST_OK) {
		log_msg(LOG_LVL_ERROR, "listen", "%s", trail_text());
		return;
	}
	log_msg(LOG_LVL_WARN, "fenced-worker", aside ? "another worker gets its connections" : "its sockets are on their port again");
}

void gate_turn(struct worker *w)
{
	bool closed = w->stopping || w->gate.aside || files_are_short(w);

	if (closed == w->gate.closed)
		return;
	w->gate.closed = closed;
	net_accept_pause(w->net, closed);
}

void gate_done(struct worker *w)
{
	if (w->gate.aside && join_port(w) != ST_OK)
		log_msg(LOG_LVL_ERROR, "listen", "%s", trail_text());
}
