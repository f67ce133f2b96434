#include "control/domain_check.h"

#include <stdlib.h>
#include "control/check_internal.h"
#include "control/entries.h"
#include "control/findings.h"
#include "spool/mail/address.h"

bool check_ask(struct check *c, const char *type, const char *name, const char *rule, struct dns_said *ret)
{
	if (report_dns(c->run_dir, type, name, ret) != ST_OK) {
		c->silent = true;
		return false;
	}
	if (strcmp(ret->result, "tempfail") != 0)
		return true;
	report_say(&c->r, REPORT_ADVICE, rule, "DNS does not say now what %s has: %s", name, ret->text);
	return false;
}

/* ---- the tables (C4, C5) ---- */

static void on_finding(void *ctx, const struct tables *t, const struct tables_alias *a, const char *what, struct span detail)
{
	struct check *c = ctx;

	if (&t->domain[a->domain] == c->d)
		report_say(&c->r, REPORT_WRONG, "C5", "line %u: %.*s: %.*s %s", a->line, SPAN_FMT(tables_span(t, a->name)), SPAN_FMT(detail), what);
}

static bool check_tables(struct check *c)
{
	unsigned before = c->r.wrong;

	if (!c->d) {
		report_say(&c->r, REPORT_WRONG, "C1", "the tables in use do not have this domain: its mail is answered 451");
		return false;
	}
	for (const char *const *r = entries_required; !c->d->deliver_unlisted && *r; r++) /* else the destination has them, or not */
		if (!tables_find_alias(&c->t, c->d, span_str(*r)))
			report_say(&c->r, REPORT_WRONG, "C4", "%s is missing", *r);
	tables_findings(&c->t, on_finding, c);
	if (c->r.wrong == before)
		report_say(&c->r, REPORT_OK, "C5", "%u aliases%s; none leads nowhere, in a loop or too deep", c->d->naliases,
			c->d->deliver_unlisted ? "" : "; postmaster, webmaster and abuse are there");
	return true;
}

/* ---- DNS (C10) ---- */

static bool is_one_of(const char *name, const struct dns_said *all)
{
	for (unsigned i = 0; i < all->n; i++)
		if (strcmp(name, all->value[i]) == 0)
			return true;
	return false;
}

/* Our exchangers' names, and their addresses. */
static void our_names(struct check *c, struct dns_said *names, struct dns_said *addresses)
{
	struct span rest = snap_span(c->s, c->s->h->settings.managed_exchangers);
	const unsigned max = sizeof(names->value) / sizeof(names->value[0]);

	*names = *addresses = (struct dns_said){ 0 };
	while (rest.n && names->n < max) {
		struct span one = span_cut(&rest, ' ');
		char *name = names->value[names->n];
		struct out o = out_of(name, sizeof(names->value[0]) - 1);
		struct dns_said said;

		if (!one.n || address_domain_key(one, &o) != ST_OK)
			continue;
		name[o.n] = '\0';
		names->n++;
		if (report_dns(c->run_dir, "addr", name, &said) == ST_OK)
			for (unsigned i = 0; i < said.n && addresses->n < max; i++)
				memcpy(addresses->value[addresses->n++], said.value[i], sizeof(said.value[i]));
	}
}

static bool leads_to_us(struct check *c, const char *host, const struct dns_said *names, const struct dns_said *addresses)
{
	struct dns_said said;

	if (is_one_of(host, names))
		return true;
	if (report_dns(c->run_dir, "addr", host, &said) == ST_OK)
		for (unsigned i = 0; i < said.n; i++)
			if (is_one_of(said.value[i], addresses))
				return true;
	return false;
}

static void check_mx(struct check *c)
{
	struct dns_said *mx = calloc(3, sizeof(*mx)), *names = mx + 1, *addresses = mx + 2;
	unsigned ours = 0;

	CHECK(mx);
	our_names(c, names, addresses);
	if (!check_ask(c, "mx", c->domain, "C10", mx))
		goto out;
	if (!dns_found(mx) || dns_is_implicit(mx, c->domain)) {
		report_say(&c->r, REPORT_WRONG, "C10", "MX: there is none%s%s; it should name %s", dns_found(mx) ? "" : ": ", dns_found(mx) ? "" : mx->text,
			snap_cstr(c->s, c->s->h->settings.managed_exchangers));
		goto out;
	}
	for (unsigned i = 0; i < mx->n; i++) {
		if (leads_to_us(c, mx->value[i], names, addresses))
			ours++;
		else
			report_say(&c->r, REPORT_ADVICE, "C10", "MX: %s is none of our exchangers", mx->value[i]);
	}
	if (ours)
		report_say(&c->r, REPORT_OK, "C10", "MX: %u of %u exchangers are ours", ours, mx->n);
	else
		report_say(&c->r, REPORT_WRONG, "C10", "MX: none of them is ours; it should name %s", snap_cstr(c->s, c->s->h->settings.managed_exchangers));
	if (is_one_of(c->domain, mx) || is_one_of(c->domain, names))
		report_say(&c->r, REPORT_WRONG, "C10", "host name: %s is the name of a mail exchanger, so it cannot be a mail domain", c->domain);
out:
	free(mx);
}

/* Counts the texts that begin so; *ret is the last of them. */
static unsigned count_texts(const struct dns_said *d, const char *begin, const char **ret)
{
	unsigned n = 0;

	*ret = "";
	for (unsigned i = 0; i < d->n; i++)
		if (span_starts_nocase(span_str(d->value[i]), span_str(begin))) {
			*ret = d->value[i];
			n++;
		}
	return n;
}

static bool has_tag(const char *text, const char *tag)
{
	struct span rest = span_str(text);

	while (rest.n) {
		struct span one = span_trim(span_cut(&rest, ';'));

		if (span_starts_nocase(one, span_str(tag)) && span_trim(span_skip(one, strlen(tag))).n)
			return true;
	}
	return false;
}

static void check_spf(struct check *c)
{
	struct dns_said said;
	const char *text;
	unsigned n;

	if (!check_ask(c, "txt", c->domain, "C10", &said))
		return;
	n = count_texts(&said, "v=spf1", &text);
	if (n > 1)
		report_say(&c->r, REPORT_WRONG, "C10", "SPF: there are %u records; receivers take that for an error (RFC 7208 4.5)", n);
	else if (n)
		report_say(&c->r, REPORT_OK, "C10", "SPF: %s", text);
	else
		report_say(&c->r, REPORT_ADVICE, "C10", "SPF: there is no record");
}

static void check_dmarc(struct check *c)
{
	char name[ADDRESS_DOMAIN_MAX + 16];
	struct dns_said said;
	const char *text;
	unsigned n;

	snprintf(name, sizeof(name), "_dmarc.%s", c->domain);
	if (!check_ask(c, "txt", name, "C10", &said))
		return;
	n = count_texts(&said, "v=DMARC1", &text);
	if (!n)
		report_say(&c->r, REPORT_ADVICE, "C10", "DMARC: there is no record at %s", name);
	else if (n > 1 || !has_tag(text, "p="))
		report_say(&c->r, REPORT_WRONG, "C10", "DMARC: %s; receivers ignore it (RFC 7489 6.6.3)", n > 1 ? "there are several records" : "the record has no p=");
	else
		report_say(&c->r, REPORT_OK, "C10", "DMARC: %s", text);
}

static void check_dkim(struct check *c, const char *selector)
{
	char name[ADDRESS_DOMAIN_MAX + 128];
	struct dns_said said;

	if (!selector)
		return;
	snprintf(name, sizeof(name), "%.100s._domainkey.%s", selector, c->domain);
	if (!check_ask(c, "txt", name, "C10", &said))
		return;
	if (said.n && has_tag(said.value[0], "p="))
		report_say(&c->r, REPORT_OK, "C10", "DKIM: there is a key at %s", name);
	else
		report_say(&c->r, REPORT_WRONG, "C10", "DKIM: there is no key at %s%s", name, said.n ? ": its p= is empty or missing" : "");
}

static void check_host(struct check *c)
{
	struct dns_said said;

	if (check_ask(c, "addr", c->domain, "C10", &said) && dns_found(&said))
		report_say(&c->r, REPORT_ADVICE, "C10", "host name: %s is also a host with address %s; what does not look up the MX sends there", c->domain, said.value[0]);
}

int domain_check(const char *run_dir, bool as_json, const struct snap_mail_domain *m, const struct snapshot *s, int argc, char **argv)
{
	struct check c = { .run_dir = run_dir, .domain = snap_cstr(s, m->name), .s = s, .r.json = as_json ? json_array() : NULL };
	const char *selector = NULL;

	if (argc == 2 && strcmp(argv[0], "--dkim") == 0)
		selector = argv[1];
	else if (argc)
		return -1;
	if (tables_open_current(run_dir, &c.t) != ST_OK)
		c.t.h = NULL;
	c.d = c.t.h ? tables_find_domain(&c.t, snap_span(s, m->name)) : NULL;
	if (check_tables(&c))
		check_targets(&c);
	if (!c.silent) {
		check_mx(&c);
		check_spf(&c);
		check_dkim(&c, selector);
		check_dmarc(&c);
		check_host(&c);
	}
	tables_close(&c.t);
	if (c.silent) {
		json_decref(c.r.json);
		fprintf(stderr, "weirctl: DNS cannot be asked: %s\n", trail_text());
		return 2;
	}
	return report_end(&c.r);
}
