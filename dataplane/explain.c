#include "dataplane/explain.h"

#include "dataplane/policy/alias.h"
#include "dataplane/route.h"
#include "dataplane/terms.h"
#include "spool/base/clock.h"

enum { HOPS_SHOWN = 100 };

struct explain {
	struct worker *w;
	struct policy_facts f;
	explain_row_fn *emit;
	void *ctx;
};

static void begin(struct logline *row, const char *rule, const char *what, struct span from)
{
	row_begin(row);
	log_str(row, "rule", rule);
	log_str(row, "what", what);
	log_span(row, "from", from);
}

/* The line of the configuration that decides who may send to this domain. */
uint32_t explain_relay_line(const struct policy_facts *f, const struct address *a)
{
	char key[ADDRESS_DOMAIN_MAX + 1];
	struct out o = out_of(key, sizeof(key));
	const struct snap_domain *d;
	const struct tables_domain *t;

	if (f->net)
		return f->net->line;
	if (!a->domain.n || a->is_literal || address_domain_key(a->domain, &o) != ST_OK)
		return 0;
	if ((t = tables_find_domain(f->tables, out_span(&o))))
		return t->line;
	d = snap_find_domain(f->snap, out_span(&o));
	return d ? d->line : 0;
}

static bool explain_relay(struct explain *x, const struct address *a)
{
	struct decision d = policy_relay(&x->f, a);
	uint32_t line = explain_relay_line(&x->f, a);
	struct logline row;
	char text[REPLY_TEXT_MAX + 32];
	struct out o = out_of(text, sizeof(text));

	begin(&row, rule_row[d.rule].row, d.accept ? (x->f.net ? "client may relay" : "our domain") : "refused", a->full);
	if (!d.accept) {
		reply_line(&d.reply, &o);
		log_span(&row, "to", out_span(&o));
	}
	if (line)
		log_u64(&row, "config_line", line);
	x->emit(x->ctx, &row);
	return d.accept;
}

static void explain_step(struct explain *x, const struct alias_step *s)
{
	const struct tables *t = x->f.tables;
	struct logline row;

	begin(&row, s->rule, s->what, s->from);
	if (s->to.n)
		log_span(&row, "to", s->to);
	if (s->nto > 1)
		log_u64(&row, "more", s->nto - 1);
	if (s->alias) {
		log_span(&row, "file", tables_span(t, t->source[s->alias->source].path));
		log_u64(&row, "line", s->alias->line);
	}
	log_u64(&row, "config_line", s->domain->line);
	x->emit(x->ctx, &row);
}

static bool is_moved(const struct explain *x, const struct snap_route *r)
{
	struct span name = r ? snap_span(x->f.snap, r->name) : SPAN_NONE;

	return name.n && name.p[0] == '@';
}

/* What the route says of its mail, as the configuration has it. */
static void explain_terms(const struct explain *x, const struct snap_route *r, struct logline *row)
{
	char text[400];
	struct out o = out_of(text, sizeof(text));

	if (terms_on_hold(r, clock_steady_ns()))
		terms_hold_text(x->f.snap, r, &o);
	if (r && r->size_max)
		out_fmt(&o, "%ssize %llu", o.n ? "; " : "", (unsigned long long)r->size_max);
	if (r && r->life_ns == UINT64_MAX)
		out_fmt(&o, "%slife unlimited", o.n ? "; " : "");
	else if (r && r->life_ns)
		out_fmt(&o, "%slife %llus", o.n ? "; " : "", (unsigned long long)(r->life_ns / NS_PER_S));
	if (o.n)
		log_span(row, "terms", out_span(&o));
}

static void explain_hop(struct explain *x, struct span addr)
{
	char key[ROUTE_KEY_MAX];
	struct next_hop hop;
	struct logline row;

	if (route_rcpt(x->f.snap, x->f.tables, addr, HOP_TLS_ROUTE, key, &hop) != ST_OK) {
		begin(&row, "F1", "no route", addr);
		log_str(&row, "to", trail_text());
	} else {
		begin(&row, is_moved(x, hop.route) ? "C8" : "F1", is_moved(x, hop.route) ? "moved" : hop.route ? "route" : "by MX", addr);
		log_span(&row, "to", hop.key);
		explain_terms(x, hop.route, &row);
		if (hop.route)
			log_u64(&row, "config_line", hop.route->line);
	}
	x->emit(x->ctx, &row);
}

static void explain_refusal(struct explain *x, const struct decision *d, struct span addr)
{
	char text[REPLY_TEXT_MAX + 32];
	struct out o = out_of(text, sizeof(text));
	struct logline row;

	begin(&row, rule_row[d->rule].row, "refused", addr);
	log_str(&row, "code", rule_row[d->rule].name);
	reply_line(&d->reply, &o);
	log_span(&row, "to", out_span(&o));
	x->emit(x->ctx, &row);
}

const char *explain_route(struct worker *w, const char *addr, const char *client, explain_row_fn *emit, void *ctx)
{
	struct explain x = { .w = w, .f = { .snap = &w->cfg->snap, .tables = &w->tables }, .emit = emit, .ctx = ctx };
	struct alias_expansion e;
	struct address a;
	struct pool work;

	if (!addr || address_parse(span_str(addr), ADDRESS_UTF8 | ADDRESS_ALLOW_BARE, &a) != ST_OK)
		return "addr is local-part@domain";
	if (client && ip_parse(span_str(client), x.f.client_ip) != ST_OK)
		return "client is an address";
	if (client)
		x.f.net = snap_find_net(x.f.snap, x.f.client_ip);
	if (!explain_relay(&x, &a))
		return NULL;
	pool_init(&work, w->cfg->set->transaction_max);
	policy_alias(&x.f, &a, true, &work, &e);
	for (uint32_t i = 0; i < e.nstep; i++)
		explain_step(&x, &e.step[i]);
	if (!e.d.accept)
		explain_refusal(&x, &e.d, a.full);
	else if (!e.in_tables)
		explain_hop(&x, a.full);
	for (uint32_t i = 0; e.d.accept && i < e.nrcpt && i < HOPS_SHOWN; i++)
		explain_hop(&x, e.rcpt[i]);
	pool_reset(&work);
	return NULL;
}
