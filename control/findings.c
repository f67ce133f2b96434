/* weirctl tables check: aliases that lead nowhere and aliases in a loop (C5). The compiler lets them pass: what else an alias stands for still gets its mail. */
#include "control/findings.h"

#include <stdlib.h>
#include "spool/mail/address.h"

enum colour { WHITE, ON_THE_WAY, DONE };

/* One alias on the way, and which of its targets is next. */
struct visit {
	uint32_t alias, next;
};

struct findings {
	const struct tables *t;
	findings_fn *found;
	void *ctx;
	unsigned n;
	uint8_t *colour; /* by alias */
	struct visit *way;
};

/* What a target leads to. */
struct step {
	bool nowhere;
	const struct tables_alias *alias; /* the alias that it comes to; NULL: none, it is delivered */
};

static struct step look_up(const struct tables *t, const struct tables_domain *d, struct span local)
{
	char key[ADDRESS_LOCAL_MAX + 1];
	struct out o = out_of(key, sizeof(key));
	struct step s = { 0 };

	if (d->kind == DOMAIN_LONG_FORM)
		d = &t->domain[d->short_form];
	if (address_local_key(local, &o) != ST_OK)
		return s;
	if (d->kind == DOMAIN_ALIASES)
		s.alias = tables_find_alias(t, d, out_span(&o));
	/* postmaster is always somebody (B4) */
	s.nowhere = !s.alias && !span_eq(out_span(&o), SPAN("postmaster")) &&
		(d->kind == DOMAIN_RETIRED || (d->kind == DOMAIN_ALIASES && !d->deliver_unlisted));
	return s;
}

static struct step follow(const struct tables *t, const struct tables_target *g)
{
	const struct tables_domain *d;
	struct step s = { 0 };

	/* fixed forwarding is followed as far as a chain of aliases could be long; two domains that are forwarded to each other end here */
	for (unsigned i = 0; g->domain != TABLES_NONE && i < 16; i++) {
		d = &t->domain[g->domain];
		if (d->kind != DOMAIN_FORWARDED || !d->ntargets)
			return look_up(t, d, span_of(t->strings + g->addr.off, g->local_len));
		if (t->target[d->first_target].domain == g->domain)
			break;
		g = &t->target[d->first_target];
	}
	return s;
}

static void report(struct findings *f, const struct tables_alias *a, const char *what, struct span detail)
{
	f->n++;
	f->found(f->ctx, f->t, a, what, detail);
}

/* Walks all that an alias leads to, each alias once in all: a target that is on the way already closes a loop. */
static void walk(struct findings *f, uint32_t from)
{
	const struct tables *t = f->t;
	size_t depth = 0;

	f->way[depth++] = (struct visit){ .alias = from };
	f->colour[from] = ON_THE_WAY;
	while (depth) {
		struct visit *v = &f->way[depth - 1];
		const struct tables_alias *a = &t->alias[v->alias];
		const struct tables_target *g = &t->target[a->first_target + v->next];
		struct step s;
		uint32_t to;

		if (v->next++ == a->ntargets) {
			f->colour[v->alias] = DONE;
			depth--;
			continue;
		}
		s = follow(t, g);
		if (s.nowhere)
			report(f, a, "leads nowhere", tables_span(t, g->addr));
		if (!s.alias || s.alias == a) /* one that names itself is delivered as it is */
			continue;
		to = (uint32_t)(s.alias - t->alias);
		if (f->colour[to] == ON_THE_WAY)
			report(f, a, "closes a loop", tables_span(t, g->addr));
		if (f->colour[to] != WHITE)
			continue;
		f->colour[to] = ON_THE_WAY;
		f->way[depth++] = (struct visit){ .alias = to };
	}
}

unsigned tables_findings(const struct tables *t, findings_fn *found, void *ctx)
{
	size_t n = t->h->aliases.n;
	struct findings f = { .t = t, .found = found, .ctx = ctx, .colour = calloc(n + 1, 1), .way = calloc(n + 1, sizeof(*f.way)) };

	CHECK(f.colour && f.way);
	for (uint32_t i = 0; i < n; i++)
		if (f.colour[i] == WHITE)
			walk(&f, i);
	free(f.colour);
	free(f.way);
	return f.n;
}
