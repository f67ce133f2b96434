#include "dataplane/policy/alias.h"

/* Why an address led nowhere. Those from WHY_DEPTH on refuse the recipient, whatever else came out of it. */
enum why { WHY_NOTHING, WHY_LOOP, WHY_UNKNOWN, WHY_RETIRED, WHY_DEPTH, WHY_MANY, WHY_MEMORY };

/* Numbers by hash, in the pool: which aliases were followed, which addresses came out. 0: empty. */
struct set {
	uint32_t *slot;
	uint32_t n, mask;
};

struct walk {
	const struct policy_facts *f;
	const struct tables *t;
	struct pool *pool;
	struct alias_expansion *e;
	bool explain;
	bool at_postmaster; /* on behalf of a postmaster that the tables do not have */
	enum why why;
	const struct tables_domain *why_domain;
	struct set followed, given;
	uint32_t rcpt_cap, step_cap;
};

static void expand(struct walk *w, const struct tables_domain *d, struct span local, unsigned depth);

/* ---- memory ---- */

/* Doubles an array within the pool. NULL: none is left. */
static void *grow(struct walk *w, void *old, uint32_t n, uint32_t *cap, size_t size)
{
	uint32_t more = *cap ? *cap * 2 : 8;
	void *p = pool_alloc(w->pool, more * size);

	if (!p) {
		w->why = WHY_MEMORY;
		return NULL;
	}
	if (n)
		memcpy(p, old, n * size);
	*cap = more;
	return p;
}

static uint64_t hash_number(uint32_t v)
{
	return v * 0x9e3779b97f4a7c15ull >> 32;
}

static uint64_t hash_rcpt(const struct walk *w, uint32_t v)
{
	return tables_domain_hash(w->t->h->seed, w->e->rcpt[v - 1]);
}

static bool set_grow(struct walk *w, struct set *s)
{
	uint32_t cap = s->slot ? (s->mask + 1) * 2 : 16;
	uint32_t *slot = pool_alloc(w->pool, cap * sizeof(*slot));

	if (!slot) {
		w->why = WHY_MEMORY;
		return false;
	}
	for (uint32_t i = 0; s->slot && i <= s->mask; i++) {
		uint64_t at = !s->slot[i] ? 0 : s == &w->given ? hash_rcpt(w, s->slot[i]) : hash_number(s->slot[i]);

		while (s->slot[i] && slot[at & (cap - 1)])
			at++;
		if (s->slot[i])
			slot[at & (cap - 1)] = s->slot[i];
	}
	s->slot = slot;
	s->mask = cap - 1;
	return true;
}

static bool set_room(struct walk *w, struct set *s)
{
	return (s->slot && s->n * 2 <= s->mask) || set_grow(w, s);
}

/* True when this is the first time that the alias is come to. */
static bool follow(struct walk *w, const struct tables_alias *a)
{
	uint32_t v = (uint32_t)(a - w->t->alias) + 1;
	struct set *s = &w->followed;
	uint64_t at = hash_number(v);

	if (!set_room(w, s))
		return false;
	for (; s->slot[at & s->mask]; at++)
		if (s->slot[at & s->mask] == v)
			return false;
	s->slot[at & s->mask] = v;
	s->n++;
	return true;
}

/* ---- results ---- */

static void nowhere(struct walk *w, enum why why, const struct tables_domain *d, struct span addr)
{
	if (why > w->why) {
		w->why = why;
		w->why_domain = d;
	}
	if (!w->e->ndropped++)
		w->e->dropped = addr;
}

/* An address that comes out. It must outlive the walk. */
static void give(struct walk *w, struct span addr)
{
	struct alias_expansion *e = w->e;
	struct set *s = &w->given;
	uint64_t at = tables_domain_hash(w->t->h->seed, addr);

	if (!addr.p || !set_room(w, s)) {
		w->why = WHY_MEMORY;
		return;
	}
	for (; s->slot[at & s->mask]; at++)
		if (span_eq(e->rcpt[s->slot[at & s->mask] - 1], addr))
			return;
	if (e->nrcpt == ALIAS_RCPTS_MAX) {
		w->why = WHY_MANY;
		return;
	}
	if (e->nrcpt == w->rcpt_cap) {
		struct span *bigger = grow(w, e->rcpt, e->nrcpt, &w->rcpt_cap, sizeof(*bigger));

		if (!bigger)
			return;
		e->rcpt = bigger;
	}
	e->rcpt[e->nrcpt++] = addr;
	s->slot[at & s->mask] = e->nrcpt;
	s->n++;
}

/* local@domain in the pool; p NULL: no memory. */
static struct span compose(struct walk *w, const struct tables_domain *d, struct span local)
{
	char text[ADDRESS_LOCAL_MAX + ADDRESS_DOMAIN_MAX + 2];
	struct out o = out_of(text, sizeof(text));

	out_add(&o, local);
	out_char(&o, '@');
	out_add(&o, tables_span(w->t, d->name));
	return pool_span(w->pool, out_span(&o));
}

static void step(struct walk *w, struct alias_step s)
{
	struct alias_expansion *e = w->e;

	if (!w->explain)
		return;
	if (e->nstep == w->step_cap) {
		struct alias_step *bigger = grow(w, e->step, e->nstep, &w->step_cap, sizeof(*bigger));

		if (!bigger)
			return;
		e->step = bigger;
	}
	e->step[e->nstep++] = s;
}

/* ---- the walk ---- */

static bool is_postmaster(struct span local)
{
	return address_is_postmaster(&(struct address){ .local = local });
}

static bool key_of(struct span local, struct out *o)
{
	o->n = 0;
	return address_local_key(local, o) == ST_OK;
}

/* An alias that names itself is that very address: so a user can be forwarded and keep a copy. */
static bool is_itself(const struct walk *w, const struct tables_target *g, const struct tables_alias *a)
{
	char key[ADDRESS_LOCAL_MAX + 1];
	struct out o = out_of(key, sizeof(key));

	return g->domain == a->domain && key_of(span_of(w->t->strings + g->addr.off, g->local_len), &o) &&
		span_eq(out_span(&o), tables_span(w->t, a->name));
}

static void expand_target(struct walk *w, const struct tables_target *g, bool itself, unsigned depth)
{
	struct span addr = tables_span(w->t, g->addr);

	if (g->domain == TABLES_NONE || itself)
		give(w, addr);
	else
		expand(w, &w->t->domain[g->domain], span_of(addr.p, g->local_len), depth + 1);
}

static void expand_alias(struct walk *w, const struct tables_domain *d, const struct tables_alias *a, struct span local, unsigned depth)
{
	const struct tables_target *g = &w->t->target[a->first_target];

	step(w, (struct alias_step){ .rule = a->is_forwarding ? "C8" : "C6", .what = a->is_forwarding ? "forwarding of a user" : "alias",
		.depth = depth, .from = w->explain ? compose(w, d, local) : SPAN_NONE, .to = a->ntargets ? tables_span(w->t, g->addr) : SPAN_NONE,
		.nto = a->ntargets, .domain = d, .alias = a });
	if (!follow(w, a)) {
		if (w->why < WHY_LOOP)
			w->why = WHY_LOOP; /* or two ways to one address: then something comes out elsewhere */
		return;
	}
	for (uint32_t i = 0; i < a->ntargets && w->why < WHY_DEPTH; i++)
		expand_target(w, &g[i], is_itself(w, &g[i], a), depth);
}

/* A postmaster that the tables do not have is the one of the whole relay; without one the address stays what it is. */
static void expand_postmaster(struct walk *w, const struct tables_domain *d, struct span local, unsigned depth)
{
	struct span text = snap_span(w->f->snap, w->f->snap->h->settings.postmaster);
	char key[ADDRESS_DOMAIN_MAX + 1];
	struct out o = out_of(key, sizeof(key));
	const struct tables_domain *to = NULL;
	struct address a;

	if (!text.n || w->at_postmaster || address_parse(text, 0, &a) != ST_OK) {
		give(w, compose(w, d, local));
		return;
	}
	step(w, (struct alias_step){ .rule = "B4", .what = "postmaster of the relay", .depth = depth,
		.from = w->explain ? compose(w, d, local) : SPAN_NONE, .to = text, .nto = 1, .domain = d });
	w->at_postmaster = true;
	if (!a.is_literal && address_domain_key(a.domain, &o) == ST_OK)
		to = tables_find_domain(w->t, out_span(&o));
	if (to)
		expand(w, to, a.local, depth + 1);
	else
		give(w, text);
	w->at_postmaster = false;
}

static void expand_listed(struct walk *w, const struct tables_domain *d, struct span local, unsigned depth)
{
	char key[ADDRESS_LOCAL_MAX + 1];
	struct out o = out_of(key, sizeof(key));
	const struct tables_alias *a = key_of(local, &o) ? tables_find_alias(w->t, d, out_span(&o)) : NULL;

	if (a) {
		expand_alias(w, d, a, local, depth);
	} else if (is_postmaster(local) && !d->deliver_unlisted) {
		expand_postmaster(w, d, local, depth);
	} else {
		struct span addr = compose(w, d, local);

		step(w, (struct alias_step){ .rule = d->deliver_unlisted ? "C8" : "B2", .what = d->deliver_unlisted ? "not listed: as it is" : "not listed",
			.depth = depth, .from = addr, .to = d->deliver_unlisted ? addr : SPAN_NONE, .nto = d->deliver_unlisted, .domain = d });
		if (d->deliver_unlisted)
			give(w, addr);
		else
			nowhere(w, WHY_UNKNOWN, d, addr);
	}
}

static void expand_forwarded(struct walk *w, const struct tables_domain *d, struct span local, unsigned depth)
{
	const struct tables_target *g = &w->t->target[d->first_target];

	step(w, (struct alias_step){ .rule = "C8", .what = "fixed forwarding", .depth = depth, .from = w->explain ? compose(w, d, local) : SPAN_NONE,
		.to = d->ntargets ? tables_span(w->t, g->addr) : SPAN_NONE, .nto = d->ntargets, .domain = d });
	for (uint32_t i = 0; i < d->ntargets; i++)
		expand_target(w, &g[i], g[i].domain == tables_index(w->t, d), depth);
}

static void expand_as_it_is(struct walk *w, const struct tables_domain *d, struct span local, unsigned depth)
{
	struct span addr = compose(w, d, local);

	step(w, (struct alias_step){ .rule = d->kind == DOMAIN_BACKUP_MX ? "B1" : "C8", .depth = depth, .from = addr, .to = addr, .nto = 1,
		.what = d->kind == DOMAIN_BACKUP_MX ? "backup exchanger" : "routed elsewhere", .domain = d });
	give(w, addr);
}

static void expand_retired(struct walk *w, const struct tables_domain *d, struct span local, unsigned depth)
{
	struct span addr;

	if (is_postmaster(local)) {
		expand_postmaster(w, d, local, depth);
		return;
	}
	addr = compose(w, d, local);
	step(w, (struct alias_step){ .rule = "C8", .what = "retired domain", .depth = depth, .from = addr, .domain = d });
	nowhere(w, WHY_RETIRED, d, addr);
}

static void expand(struct walk *w, const struct tables_domain *d, struct span local, unsigned depth)
{
	if (depth > ALIAS_DEPTH_MAX) {
		nowhere(w, WHY_DEPTH, d, compose(w, d, local));
		return;
	}
	switch ((enum snap_domain_kind)d->kind) {
	case DOMAIN_LONG_FORM: {
		const struct tables_domain *to = &w->t->domain[d->short_form];

		step(w, (struct alias_step){ .rule = "C7", .what = "long form", .depth = depth, .from = w->explain ? compose(w, d, local) : SPAN_NONE,
			.to = w->explain ? compose(w, to, local) : SPAN_NONE, .nto = 1, .domain = d });
		expand(w, to, local, depth + 1);
		break;
	}
	case DOMAIN_ALIASES:
		expand_listed(w, d, local, depth);
		break;
	case DOMAIN_FORWARDED:
		expand_forwarded(w, d, local, depth);
		break;
	case DOMAIN_ROUTED:
	case DOMAIN_BACKUP_MX:
		expand_as_it_is(w, d, local, depth);
		break;
	case DOMAIN_RETIRED:
		expand_retired(w, d, local, depth);
		break;
	case DOMAIN_MOVED: /* no address is in it */
	case DOMAIN_NKIND:
		break;
	}
}

/* ---- the decision ---- */

static void refuse(const struct walk *w, const struct address *rcpt)
{
	struct decision *d = &w->e->d;

	d->accept = false;
	switch (w->why) {
	case WHY_RETIRED:
		d->rule = RULE_RCPT_RETIRED;
		reply_set(&d->reply, 550, "5.1.6", "%.*s", SPAN_FMT(tables_span(w->t, w->why_domain->text)));
		break;
	case WHY_LOOP:
		d->rule = RULE_RCPT_LOOP;
		reply_set(&d->reply, 550, "5.4.6", "%.*s: its aliases are a loop", SPAN_FMT(rcpt->full));
		break;
	case WHY_DEPTH:
		d->rule = RULE_RCPT_LOOP;
		reply_set(&d->reply, 550, "5.4.6", "%.*s: aliases are nested more than %d deep", SPAN_FMT(rcpt->full), ALIAS_DEPTH_MAX);
		break;
	case WHY_MANY:
		d->rule = RULE_RCPT_LOOP;
		reply_set(&d->reply, 550, "5.2.4", "%.*s stands for more than %d recipients", SPAN_FMT(rcpt->full), ALIAS_RCPTS_MAX);
		break;
	case WHY_MEMORY:
		d->rule = RULE_NO_ROOM;
		reply_set(&d->reply, 452, "4.3.1", "The transaction is too large, try with fewer recipients");
		break;
	case WHY_UNKNOWN:
	case WHY_NOTHING:
		d->rule = RULE_RCPT_UNKNOWN;
		reply_set(&d->reply, 550, "5.1.1", "%.*s: there is no such address", SPAN_FMT(rcpt->full));
		break;
	}
}

/* The domain is to be in the tables, but these do not have it: they are damaged, or not compiled yet. */
static void unavailable(struct alias_expansion *e, struct span domain)
{
	e->d = (struct decision){ .accept = false, .rule = RULE_TABLES_MISSING };
	reply_set(&e->d.reply, 451, "4.3.0", "The address tables of %.*s are not available, try again later", SPAN_FMT(domain));
}

/* B4: postmaster is accepted although the tables of its domain are missing: it is the relay's then, where that is somebody else. */
static bool relays_postmaster(struct walk *w, const struct address *rcpt, struct span domain)
{
	struct span text = snap_span(w->f->snap, w->f->snap->h->settings.postmaster);
	char key[ADDRESS_DOMAIN_MAX + 1];
	struct out o = out_of(key, sizeof(key));
	const struct tables_domain *to;
	struct address a;

	if (!is_postmaster(rcpt->local) || address_parse(text, 0, &a) != ST_OK || a.is_literal || address_domain_key(a.domain, &o) != ST_OK || span_eq(out_span(&o), domain))
		return false;
	w->e->in_tables = true;
	w->at_postmaster = true;
	if ((to = tables_find_domain(w->t, out_span(&o)))) {
		expand(w, to, a.local, 1);
	} else if (!snap_find_mail_domain(w->f->snap, out_span(&o)) && (w->e->rcpt = pool_alloc(w->pool, sizeof(*w->e->rcpt)))) {
		w->e->rcpt[0] = text;
		w->e->nrcpt = 1;
	}
	w->e->in_tables = w->e->nrcpt > 0;
	return w->e->in_tables;
}

static struct address whose_postmaster(const struct policy_facts *f, const struct address *rcpt)
{
	struct address a;

	/* bare postmaster is the relay's own */
	if (!rcpt->domain.n && address_parse(snap_span(f->snap, f->snap->h->settings.postmaster), 0, &a) == ST_OK)
		return a;
	return *rcpt;
}

void policy_alias(const struct policy_facts *f, const struct address *rcpt, bool explain, struct pool *pool, struct alias_expansion *ret)
{
	struct address a = whose_postmaster(f, rcpt);
	char key[ADDRESS_DOMAIN_MAX + 1];
	struct out o = out_of(key, sizeof(key));
	const struct tables_domain *d;
	struct walk w = { .f = f, .t = f->tables, .pool = pool, .e = ret, .explain = explain };

	*ret = (struct alias_expansion){ .d = { .accept = true } };
	if (!a.domain.n || a.is_literal || address_domain_key(a.domain, &o) != ST_OK)
		return;
	d = tables_find_domain(f->tables, out_span(&o));
	if (!d) {
		if (snap_find_mail_domain(f->snap, out_span(&o)) && !relays_postmaster(&w, rcpt, out_span(&o)))
			unavailable(ret, out_span(&o));
		return;
	}
	ret->in_tables = true;
	w.at_postmaster = !rcpt->domain.n;
	expand(&w, d, a.local, 0);
	if (is_postmaster(rcpt->local) && (w.why >= WHY_DEPTH || !ret->nrcpt)) {
		/* B4: postmaster is accepted whatever the tables say */
		ret->nrcpt = 0;
		w = (struct walk){ .f = f, .t = f->tables, .pool = pool, .e = ret };
		give(&w, a.full);
	}
	if (w.why >= WHY_DEPTH || !ret->nrcpt)
		refuse(&w, rcpt);
}
