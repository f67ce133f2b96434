#include "control/checks.h"

#include <errno.h>
#include <jansson.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <unistd.h>
#include "control/managed.h"
#include "control/notices.h"
#include "spool/base/clock.h"
#include "spool/base/counters.h"
#include "spool/base/log.h"

enum { LIMIT_S = 600, AGAIN_S = 60 };

/* The state of the node's own check is kept like that of a domain with this name. */
static const char self[] = ".";

/* The one check that runs. */
static struct {
	pid_t pid;          /* 0: none */
	int out;
	uint64_t until_ns;
	char domain[300];   /* or `self` */
} running;

static struct domain_state self_state;

/* ---- times ---- */

static uint64_t now_s(void)
{
	return clock_wall_ns() / NS_PER_S;
}

static uint64_t random_below(uint64_t n)
{
	uint64_t r = 0;

	if (getrandom(&r, sizeof(r), 0) != sizeof(r))
		r = clock_mono_ns();
	return n ? r % n : 0;
}

/* Of a domain that was never checked the first is some time within the period: the checks of many domains spread. */
static uint64_t when_next(const struct domain_state *s, uint64_t every_ns)
{
	uint64_t every = every_ns / NS_PER_S;

	return s->checked_s ? s->checked_s + every : now_s() + random_below(every);
}

/* A clock that was set back must not put it off for ever. */
static bool is_due(const struct domain_state *s, uint64_t every_ns)
{
	return s->next_check_s <= now_s() || s->next_check_s > now_s() + 2 * (every_ns / NS_PER_S);
}

/* ---- a check ---- */

static void begin(const char *run_dir, const char *domain)
{
	char exe[4200] = "";
	char *argv[] = { exe, (char *)"--run", (char *)(uintptr_t)run_dir, (char *)"--json", (char *)"domain", (char *)"check",
		(char *)(uintptr_t)domain, NULL };
	posix_spawn_file_actions_t files;
	ssize_t n = readlink("/proc/self/exe", exe, 4096);
	char *slash = n > 0 ? strrchr(exe, '/') : NULL;
	int err;

	if (strcmp(domain, self) == 0) {
		argv[5] = (char *)"self-check";
		argv[6] = NULL;
	}
	strcpy(slash ? slash + 1 : exe, "weirctl"); /* beside us */
	running.out = memfd_create("check", MFD_CLOEXEC);
	if (running.out < 0 || posix_spawn_file_actions_init(&files) != 0) {
		log_msg(LOG_LVL_WARN, "check", "%s", strerror(errno));
		return;
	}
	posix_spawn_file_actions_adddup2(&files, running.out, 1);
	err = posix_spawn(&running.pid, exe, &files, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&files);
	if (err) {
		log_msg(LOG_LVL_WARN, "check", "%s: %s", exe, strerror(err));
		close(running.out);
		running.pid = 0;
		return;
	}
	running.until_ns = clock_mono_ns() + LIMIT_S * NS_PER_S;
	snprintf(running.domain, sizeof(running.domain), "%s", domain);
}

/* What is wrong, a line each; the caller frees it. */
static char *findings(const json_t *report, uint64_t *ret_n)
{
	char *text = NULL;
	const json_t *row;
	size_t n, i;
	FILE *f = open_memstream(&text, &n);

	CHECK(f);
	*ret_n = 0;
	json_array_foreach(report, i, row) {
		const char *level = json_string_value(json_object_get(row, "level")), *what = json_string_value(json_object_get(row, "text"));

		if (level && what && strcmp(level, "wrong") == 0) {
			fprintf(f, "  %s\n", what);
			++*ret_n;
		}
	}
	fclose(f);
	return text;
}

static void send_findings(const char *domain, const char *found, uint64_t n)
{
	const struct snapshot *s = managed_snapshot();
	bool own = strcmp(domain, self) == 0;
	char to[320], subject[400], *text = NULL;
	size_t len;
	FILE *f = open_memstream(&text, &len);

	CHECK(f);
	if (own) {
		snprintf(to, sizeof(to), "%.319s", snap_cstr(s, s->h->settings.postmaster));
		snprintf(subject, sizeof(subject), "Self-check: postmaster of %llu domains", (unsigned long long)n);
		fprintf(f, "Postmaster of every served domain must lead somewhere (RFC 5321 4.5.1). At the last check it did not:\n\n%s\nSee: weirctl domain self-check\n", found);
	} else {
		snprintf(to, sizeof(to), "postmaster@%s", domain);
		snprintf(subject, sizeof(subject), "Mail domain %s: %llu findings", domain, (unsigned long long)n);
		fprintf(f, "The regular check of the mail domain %s found:\n\n%s\nThe whole report: weirctl domain check %s\n", domain, found, domain);
	}
	fclose(f);
	if (*to)
		notices_add(&(struct notice_order){ .to = to, .subject = subject, .text = text, .domain = domain });
	free(text);
}

static void count(void)
{
	uint64_t n = 0;
	struct managed *d;

	for (size_t i = 0; (d = managed_at(i)); i++)
		n += d->state.findings > 0;
	counter_set(C_DOMAINS_FINDINGS, n);
	counter_set(C_POSTMASTER_FINDINGS, self_state.findings);
}

/* The findings of a domain are told at each check, a month apart; those of the daily one only when they are others. */
static void take_report(struct domain_state *state, const char *domain, const json_t *report, uint64_t every_ns)
{
	uint64_t n, key;
	char *found = findings(report, &n);
	bool own = state == &self_state;

	key = n ? history_hash(span_str(found)) : 0;
	if (n && (!own || state->told != key))
		send_findings(domain, found, n);
	if (own)
		state->told = key;
	state->checked_s = now_s();
	state->findings = n;
	state->next_check_s = when_next(state, every_ns);
	log_msg(n ? LOG_LVL_WARN : LOG_LVL_INFO, "domain-check", "%s: %llu findings", own ? "postmasters" : domain, (unsigned long long)n);
	free(found);
}

static void finish(int status)
{
	const struct snap_settings *set = &managed_snapshot()->h->settings;
	bool own = strcmp(running.domain, self) == 0;
	uint64_t every = own ? set->managed_self_check_ns : set->managed_check_every_ns;
	struct managed *d = own ? NULL : managed_find(running.domain);
	struct domain_state *state = own ? &self_state : d ? &d->state : NULL;
	json_t *report = lseek(running.out, 0, SEEK_SET) == 0 ? json_loadfd(running.out, 0, NULL) : NULL;

	close(running.out);
	running.pid = 0;
	if (!state) { /* the configuration is another one */
		json_decref(report);
		return;
	}
	if (json_is_array(report) && WIFEXITED(status) && WEXITSTATUS(status) <= 1)
		take_report(state, running.domain, report, every);
	else
		state->next_check_s = now_s() + (every / NS_PER_S < AGAIN_S ? every / NS_PER_S : AGAIN_S); /* no worker answers, for example */
	json_decref(report);
	count();
	if (domain_state_write(snap_cstr(managed_snapshot(), set->managed_dir), running.domain, state) != ST_OK)
		log_msg(LOG_LVL_ERROR, "domain-state", "%s: %s", running.domain, trail_text());
}

/* ---- the whole ---- */

void checks_configured(void)
{
	const struct snapshot *s = managed_snapshot();

	if (!s->h)
		return;
	domain_state_read(snap_cstr(s, s->h->settings.managed_dir), self, &self_state);
	count();
}

static void begin_next(const char *run_dir)
{
	const struct snap_settings *set = &managed_snapshot()->h->settings;
	struct managed *d, *next = NULL;

	if (!self_state.next_check_s)
		self_state.next_check_s = now_s() + (set->managed_self_check_ns / NS_PER_S < AGAIN_S ? 0 : AGAIN_S); /* when all has started */
	if (is_due(&self_state, set->managed_self_check_ns)) {
		begin(run_dir, self);
		return;
	}
	for (size_t i = 0; (d = managed_at(i)); i++) {
		if (!d->state.next_check_s)
			d->state.next_check_s = when_next(&d->state, set->managed_check_every_ns);
		if (is_due(&d->state, set->managed_check_every_ns) && (!next || d->state.next_check_s < next->state.next_check_s))
			next = d; /* who waits longest, so that nobody is passed over for ever */
	}
	if (next)
		begin(run_dir, next->domain);
}

void checks_turn(const char *run_dir)
{
	int status;

	if (!managed_snapshot()->h)
		return;
	if (!running.pid) {
		begin_next(run_dir);
		return;
	}
	if (clock_mono_ns() > running.until_ns)
		kill(running.pid, SIGKILL);
	if (waitpid(running.pid, &status, WNOHANG) == running.pid)
		finish(status);
}

void checks_stop(void)
{
	if (!running.pid)
		return;
	kill(running.pid, SIGKILL);
	waitpid(running.pid, NULL, 0);
	close(running.out);
	running.pid = 0;
}
