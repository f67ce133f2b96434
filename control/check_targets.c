#include "control/check_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
#include "control/ask.h"
#include "control/entries.h"
#include "spool/base/clock.h"
#include "spool/base/log.h"
#include "spool/base/map.h"
#include "spool/mail/address.h"
#include "spool/store/command.h"

/* Time for all questions of a check together, and for a batch of them. */
#define VERIFY_NS (300 * NS_PER_S)
enum { BATCH_S = 150, MINUTE_S = 60, WORKERS_MAX = 64, ROW_MAX = 2048 };

/* An address to be verified. */
struct target {
	struct span addr;
	const struct tables_alias *alias; /* the first that leads to it; NULL: it must be there, and is not in the tables (C4) */
	enum { OPEN, ASKED, DONE } state;
};

struct targets {
	struct check *c;
	struct map *domains;        /* seen; what is not good for mail has `bad` */
	struct map *addresses;      /* address -> its struct target, by place + 1 */
	struct target *row;
	size_t n, cap;
	char required[3][ADDRESS_MAX + 1];
	unsigned fresh, taken, unclear;
	char unclear_addr[ADDRESS_MAX + 1], unclear_why[600];
};

static char good, bad;

static struct span domain_of(const struct check *c, const struct tables_target *g)
{
	return span_skip(tables_span(&c->t, g->addr), g->local_len + 1);
}

/* ---- domains ---- */

/* Whether mail for this domain, which is not one of ours, has somewhere to go. */
static bool domain_takes_mail(struct check *c, const char *domain, const struct tables_alias *a)
{
	struct span name = tables_span(&c->t, a->name);
	struct dns_said said, host;

	if (!check_ask(c, "mx", domain, "C5", &said))
		return true;
	if (dns_is_implicit(&said, domain) && check_ask(c, "addr", domain, "C5", &host) && !dns_found(&host))
		said = host;
	if (!dns_found(&said))
		report_say(&c->r, REPORT_WRONG, "C5", "line %u: %.*s: no mail can be sent to %s: %s", a->line, SPAN_FMT(name), domain, said.text);
	return dns_found(&said);
}

/* Each domain once, however many aliases lead to it; one that has a route of its own needs no MX. */
static bool is_good(struct targets *t, struct span domain, const struct tables_alias *a)
{
	void *known = map_get(t->domains, domain);
	char name[ADDRESS_DOMAIN_MAX + 1];

	if (!known) {
		snprintf(name, sizeof(name), "%.*s", SPAN_FMT(domain));
		known = snap_find_route(t->c->s, domain) || domain_takes_mail(t->c, name, a) ? &good : &bad;
		CHECK(map_set(t->domains, domain, known) == ST_OK);
	}
	return known == &good;
}

/* ---- which addresses are asked for ---- */

/* An address of ours that mail is delivered to as it is: its destination knows it, the tables do not. */
static bool is_delivered(const struct check *c, const struct tables_target *g, const struct tables_alias *a)
{
	const struct tables_domain *d = &c->t.domain[g->domain];
	char key[ADDRESS_LOCAL_MAX + 1];
	struct out o = out_of(key, sizeof(key));

	if (d->kind == DOMAIN_ROUTED || d->kind == DOMAIN_BACKUP_MX)
		return true;
	if (d->kind != DOMAIN_ALIASES || address_local_key(span_of(tables_span(&c->t, g->addr).p, g->local_len), &o) != ST_OK)
		return false;
	if (d == c->d && span_eq(out_span(&o), tables_span(&c->t, a->name)))
		return true; /* an alias that names itself */
	return d->deliver_unlisted && !tables_find_alias(&c->t, d, out_span(&o));
}

static void add(struct targets *t, struct span addr, const struct tables_alias *a)
{
	if (map_get(t->addresses, addr))
		return;
	if (t->n == t->cap) {
		t->cap = t->cap ? 2 * t->cap : 64;
		t->row = realloc(t->row, t->cap * sizeof(*t->row));
		CHECK(t->row);
	}
	t->row[t->n++] = (struct target){ .addr = addr, .alias = a };
	CHECK(map_set(t->addresses, addr, (void *)(uintptr_t)t->n) == ST_OK);
}

static void take_target(struct targets *t, const struct tables_target *g, const struct tables_alias *a)
{
	const struct check *c = t->c;
	struct span domain = domain_of(c, g);
	uint32_t wanted = c->s->h->settings.managed_targets;

	if (domain.n && domain.p[0] == '[')
		return;
	if (g->domain == TABLES_NONE ? !is_good(t, domain, a) : !is_delivered(c, g, a))
		return;
	if (wanted == TARGETS_ALL || (wanted == TARGETS_VERIFIED && snap_wants_verified(c->s, domain)))
		add(t, tables_span(&c->t, g->addr), a);
}

/* What must be there, of a domain whose unlisted addresses are delivered (RFC 2142). */
static void take_required(struct targets *t)
{
	const struct check *c = t->c;

	for (unsigned i = 0; c->d->deliver_unlisted && entries_required[i]; i++) {
		struct out o = out_of(t->required[i], ADDRESS_MAX);

		CHECK(i < sizeof(t->required) / sizeof(t->required[0]));
		out_fmt(&o, "%s@%s", entries_required[i], c->domain);
		if (c->s->h->settings.managed_targets != TARGETS_NONE && !tables_find_alias(&c->t, c->d, span_str(entries_required[i])))
			add(t, out_span(&o), NULL);
	}
}

/* ---- asking ---- */

static void on_row(void *ctx, unsigned worker, struct span row)
{
	struct targets *t = ctx;
	char addr[ROW_MAX], result[ROW_MAX], cached[ROW_MAX], reply[ROW_MAX], why[ROW_MAX]; /* each is used to pass over the values before its own, too */
	struct target *g;
	uintptr_t place;

	(void)worker;
	row_value(row, "addr", addr, sizeof(addr));
	place = (uintptr_t)map_get(t->addresses, span_str(addr));
	if (!place)
		return;
	g = &t->row[place - 1];
	g->state = DONE;
	row_value(row, "result", result, sizeof(result));
	row_value(row, "reply", reply, sizeof(reply));
	row_value(row, "why", why, sizeof(why));
	t->fresh += strcmp(row_value(row, "cached", cached, sizeof(cached)), "no") == 0;
	if (strcmp(result, "no") == 0 && !g->alias) {
		report_say(&t->c->r, REPORT_WRONG, "C4", "%s is neither in the tables nor known to its destination: %s", addr, *reply ? reply : why);
	} else if (strcmp(result, "no") == 0) {
		report_say(&t->c->r, REPORT_WRONG, "C5", "line %u: %.*s: %s is refused by its destination: %s", g->alias->line, SPAN_FMT(tables_span(&t->c->t, g->alias->name)),
			addr, *reply ? reply : why);
	} else if (strcmp(result, "yes") == 0) {
		t->taken++;
	} else if (!t->unclear++) {
		snprintf(t->unclear_addr, sizeof(t->unclear_addr), "%.*s", (int)sizeof(t->unclear_addr) - 1, addr);
		snprintf(t->unclear_why, sizeof(t->unclear_why), "%.*s", (int)sizeof(t->unclear_why) - 1, *reply ? reply : why);
	}
}

/* A batch of those that are ASKED. False: no worker answers. */
static bool ask_batch(struct targets *t, struct target **batch, unsigned n)
{
	char request[COMMAND_REQUEST];
	struct out o = out_of(request, sizeof(request));
	unsigned worker[WORKERS_MAX], nworkers = ask_workers(t->c->run_dir, worker, WORKERS_MAX);
	enum status st = ST_NOT_FOUND;

	out_str(&o, "cmd=verify.ask");
	for (unsigned i = 0; i < n; i++) {
		out_char(&o, '\n');
		out_add(&o, batch[i]->addr);
	}
	for (unsigned i = 0; i < nworkers && st == ST_NOT_FOUND; i++)
		st = ask_worker_within(t->c->run_dir, worker[i], out_span(&o), BATCH_S, on_row, t);
	return st == ST_OK;
}

/* How many addresses of one domain are asked for in a minute: half of what a destination may be asked, the other half is for real recipients. */
static unsigned share(const struct check *c)
{
	double rate = c->s->h->settings.verify_probe_rate;

	return rate <= 0 ? UINT32_MAX : rate < 2 ? 1 : (unsigned)(rate / 2);
}

/* Whom to ask in this minute. */
static void choose(struct targets *t, unsigned most)
{
	struct map *asked;

	CHECK(map_new(&asked) == ST_OK);
	for (size_t i = 0; i < t->n; i++) {
		struct span rest = t->row[i].addr, domain = rest;
		uintptr_t n;

		if (t->row[i].state != OPEN)
			continue;
		for (size_t k = 0; k < rest.n; k++)
			if (rest.p[k] == '@')
				domain = span_skip(rest, k + 1);
		n = (uintptr_t)map_get(asked, domain);
		if (n >= most)
			continue;
		CHECK(map_set(asked, domain, (void *)(n + 1)) == ST_OK);
		t->row[i].state = ASKED;
	}
	map_free(asked);
}

static bool ask_chosen(struct targets *t, uint64_t until_ns)
{
	struct target *batch[VERIFY_ASK_MAX];
	unsigned n = 0;

	for (size_t i = 0; i <= t->n; i++) {
		if (i < t->n && t->row[i].state == ASKED)
			batch[n++] = &t->row[i];
		if (n < (i == t->n ? 1u : (unsigned)VERIFY_ASK_MAX))
			continue;
		if (clock_mono_ns() > until_ns || !ask_batch(t, batch, n))
			return false;
		n = 0;
	}
	return true;
}

static size_t open_targets(const struct targets *t)
{
	size_t n = 0;

	for (size_t i = 0; i < t->n; i++)
		n += t->row[i].state != DONE;
	return n;
}

static void wait_for_minute(const struct targets *t, uint64_t begun_ns)
{
	uint64_t end = begun_ns + MINUTE_S * NS_PER_S, now = clock_mono_ns();
	unsigned left = now < end ? (unsigned)((end - now) / NS_PER_S) + 1 : 0;

	if (left && isatty(STDERR_FILENO))
		fprintf(stderr, "weirctl: %zu addresses are still to be verified, goes on in %u s (verify.probes_per_minute)\n", open_targets(t), left);
	sleep(left);
}

static void verify(struct targets *t)
{
	uint64_t until = clock_mono_ns() + VERIFY_NS;

	for (;;) {
		uint64_t begun = clock_mono_ns();
		size_t before = open_targets(t), left;

		t->fresh = 0;
		choose(t, share(t->c));
		if (!ask_chosen(t, until))
			return;
		left = open_targets(t);
		if (!left || left == before)
			return;
		if (t->fresh && begun + MINUTE_S * NS_PER_S > until)
			return;
		if (t->fresh)
			wait_for_minute(t, begun);
	}
}

static void say_verified(struct targets *t, unsigned wrong_before)
{
	struct report *r = &t->c->r;
	size_t open = open_targets(t);

	if (t->unclear)
		report_say(r, REPORT_ADVICE, "C5", "%u addresses could not be verified now; the first: %s: %s", t->unclear, t->unclear_addr, t->unclear_why);
	if (open)
		report_say(r, REPORT_ADVICE, "C5", "%zu addresses were not verified in time; what was heard is kept, so the next check goes on from there", open);
	if (r->wrong == wrong_before && t->taken)
		report_say(r, REPORT_OK, "C5", "%u addresses are taken by their destinations", t->taken);
}

void check_targets(struct check *c)
{
	struct targets t = { .c = c };
	unsigned before = c->r.wrong;

	CHECK(map_new(&t.domains) == ST_OK && map_new(&t.addresses) == ST_OK);
	for (uint32_t i = 0; i < c->d->naliases && !c->silent; i++) {
		const struct tables_alias *a = &c->t.alias[c->d->first_alias + i];

		for (uint32_t k = 0; k < a->ntargets && !c->silent; k++)
			take_target(&t, &c->t.target[a->first_target + k], a);
	}
	if (c->r.wrong == before && !c->silent)
		report_say(&c->r, REPORT_OK, "C5", "mail can be sent to all %zu other domains that the aliases lead to", map_len(t.domains));
	before = c->r.wrong;
	take_required(&t);
	if (!c->silent && t.n) {
		verify(&t);
		say_verified(&t, before);
	}
	free(t.row);
	map_free(t.domains);
	map_free(t.addresses);
}
