#include "control/tablesctl.h"

#include <stdlib.h>
#include <time.h>
#include "control/ask.h"
#include "control/compiling.h"
#include "control/findings.h"
#include "control/generations.h"
#include "control/rows.h"
#include "control/taken.h"

static enum status open_generation(const char *run_dir, uint64_t generation, struct tables *ret)
{
	char path[4200];

	return tables_open(generations_path(run_dir, generation, path), ret);
}

/* ---- show ---- */

static json_t *generation_json(uint64_t g, bool current, const struct tables *t)
{
	if (!t->h)
		return json_pack("{s:I, s:b, s:s}", "generation", (json_int_t)g, "current", current, "state", "damaged");
	return json_pack("{s:I, s:b, s:s, s:I, s:I, s:I, s:I}", "generation", (json_int_t)g, "current", current, "state", "good", "made",
		(json_int_t)(t->h->made_wall_ns / 1000000000), "domains", (json_int_t)t->h->domains.n, "aliases", (json_int_t)t->h->aliases.n,
		"bytes", (json_int_t)t->bytes);
}

static void print_generation(uint64_t g, bool current, const struct tables *t)
{
	char when[32] = "";
	time_t made;

	if (!t->h) {
		printf("%c %10llu  %s\n", current ? '*' : ' ', (unsigned long long)g, trail_text());
		return;
	}
	made = (time_t)(t->h->made_wall_ns / 1000000000);
	strftime(when, sizeof(when), "%Y-%m-%d %H:%M:%S", localtime(&made));
	printf("%c %10llu  %s %8llu %8llu %10zu\n", current ? '*' : ' ', (unsigned long long)g, when, (unsigned long long)t->h->domains.n,
		(unsigned long long)t->h->aliases.n, t->bytes);
}

static int show(const char *run_dir, bool as_json)
{
	uint64_t *all, current = tables_current(run_dir);
	size_t n = generations_list(run_dir, &all);
	json_t *list = json_array();
	struct compiling compiling;
	bool good = false;

	compiling_read(&compiling, run_dir);
	if (!as_json && n)
		printf("  GENERATION  MADE                 DOMAINS  ALIASES      BYTES\n");
	for (size_t i = 0; i < n; i++) {
		struct tables t = { 0 };

		if (open_generation(run_dir, all[i], &t) != ST_OK)
			t.h = NULL;
		good = good || (t.h && all[i] == current);
		if (as_json)
			json_array_append_new(list, generation_json(all[i], all[i] == current, &t));
		else
			print_generation(all[i], all[i] == current, &t);
		tables_close(&t);
	}
	free(all);
	if (as_json) {
		dump_json(json_pack("{s:I, s:b, s:o, s:o}", "current", (json_int_t)current, "pinned", generations_pinned(run_dir), "generations", list,
			"compiling", compiling_json(&compiling)));
		return good || !n ? 0 : 1;
	}
	json_decref(list);
	if (!n)
		puts("There are no tables.");
	else if (!good)
		puts("NONE OF THEM IS IN USE: tables/current is missing or damaged");
	if (generations_pinned(run_dir))
		puts("Pinned by a rollback: reloads change nothing until \"weirctl tables compile\".");
	compiling_print(&compiling);
	return good || !n ? 0 : 1;
}

/* ---- diff ---- */

struct diff {
	const struct tables *a, *b;
	json_t *list; /* NULL: text */
	unsigned long n;
};

static const char *const kind_name[DOMAIN_NKIND] = { [DOMAIN_ALIASES] = "aliases", [DOMAIN_RETIRED] = "retired",
	[DOMAIN_LONG_FORM] = "long form", [DOMAIN_ROUTED] = "routed", [DOMAIN_BACKUP_MX] = "backup mx", [DOMAIN_FORWARDED] = "forwarded",
	[DOMAIN_MOVED] = "moved addresses" };

/* The same order as that of the tables: the shorter of two equal beginnings first. */
static int compare(struct span x, struct span y)
{
	int c = memcmp(x.p, y.p, x.n < y.n ? x.n : y.n);

	return c ? c : (x.n > y.n) - (x.n < y.n);
}

static void alias_targets(const struct tables *t, uint32_t first, uint32_t n, FILE *f)
{
	for (uint32_t i = 0; i < n; i++)
		fprintf(f, "%s%.*s", i ? "," : "", SPAN_FMT(tables_span(t, t->target[first + i].addr)));
}

/* What a row says, as text: rows are equal when their texts are. The caller frees it. */
static char *domain_text(const struct tables *t, const struct tables_domain *d)
{
	char *text = NULL;
	size_t n;
	FILE *f = open_memstream(&text, &n);

	CHECK(f);
	fprintf(f, "%s%s", kind_name[d->kind], d->deliver_unlisted ? ", unlisted delivered" : "");
	if (d->kind == DOMAIN_RETIRED)
		fprintf(f, ": %.*s", SPAN_FMT(tables_span(t, d->text)));
	if (d->kind == DOMAIN_LONG_FORM)
		fprintf(f, " of %.*s", SPAN_FMT(tables_span(t, t->domain[d->short_form].name)));
	if (d->kind == DOMAIN_FORWARDED) {
		fputs(" to ", f);
		alias_targets(t, d->first_target, d->ntargets, f);
	}
	fclose(f);
	return text;
}

static char *alias_text(const struct tables *t, const struct tables_alias *a)
{
	char *text = NULL;
	size_t n;
	FILE *f = open_memstream(&text, &n);

	CHECK(f);
	alias_targets(t, a->first_target, a->ntargets, f);
	fclose(f);
	return text;
}

/* name is local@domain, or a domain. before and after: NULL when there is none. They are freed. */
static void difference(struct diff *d, struct span local, struct span domain, char *before, char *after)
{
	char name[400];
	bool same = before && after && strcmp(before, after) == 0;

	snprintf(name, sizeof(name), "%.*s%s%.*s", SPAN_FMT(local), local.n ? "@" : "", SPAN_FMT(domain));
	if (!same && d->list)
		json_array_append_new(d->list, json_pack("{s:s, s:s?, s:s?}", "name", name, "before", before, "after", after));
	else if (!same && before && after)
		printf("~ %s: %s -> %s\n", name, before, after);
	else if (!same)
		printf("%c %s: %s\n", before ? '-' : '+', name, before ? before : after);
	d->n += !same;
	free(before);
	free(after);
}

/* x and y may be NULL: all of the other's are new, or gone. */
static void diff_aliases(struct diff *d, const struct tables_domain *x, const struct tables_domain *y)
{
	uint32_t i = 0, j = 0, nx = x ? x->naliases : 0, ny = y ? y->naliases : 0;
	struct span domain = x ? tables_span(d->a, x->name) : tables_span(d->b, y->name);

	while (i < nx || j < ny) {
		const struct tables_alias *p = i < nx ? &d->a->alias[x->first_alias + i] : NULL;
		const struct tables_alias *q = j < ny ? &d->b->alias[y->first_alias + j] : NULL;
		int c = !p ? 1 : !q ? -1 : compare(tables_span(d->a, p->name), tables_span(d->b, q->name));

		difference(d, c <= 0 ? tables_span(d->a, p->name) : tables_span(d->b, q->name), domain, c <= 0 ? alias_text(d->a, p) : NULL,
			c >= 0 ? alias_text(d->b, q) : NULL);
		i += c <= 0;
		j += c >= 0;
	}
}

static void diff_domains(struct diff *d)
{
	uint64_t i = 0, j = 0;

	while (i < d->a->h->domains.n || j < d->b->h->domains.n) {
		const struct tables_domain *x = i < d->a->h->domains.n ? &d->a->domain[i] : NULL;
		const struct tables_domain *y = j < d->b->h->domains.n ? &d->b->domain[j] : NULL;
		int c = !x ? 1 : !y ? -1 : compare(tables_span(d->a, x->name), tables_span(d->b, y->name));

		x = c <= 0 ? x : NULL;
		y = c >= 0 ? y : NULL;
		difference(d, SPAN(""), x ? tables_span(d->a, x->name) : tables_span(d->b, y->name), x ? domain_text(d->a, x) : NULL,
			y ? domain_text(d->b, y) : NULL);
		diff_aliases(d, x, y);
		i += c <= 0;
		j += c >= 0;
	}
}

static uint64_t before_current(const char *run_dir)
{
	uint64_t *all, current = tables_current(run_dir), best = 0;
	size_t n = generations_list(run_dir, &all);

	for (size_t i = 0; i < n; i++)
		if (all[i] < current)
			best = all[i];
	free(all);
	return best;
}

static int diff(const char *run_dir, bool as_json, const char *from, const char *to)
{
	uint64_t x = 0, y = tables_current(run_dir);
	struct tables a = { 0 }, b = { 0 };
	struct diff d = { .a = &a, .b = &b };

	if ((from && !span_u64(span_str(from), UINT64_MAX - 1, &x)) || (to && !span_u64(span_str(to), UINT64_MAX - 1, &y)))
		return -1;
	x = from ? x : before_current(run_dir);
	if (!x || !y) {
		fprintf(stderr, "weirctl: there are no two generations to compare\n");
		return 1;
	}
	if (open_generation(run_dir, x, &a) != ST_OK || open_generation(run_dir, y, &b) != ST_OK) {
		tables_close(&a);
		return trail_failed();
	}
	d.list = as_json ? json_array() : NULL;
	diff_domains(&d);
	if (as_json)
		dump_json(json_pack("{s:I, s:I, s:o}", "from", (json_int_t)x, "to", (json_int_t)y, "differences", d.list));
	else
		printf("%lu differences from generation %llu to %llu\n", d.n, (unsigned long long)x, (unsigned long long)y);
	tables_close(&a);
	tables_close(&b);
	return 0;
}

/* ---- check ---- */

static void print_finding(void *ctx, const struct tables *t, const struct tables_alias *a, const char *what, struct span detail)
{
	struct span path = tables_span(t, t->source[a->source].path), name = tables_span(t, a->name);
	struct span domain = tables_span(t, t->domain[a->domain].name);

	if (ctx)
		json_array_append_new(ctx, json_pack("{s:s%, s:i, s:s%, s:s%, s:s, s:s%}", "file", path.p, path.n, "line", (int)a->line, "alias", name.p,
			name.n, "domain", domain.p, domain.n, "finding", what, "address", detail.p, detail.n));
	else
		printf("%.*s:%u: %.*s@%.*s: %.*s %s\n", SPAN_FMT(path), a->line, SPAN_FMT(name), SPAN_FMT(domain), SPAN_FMT(detail), what);
}

static int check(const char *run_dir, bool as_json)
{
	json_t *list = as_json ? json_array() : NULL;
	struct tables t;
	unsigned n;

	if (tables_open_current(run_dir, &t) != ST_OK)
		return trail_failed();
	n = tables_findings(&t, print_finding, list);
	tables_close(&t);
	if (as_json)
		dump_json(list);
	else if (!n)
		puts("No alias leads nowhere, in a loop or too deep.");
	return n ? 1 : 0;
}

/* ---- compile, rollback ---- */

static int ask_for(const char *run_dir, bool as_json, const char *request)
{
	char text[65536], *end;
	enum status st = ask_control(run_dir, request, text, sizeof(text));

	if (st == ST_INVALID) {
		fprintf(stderr, "%sThe tables in use stay as they are.\n", text);
		return 1;
	}
	if (st != ST_OK)
		return trail_failed();
	end = text + strcspn(text, "\n");
	*end = '\0';
	if (as_json)
		dump_json(json_pack("{s:I}", "generation", (json_int_t)tables_current(run_dir)));
	else
		printf("Published: %s.\n", text);
	return taken_wait(run_dir, as_json ? NULL : stdout) ? 0 : 1;
}

int tables_command(const char *run_dir, bool as_json, int argc, char **argv)
{
	const char *verb = argc > 1 ? argv[1] : "";
	char request[64];
	uint64_t n;

	if (strcmp(verb, "show") == 0 && argc == 2)
		return show(run_dir, as_json);
	if (strcmp(verb, "diff") == 0 && argc <= 4)
		return diff(run_dir, as_json, argc > 2 ? argv[2] : NULL, argc > 3 ? argv[3] : NULL);
	if (strcmp(verb, "check") == 0 && argc == 2)
		return check(run_dir, as_json);
	if (strcmp(verb, "compile") == 0 && argc == 2)
		return ask_for(run_dir, as_json, "tables compile\n");
	if (strcmp(verb, "rollback") != 0 || argc > 3 || (argc == 3 && !span_u64(span_str(argv[2]), UINT64_MAX - 1, &n)))
		return -1;
	snprintf(request, sizeof(request), "tables rollback%s%s\n", argc == 3 ? " " : "", argc == 3 ? argv[2] : "");
	return ask_for(run_dir, as_json, request);
}
