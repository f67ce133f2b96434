#include "control/managed.h"

#include <stdlib.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>
#include "control/change.h"
#include "control/managed_judge.h"
#include "control/notices.h"
#include "control/publish.h"
#include "spool/base/clock.h"
#include "spool/base/counters.h"
#include "spool/base/log.h"

/* FIRST_S: how soon a domain without any copy is tried again, whose mail waits for it. */
enum { FETCHES_MAX = 8, FIRST_S = 300 };

static char run[4096];
static struct snapshot snap;
static struct managed *all;
static size_t nall;
static unsigned running;

/* ---- small ---- */

const struct snapshot *managed_snapshot(void)
{
	return &snap;
}

struct managed *managed_at(size_t i)
{
	return i < nall ? &all[i] : NULL;
}

struct managed *managed_find(const char *domain)
{
	for (size_t i = 0; i < nall; i++)
		if (strcmp(all[i].domain, domain) == 0)
			return &all[i];
	return NULL;
}

static uint64_t now_s(void)
{
	return clock_wall_ns() / NS_PER_S;
}

/* The time, plus or minus a tenth: the fetches of many domains, and of many nodes, spread by themselves. */
static uint64_t with_jitter(uint64_t every_ns)
{
	uint64_t every = every_ns / NS_PER_S, random = 0;

	if (getrandom(&random, sizeof(random), 0) != sizeof(random))
		random = clock_mono_ns();
	return every - every / 10 + (every >= 10 ? random % (every / 5 + 1) : 0);
}

void managed_keep(struct managed *d)
{
	if (domain_state_write(d->dir, d->domain, &d->state) != ST_OK)
		log_msg(LOG_LVL_ERROR, "domain-state", "%s: %s", d->domain, trail_text());
}

static void count_failed(void)
{
	uint64_t n = 0;

	for (size_t i = 0; i < nall; i++)
		n += all[i].conf->source == SOURCE_HTTPS && all[i].state.failed;
	counter_set(C_DOMAINS_FAILED, n);
}

enum status managed_change(struct managed *d, const char *how, const char *by, struct span text, uint64_t passed_over, struct history_row *ret)
{
	enum status st = change_make(&(struct change){ .dir = d->dir, .domain = d->domain, .how = how, .by = by, .source = snap_cstr(&snap, d->conf->value),
		.text = text, .passed_over = passed_over, .keep = snap.h->settings.managed_keep }, ret);

	if (st == ST_OK) {
		counter_add(C_DOMAIN_CHANGES, 1);
		publish_changed();
	}
	return st;
}

/* ---- fetches ---- */

/* Of a change they hear when tables are made of it. */
static void answer_waiters(struct managed *d)
{
	char text[700];

	snprintf(text, sizeof(text), "%s: %s\n", d->domain, d->state.result);
	while (d->nwaiters) {
		int fd = d->waiter[--d->nwaiters];

		if (!d->state.failed && publish_is_changed()) {
			publish_tables(fd, TABLES_AT_START, "weir-control", text, text);
			continue;
		}
		/* one who went away, or does not read, gets no answer */
		if (send(fd, text, strlen(text), MSG_NOSIGNAL | MSG_DONTWAIT) > 0 && !d->state.failed)
			send(fd, "ok\n", 3, MSG_NOSIGNAL | MSG_DONTWAIT);
		close(fd);
	}
}

static void finished(struct managed *d)
{
	uint64_t every = snap.h->settings.managed_fetch_every_ns, first = FIRST_S * NS_PER_S;
	struct logline l;

	d->state.fetched_s = now_s();
	d->state.next_s = d->state.fetched_s + with_jitter(every > first && !managed_has_copy(d) ? first : every);
	managed_keep(d);
	count_failed();
	counter_add(C_DOMAIN_FETCHES, 1);
	counter_add(C_DOMAIN_FETCHES_FAILED, d->state.failed);
	log_begin(&l, d->state.failed ? LOG_LVL_WARN : LOG_LVL_INFO, "domain-fetch");
	log_str(&l, "domain", d->domain);
	log_str(&l, "result", d->state.failed ? "failed" : "ok");
	log_str(&l, "detail", d->state.result);
	log_emit(&l);
	answer_waiters(d);
}

static void on_fetched(void *ctx, const struct domain_answer *a)
{
	struct managed *d = ctx;

	d->fetch = NULL;
	running--;
	if (a->what == DOMAIN_FETCH_SAME)
		managed_not_modified(d);
	else if (a->what == DOMAIN_FETCH_NEW)
		managed_judge(d, a->text);
	else
		managed_failed(d, a->detail);
	if (a->what == DOMAIN_FETCH_NEW) {
		snprintf(d->state.etag, sizeof(d->state.etag), "%s", a->etag);
		snprintf(d->state.modified, sizeof(d->state.modified), "%s", a->modified);
	}
	finished(d);
}

static void begin(struct managed *d)
{
	const struct snap_settings *set = &snap.h->settings;
	const char *url = snap_cstr(&snap, d->conf->value);
	bool known = strcmp(url, d->state.url) == 0 && (d->state.refused || managed_has_copy(d));

	snprintf(d->state.url, sizeof(d->state.url), "%s", url);
	if (!known)
		d->state.etag[0] = d->state.modified[0] = '\0';
	if (domain_fetch(&(struct domain_order){ .domain = d->domain, .url = url, .ca_file = snap_cstr(&snap, d->conf->ca),
		.secrets_file = snap_cstr(&snap, d->conf->secrets), .etag = d->state.etag, .modified = d->state.modified,
		.max = set->managed_fetch_max, .timeout_s = (long)(set->managed_fetch_timeout_ns / NS_PER_S) }, on_fetched, d, &d->fetch) == ST_OK) {
		running++;
		return;
	}
	managed_failed(d, trail_text());
	finished(d);
}

void managed_fetch_now(struct managed *d, int fd)
{
	static const char busy[] = "too many wait for this fetch already\n";

	if (d->nwaiters == sizeof(d->waiter) / sizeof(d->waiter[0])) {
		send(fd, busy, sizeof(busy) - 1, MSG_NOSIGNAL | MSG_DONTWAIT);
		close(fd);
		return;
	}
	d->waiter[d->nwaiters++] = fd;
	if (!d->fetch)
		begin(d);
}

/* A clock that was set back must not put fetches off for ever. */
static bool is_due(const struct managed *d, uint64_t now)
{
	uint64_t every = snap.h->settings.managed_fetch_every_ns / NS_PER_S;

	return d->conf->source == SOURCE_HTTPS && !d->fetch && (d->state.next_s <= now || d->state.next_s > now + every + every / 5 + 1);
}

/* ---- the whole ---- */

static void forget_all(void)
{
	static const char again[] = "the configuration is another one: try again\n";

	for (size_t i = 0; i < nall; i++) {
		if (all[i].fetch)
			domain_fetch_cancel(all[i].fetch);
		while (all[i].nwaiters) {
			send(all[i].waiter[--all[i].nwaiters], again, sizeof(again) - 1, MSG_NOSIGNAL | MSG_DONTWAIT);
			close(all[i].waiter[all[i].nwaiters]);
		}
	}
	free(all);
	all = NULL;
	nall = running = 0;
	if (snap.h)
		snapshot_close(&snap);
	snap.h = NULL;
}

void managed_configured(void)
{
	const struct snap_mail_domain *m;
	char path[4200];
	uint32_t n;

	forget_all();
	snprintf(path, sizeof(path), "%s/snapshot", run);
	if (snapshot_open(path, &snap) != ST_OK) {
		log_msg(LOG_LVL_ERROR, "managed-domains", "%s", trail_text());
		snap.h = NULL;
		return;
	}
	m = snap_mail_domains(&snap, &n);
	all = calloc(n + 1, sizeof(*all));
	CHECK(all);
	for (uint32_t i = 0; i < n; i++) {
		struct managed *d = &all[nall];

		if (m[i].kind != DOMAIN_ALIASES)
			continue;
		*d = (struct managed){ .conf = &m[i], .domain = snap_cstr(&snap, m[i].name), .dir = snap_cstr(&snap, snap.h->settings.managed_dir) };
		domain_state_read(d->dir, d->domain, &d->state);
		if (m[i].source == SOURCE_HTTPS && strcmp(d->state.url, snap_cstr(&snap, m[i].value)) != 0)
			d->state.next_s = 0;
		nall++;
	}
	count_failed();
}

void managed_turn(void)
{
	uint64_t now = now_s();

	for (size_t i = 0; i < nall && running < FETCHES_MAX; i++)
		if (is_due(&all[i], now))
			begin(&all[i]);
	notices_turn(run);
}

void managed_start(const char *run_dir)
{
	snprintf(run, sizeof(run), "%s", run_dir);
}

void managed_stop(void)
{
	forget_all();
	notices_stop();
}
