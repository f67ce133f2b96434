/* weirctl domain self-check: postmaster of every served domain leads somewhere (B4), by the decisions of a worker. */
#include <stdlib.h>
#include "control/ask.h"
#include "control/domain_check.h"
#include "control/report.h"
#include "spool/base/log.h"
#include "spool/base/map.h"
#include "spool/mail/address.h"

enum { HOPS_MAX = 16 };

struct self {
	const char *run_dir;
	struct report r;
	struct map *checked; /* domains that have an exchanger */
	unsigned domains;
	bool silent;
};

/* What a worker says of one address. */
struct route {
	unsigned hops, nby_mx;
	char by_mx[HOPS_MAX][ADDRESS_MAX + 1];
	char why[600]; /* a refusal, or why there is no route */
};

static void on_row(void *ctx, unsigned worker, struct span row)
{
	char what[64], from[1024], to[600];
	struct route *r = ctx;

	(void)worker;
	row_value(row, "what", what, sizeof(what));
	row_value(row, "from", from, sizeof(from));
	row_value(row, "to", to, sizeof(to));
	if (strcmp(what, "refused") == 0 || strcmp(what, "no route") == 0)
		snprintf(r->why, sizeof(r->why), "%s", to);
	else if (strcmp(what, "route") == 0)
		r->hops++;
	else if (strcmp(what, "by MX") == 0) {
		r->hops++;
		if (r->nby_mx < HOPS_MAX)
			snprintf(r->by_mx[r->nby_mx++], sizeof(r->by_mx[0]), "%.*s", ADDRESS_MAX, from);
	}
}

static enum status ask_route(const char *run_dir, const char *addr, struct route *ret)
{
	unsigned worker[64], n = ask_workers(run_dir, worker, 64);
	enum status st = trail(ST_NOT_FOUND, "no dataplane worker runs in %s", run_dir);
	struct logline request;

	row_begin(&request);
	log_str(&request, "cmd", "route");
	log_str(&request, "addr", addr);
	for (unsigned i = 0; i < n && st != ST_OK; i++) {
		*ret = (struct route){ 0 };
		st = ask_worker(run_dir, worker[i], row_text(&request), on_row, ret);
	}
	return st;
}

/* False: no mail can be sent there; why is in said. */
static bool has_exchanger(struct self *c, const char *addr, struct dns_said *said)
{
	char key[ADDRESS_DOMAIN_MAX + 1];
	struct out o = out_of(key, sizeof(key) - 1);
	const char *at = strrchr(addr, '@');
	struct dns_said host;

	if (!at || address_domain_key(span_str(at + 1), &o) != ST_OK || map_get(c->checked, out_span(&o)))
		return true;
	key[o.n] = '\0';
	if (report_dns(c->run_dir, "mx", key, said) != ST_OK) {
		c->silent = true;
		return true;
	}
	if (dns_is_implicit(said, key) && report_dns(c->run_dir, "addr", key, &host) == ST_OK)
		*said = host;
	if (!dns_found(said) && strcmp(said->result, "tempfail") != 0)
		return false;
	CHECK(map_set(c->checked, out_span(&o), c) == ST_OK);
	return true;
}

static void check_postmaster(struct self *c, const char *addr)
{
	struct dns_said said;
	struct route r;

	if (c->silent || ask_route(c->run_dir, addr, &r) != ST_OK) {
		c->silent = true;
		return;
	}
	c->domains++;
	if (!r.hops)
		report_say(&c->r, REPORT_WRONG, "B4", "%s leads nowhere: %s", addr, *r.why ? r.why : "it stands for nothing");
	for (unsigned i = 0; i < r.nby_mx; i++)
		if (!has_exchanger(c, r.by_mx[i], &said))
			report_say(&c->r, REPORT_WRONG, "B4", "%s leads to %s, where no mail can be sent: %s", addr, r.by_mx[i], said.text);
}

int domain_self_check(const char *run_dir, bool as_json, const struct snapshot *s)
{
	struct self c = { .run_dir = run_dir, .r.json = as_json ? json_array() : NULL };
	const struct snap_domain *local = (const struct snap_domain *)(const void *)((const char *)s->h + s->h->settings.domains.off);
	uint32_t n;
	const struct snap_mail_domain *m = snap_mail_domains(s, &n);
	char addr[ADDRESS_MAX + 1];

	CHECK(map_new(&c.checked) == ST_OK);
	if (!s->h->settings.postmaster.len)
		report_say(&c.r, REPORT_WRONG, "B4", "postmaster is not configured: mail to bare postmaster has nobody who reads it");
	for (uint32_t i = 0; i < s->h->settings.domains.n; i++) {
		snprintf(addr, sizeof(addr), "postmaster@%s", snap_cstr(s, local[i].name));
		check_postmaster(&c, addr);
	}
	for (uint32_t i = 0; i < n; i++) {
		if (m[i].kind == DOMAIN_MOVED)
			continue;
		snprintf(addr, sizeof(addr), "postmaster@%s", snap_cstr(s, m[i].name));
		check_postmaster(&c, addr);
	}
	map_free(c.checked);
	if (c.silent) {
		json_decref(c.r.json);
		fprintf(stderr, "weirctl: %s\n", trail_text());
		return 2;
	}
	if (!c.r.wrong)
		report_say(&c.r, REPORT_OK, "B4", "postmaster leads somewhere in all %u served domains", c.domains);
	return report_end(&c.r);
}
