/* weirctl alias ADDR: what an address stands for by the tables, and which aliases lead to it (C6). What the rules make of it is weirctl route's question. */
#include <jansson.h>
#include <stdlib.h>
#include "control/tablesctl.h"
#include "spool/base/map.h"
#include "spool/mail/address.h"
#include "spool/store/tables.h"

enum { KEY_MAX = ADDRESS_LOCAL_MAX + ADDRESS_DOMAIN_MAX + 2 };

/* An alias that leads to the address, by how many others on the way. */
struct found {
	uint32_t alias;
	unsigned steps;
};

struct reverse {
	const struct tables *t;
	struct map *wanted; /* look-up forms of the address and of all that leads to it */
	bool *seen;         /* by alias */
	struct found *found;
	size_t n, cap;
};

/* local@domain as both are looked up. */
static struct span full_key(struct span local, struct span domain, char *buf)
{
	struct out o = out_of(buf, KEY_MAX);

	CHECK(address_local_key(local, &o) == ST_OK);
	out_char(&o, '@');
	out_add(&o, domain);
	return out_span(&o);
}

/* The domain that a long form stands for, or itself. */
static const struct tables_domain *short_form(const struct tables *t, const struct tables_domain *d)
{
	return d->kind == DOMAIN_LONG_FORM ? &t->domain[d->short_form] : d;
}

/* What a target comes to before any alias is looked up: through fixed forwarding and long forms. Domains that are forwarded to each other end somewhere among them. */
static struct span target_key(const struct tables *t, const struct tables_target *g, char *buf)
{
	struct span addr, domain;

	for (unsigned i = 0; i < 16 && g->domain != TABLES_NONE && t->domain[g->domain].kind == DOMAIN_FORWARDED; i++)
		g = &t->target[t->domain[g->domain].first_target];
	addr = tables_span(t, g->addr);
	domain = g->domain == TABLES_NONE ? span_skip(addr, g->local_len + 1) : tables_span(t, short_form(t, &t->domain[g->domain])->name);
	return full_key(span_of(addr.p, g->local_len), domain, buf);
}

static void want(struct reverse *r, struct span key)
{
	CHECK(map_set(r->wanted, key, r) == ST_OK);
}

static bool leads_to_wanted(const struct reverse *r, const struct tables_alias *a)
{
	char buf[KEY_MAX];

	for (uint32_t i = 0; i < a->ntargets; i++)
		if (map_get(r->wanted, target_key(r->t, &r->t->target[a->first_target + i], buf)))
			return true;
	return false;
}

static void add_found(struct reverse *r, uint32_t alias, unsigned steps)
{
	if (r->n == r->cap) {
		r->cap = r->cap ? r->cap * 2 : 64;
		r->found = realloc(r->found, r->cap * sizeof(*r->found));
		CHECK(r->found);
	}
	r->found[r->n++] = (struct found){ alias, steps };
	r->seen[alias] = true;
}

/* One pass over all aliases for each step of the way; what it finds is wanted in the next. */
static void search(struct reverse *r)
{
	size_t from = 0;
	char buf[KEY_MAX];

	for (unsigned steps = 1; steps == 1 || from < r->n; steps++) {
		for (; from < r->n; from++) {
			const struct tables_alias *a = &r->t->alias[r->found[from].alias];

			want(r, full_key(tables_span(r->t, a->name), tables_span(r->t, r->t->domain[a->domain].name), buf));
		}
		for (uint32_t i = 0; i < r->t->h->aliases.n; i++)
			if (!r->seen[i] && leads_to_wanted(r, &r->t->alias[i]))
				add_found(r, i, steps);
	}
}

/* Whether all mail to a domain comes to what is asked for: 'F' by fixed forwarding, 'L' because it is a long form of its domain; else 0. */
static char leads_as_a_whole(const struct reverse *r, const struct tables_domain *d, const struct tables_domain *asked)
{
	char buf[KEY_MAX];

	if (d->kind == DOMAIN_FORWARDED && d->ntargets && map_get(r->wanted, target_key(r->t, &r->t->target[d->first_target], buf)))
		return 'F';
	return d->kind == DOMAIN_LONG_FORM && asked && &r->t->domain[d->short_form] == asked ? 'L' : 0;
}

/* ---- output ---- */

static json_t *targets_json(const struct tables *t, uint32_t first, uint32_t n)
{
	json_t *list = json_array();

	for (uint32_t i = 0; i < n; i++) {
		struct span s = tables_span(t, t->target[first + i].addr);

		json_array_append_new(list, json_stringn(s.p, s.n));
	}
	return list;
}

static json_t *alias_json(const struct tables *t, const struct tables_alias *a)
{
	char buf[KEY_MAX];
	struct span name = full_key(tables_span(t, a->name), tables_span(t, t->domain[a->domain].name), buf);
	struct span path = tables_span(t, t->source[a->source].path);

	return json_pack("{s:s%, s:o, s:s%, s:i, s:s}", "alias", name.p, name.n, "targets", targets_json(t, a->first_target, a->ntargets), "file", path.p,
		path.n, "line", (int)a->line, "kind", a->is_forwarding ? "forwarding" : "alias");
}

static void print_alias(const struct tables *t, const struct tables_alias *a, const char *lead)
{
	printf("%s%.*s@%.*s ->", lead, SPAN_FMT(tables_span(t, a->name)), SPAN_FMT(tables_span(t, t->domain[a->domain].name)));
	for (uint32_t i = 0; i < a->ntargets; i++)
		printf(" %.*s", SPAN_FMT(tables_span(t, t->target[a->first_target + i].addr)));
	printf("  (%.*s:%u)\n", SPAN_FMT(tables_span(t, t->source[a->source].path)), a->line);
}

static const char *domain_says(const struct tables_domain *d)
{
	static const char *const text[DOMAIN_NKIND] = { [DOMAIN_ALIASES] = "has a table of aliases", [DOMAIN_RETIRED] = "is retired",
		[DOMAIN_LONG_FORM] = "is a long form", [DOMAIN_ROUTED] = "is routed elsewhere", [DOMAIN_BACKUP_MX] = "has us as backup exchanger",
		[DOMAIN_FORWARDED] = "is forwarded to one address",
		[DOMAIN_MOVED] = "is a list of moved addresses" };

	return d ? text[d->kind] : "is not in the tables";
}

static void print_all(const struct reverse *r, const struct tables_domain *d, const struct tables_alias *a, struct span domain)
{
	const struct tables *t = r->t;

	printf("%.*s %s", SPAN_FMT(domain), domain_says(d));
	if (d && d->kind == DOMAIN_LONG_FORM)
		printf(" of %.*s", SPAN_FMT(tables_span(t, t->domain[d->short_form].name)));
	if (d && d->kind == DOMAIN_RETIRED)
		printf(": %.*s", SPAN_FMT(tables_span(t, d->text)));
	if (d && d->kind == DOMAIN_FORWARDED && d->ntargets)
		printf(": %.*s", SPAN_FMT(tables_span(t, t->target[d->first_target].addr)));
	if (d)
		printf(" (configuration line %u)", d->line);
	putchar('\n');
	if (a)
		print_alias(t, a, "");
	else if (d && d->kind == DOMAIN_ALIASES)
		puts(d->deliver_unlisted ? "The address is not listed: it is delivered as it is." : "The address is not listed.");
	for (size_t i = 0; i < r->n; i++)
		print_alias(t, &t->alias[r->found[i].alias], r->found[i].steps > 1 ? "indirectly from " : "from ");
	if (!r->n)
		puts("No alias leads to it.");
	for (uint64_t i = 0; i < t->h->domains.n; i++) {
		char how = leads_as_a_whole(r, &t->domain[i], d);

		if (how)
			printf("from %s%.*s (configuration line %u)\n", how == 'F' ? "everything at " : "the same at the long form ",
				SPAN_FMT(tables_span(t, t->domain[i].name)), t->domain[i].line);
	}
}

static void print_json(const struct reverse *r, const struct tables_domain *d, const struct tables_alias *a, const char *addr)
{
	json_t *reverse = json_array(), *domains = json_array(), *all;

	for (size_t i = 0; i < r->n; i++) {
		json_t *o = alias_json(r->t, &r->t->alias[r->found[i].alias]);

		json_object_set_new(o, "steps", json_integer(r->found[i].steps));
		json_array_append_new(reverse, o);
	}
	for (uint64_t i = 0; i < r->t->h->domains.n; i++)
		if (leads_as_a_whole(r, &r->t->domain[i], d)) {
			struct span name = tables_span(r->t, r->t->domain[i].name);

			json_array_append_new(domains, json_stringn(name.p, name.n));
		}
	all = json_pack("{s:s, s:s, s:o, s:o, s:o}", "address", addr, "domain", domain_says(d), "entry", a ? alias_json(r->t, a) : json_null(), "reverse",
		reverse, "whole_domains", domains);
	json_dumpf(all, stdout, JSON_INDENT(2));
	putchar('\n');
	json_decref(all);
}

int alias_command(const char *run_dir, bool as_json, const char *text)
{
	char domain[ADDRESS_DOMAIN_MAX + 1], local[ADDRESS_LOCAL_MAX + 1], key[KEY_MAX];
	struct out o = out_of(domain, sizeof(domain)), l = out_of(local, sizeof(local));
	const struct tables_domain *d;
	const struct tables_alias *a = NULL;
	struct reverse r = { 0 };
	struct address addr;
	struct tables t;

	if (address_parse(span_str(text), ADDRESS_UTF8, &addr) != ST_OK || (!addr.is_literal && address_domain_key(addr.domain, &o) != ST_OK) ||
		tables_open_current(run_dir, &t) != ST_OK || address_local_key(addr.local, &l) != ST_OK) {
		fprintf(stderr, "weirctl: %s: %s\n", text, trail_text());
		return 1;
	}
	d = tables_find_domain(&t, out_span(&o));
	if (d && short_form(&t, d)->kind == DOMAIN_ALIASES)
		a = tables_find_alias(&t, short_form(&t, d), out_span(&l));
	r.t = &t;
	r.seen = calloc(t.h->aliases.n + 1, sizeof(*r.seen));
	CHECK(r.seen && map_new(&r.wanted) == ST_OK);
	want(&r, full_key(addr.local, addr.is_literal ? addr.domain : d ? tables_span(&t, short_form(&t, d)->name) : out_span(&o), key));
	search(&r);
	if (as_json)
		print_json(&r, d, a, text);
	else
		print_all(&r, d, a, out_span(&o));
	map_free(r.wanted);
	free(r.seen);
	free(r.found);
	tables_close(&t);
	return a || r.n || d ? 0 : 1;
}
