/* weirctl tables check: aliases that lead nowhere, are in a loop or nested too deep (C5). The compiler lets them pass: what else an alias stands for still gets its mail. */
#include "control/findings.h"

#include <stdlib.h>
#include "spool/mail/address.h"

enum colour { WHITE, ON_THE_WAY, DONE };
enum { TOO_DEEP = TABLES_DEPTH_MAX + 1 };

/* One alias on the way, and which of its targets is next. */
struct visit {
	uint32_t alias, next;
	unsigned steps; /* of the longest way from here, as far as it was walked */
};

struct findings {
	const struct tables *t;
	findings_fn *found;
	void *ctx;
	unsigned n;
	uint8_t *colour; /* by alias */
	uint8_t *steps;  /* by alias that is done; TOO_DEEP and above: reported, or behind one that was */
	struct visit *way;
};

/* What a target leads to. */
struct step {
	bool nowhere;
	unsigned steps; /* to get there */
	const struct tables_alias *alias; /* the alias that it comes to; NULL: none, it is delivered */
};

static struct step look_up(const struct tables *t, const struct tables_domain *d, struct span local)
{
	char key[ADDRESS_LOCAL_MAX + 1];
	struct out o = out_of(key, sizeof(key));
	struct step s = { 0 };

	s.steps = 1;
	if (d->kind == DOMAIN_LONG_FORM) {
		d = &t->domain[d->short_form];
		s.steps++;
	}
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
		if (d->kind != DOMAIN_FORWARDED || !d->ntargets) {
			s = look_up(t, d, span_of(t->strings + g->addr.off, g->local_len));
			s.steps += i;
			return s;
		}
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

/* The way from v goes on with a step to an alias from which it is so many steps more. One that is too deep is reported where it becomes so. */
static void lengthen(struct findings *f, struct visit *v, const struct tables_target *g, unsigned step, unsigned rest)
{
	unsigned steps = step + rest;

	if (steps >= TOO_DEEP && rest < TOO_DEEP && v->steps < TOO_DEEP)
		report(f, &f->t->alias[v->alias], "is nested too deep", tables_span(f->t, g->addr));
	v->steps = steps > v->steps ? steps : v->steps;
	v->steps = v->steps > UINT8_MAX / 2 ? UINT8_MAX / 2 : v->steps;
}

static const struct tables_target *target_of(const struct findings *f, const struct visit *v, uint32_t i)
{
	return &f->t->target[f->t->alias[v->alias].first_target + i];
}

/* The last alias of the way is done: what is before it learns how far it goes. */
static size_t step_back(struct findings *f, size_t depth)
{
	struct visit *v = &f->way[depth - 1];

	f->colour[v->alias] = DONE;
	f->steps[v->alias] = (uint8_t)v->steps;
	if (depth > 1) {
		struct visit *before = &f->way[depth - 2];
		const struct tables_target *g = target_of(f, before, before->next - 1);

		lengthen(f, before, g, follow(f->t, g).steps, v->steps);
	}
	return depth - 1;
}

/* Walks all that an alias leads to, each alias once in all: a target that is on the way already closes a loop. */
static void walk(struct findings *f, uint32_t from)
{
	size_t depth = 0;

	f->way[depth++] = (struct visit){ .alias = from };
	f->colour[from] = ON_THE_WAY;
	while (depth) {
		struct visit *v = &f->way[depth - 1];
		const struct tables_alias *a = &f->t->alias[v->alias];
		const struct tables_target *g;
		struct step s;
		uint32_t to;

		if (v->next == a->ntargets) {
			depth = step_back(f, depth);
			continue;
		}
		g = target_of(f, v, v->next++);
		s = follow(f->t, g);
		if (s.nowhere)
			report(f, a, "leads nowhere", tables_span(f->t, g->addr));
		if (!s.alias || s.alias == a) { /* one that names itself is delivered as it is */
			lengthen(f, v, g, s.alias ? 0 : s.steps, 0);
			continue;
		}
		to = (uint32_t)(s.alias - f->t->alias);
		if (f->colour[to] == ON_THE_WAY)
			report(f, a, "closes a loop", tables_span(f->t, g->addr));
		else if (f->colour[to] == DONE)
			lengthen(f, v, g, s.steps, f->steps[to]);
		if (f->colour[to] != WHITE)
			continue;
		f->colour[to] = ON_THE_WAY;
		f->way[depth++] = (struct visit){ .alias = to };
	}
}

unsigned tables_findings(const struct tables *t, findings_fn *found, void *ctx)
{
	size_t n = t->h->aliases.n;
	struct findings f = { .t = t, .found = found, .ctx = ctx, 
		.colour = calloc(n + 1, 1), .steps = calloc(n + 1, 1), .way = calloc(n + 1, sizeof(*f.way)) };

	CHECK(f.colour && f.steps && f.way);
	for (uint32_t i = 0; i < n; i++)
		if (f.colour[i] == WHITE)
			walk(&f, i);
	free(f.colour);
	free(f.steps);
	free(f.way);
	return f.n;
}
