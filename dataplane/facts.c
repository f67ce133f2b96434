#include "dataplane/facts.h"

#include <stdio.h>
#include <stdlib.h>
#include "dataplane/verify.h"
#include "spool/base/clock.h"

/* One look-up after another until its fact is known. */
struct part {
	struct facts_ask *ask;
	struct fact_domain *domain; /* or NULL: a name of the client's */
	struct dns_query *query;    /* under way */
	char name[256];
};

/* Whether somebody has an address of ours, asked of its destination. */
struct asked {
	struct facts_ask *ask;
	struct verify_query *query; /* under way */
	enum fact_exists *known;
};

struct facts_ask {
	struct worker *w;
	facts_fn *fn;
	void *ctx;
	struct timer timer; /* TIMER_FACTS */
	struct fact_client *client;
	uint8_t ip[16];
	uint32_t pending;   /* parts, and addresses, that are not known yet */
	uint32_t nasked;
	struct asked asked[HEADER_ASKED_MAX];
	uint32_t nparts;
	struct part part[FACTS_DOMAINS_MAX + 1]; /* of a client: its address, then its names */
};
static_assert((int)FACTS_DOMAINS_MAX >= (int)DNS_PTR_USED);

static void on_mx(void *ctx, struct dns_answer *a);
static void on_addr(void *ctx, struct dns_answer *a);
static void on_ptr(void *ctx, struct dns_answer *a);
static void on_name(void *ctx, struct dns_answer *a);

static const char *why_of(const struct dns_answer *a)
{
	return a ? a->text : "out of memory";
}

static void part_done(struct part *p)
{
	p->ask->pending--;
}

static void domain_is(struct part *p, enum domain_is is, const struct dns_answer *a)
{
	p->domain->is = is;
	if (is == DOMAIN_IS_UNDECIDED)
		snprintf(p->domain->why, sizeof(p->domain->why), "%s", why_of(a));
	part_done(p);
}

/* One of the client's names is known to be good, or not: good ones win, and what is undecided is so only while no other is good. */
static void client_is(struct part *p, enum client_is is, const char *why)
{
	struct fact_client *c = p->ask->client;

	part_done(p);
	if (c->is == CLIENT_IS_NAMED || (c->is == CLIENT_IS_UNDECIDED && is != CLIENT_IS_NAMED))
		return;
	c->is = is;
	if (*p->name)
		snprintf(c->name, sizeof(c->name), "%s", p->name);
	if (is == CLIENT_IS_UNDECIDED)
		snprintf(c->why, sizeof(c->why), "%s", why);
}

/* ---- answers; each is released, NULL: there could be none ---- */

static void take_addr(struct part *p, struct dns_answer *a)
{
	if (!a || a->result == DNS_TEMPFAIL)
		domain_is(p, DOMAIN_IS_UNDECIDED, a);
	else
		domain_is(p, a->result == DNS_FOUND ? DOMAIN_IS_ADDRESS : a->result == DNS_NXDOMAIN ? DOMAIN_IS_MISSING : DOMAIN_IS_EMPTY, a);
	dns_answer_release(a);
}

static void take_mx(struct part *p, struct dns_answer *a)
{
	struct dns_answer *found = NULL;

	if (a && a->result == DNS_FOUND && a->implicit_mx) {
		dns_answer_release(a);
		if (dns_addr(p->ask->w->dns, p->domain->name, on_addr, p, &found, &p->query) != ST_AGAIN)
			take_addr(p, found);
		return;
	}
	if (!a || a->result == DNS_TEMPFAIL)
		domain_is(p, DOMAIN_IS_UNDECIDED, a);
	else if (a->result == DNS_NULL_MX)
		domain_is(p, DOMAIN_IS_NULL_MX, a);
	else
		domain_is(p, a->result == DNS_FOUND ? DOMAIN_IS_MX : a->result == DNS_NXDOMAIN ? DOMAIN_IS_MISSING : DOMAIN_IS_EMPTY, a);
	dns_answer_release(a);
}

static void take_name(struct part *p, struct dns_answer *a)
{
	bool same = false;

	for (uint32_t i = 0; a && a->result == DNS_FOUND && i < a->naddr; i++)
		same = same || memcmp(a->addr[i], p->ask->ip, 16) == 0;
	if (same)
		client_is(p, CLIENT_IS_NAMED, "");
	else if (!a || a->result == DNS_TEMPFAIL)
		client_is(p, CLIENT_IS_UNDECIDED, why_of(a));
	else
		client_is(p, CLIENT_IS_OTHER, "");
	dns_answer_release(a);
}

static void take_ptr(struct part *p, struct dns_answer *a)
{
	struct facts_ask *k = p->ask;

	if (!a || a->result == DNS_TEMPFAIL) {
		client_is(p, CLIENT_IS_UNDECIDED, why_of(a));
		dns_answer_release(a);
		return;
	}
	k->pending += a->nrr;
	for (uint32_t i = 0; i < a->nrr; i++) {
		struct part *n = &k->part[k->nparts++];
		struct dns_answer *found = NULL;

		n->ask = k;
		memcpy(n->name, a->rr[i].p, a->rr[i].n + 1);
		if (dns_addr(k->w->dns, a->rr[i], on_name, n, &found, &n->query) != ST_AGAIN)
			take_name(n, found);
	}
	part_done(p);
	dns_answer_release(a);
}

/* ---- going on ---- */

static void facts_free(struct facts_ask *k)
{
	for (uint32_t i = 0; i < k->nparts; i++)
		if (k->part[i].query)
			dns_cancel(k->part[i].query);
	for (uint32_t i = 0; i < k->nasked; i++)
		if (k->asked[i].query)
			verify_cancel(k->asked[i].query);
	wheel_cancel(k->w->wheel, &k->timer);
	free(k);
}

static void facts_ready(struct facts_ask *k)
{
	facts_fn *fn = k->fn;
	void *ctx = k->ctx;

	if (k->pending)
		return;
	facts_free(k);
	fn(ctx);
}

static void on_mx(void *ctx, struct dns_answer *a)
{
	struct part *p = ctx;

	p->query = NULL;
	take_mx(p, a);
	facts_ready(p->ask);
}

static void on_addr(void *ctx, struct dns_answer *a)
{
	struct part *p = ctx;

	p->query = NULL;
	take_addr(p, a);
	facts_ready(p->ask);
}

static void on_ptr(void *ctx, struct dns_answer *a)
{
	struct part *p = ctx;

	p->query = NULL;
	take_ptr(p, a);
	facts_ready(p->ask);
}

static void on_name(void *ctx, struct dns_answer *a)
{
	struct part *p = ctx;

	p->query = NULL;
	take_name(p, a);
	facts_ready(p->ask);
}

void facts_timer(struct worker *w, struct timer *t)
{
	struct facts_ask *k = container_of(t, struct facts_ask, timer);
	const struct dns_answer late = { .text = "no answer in time" };

	for (uint32_t i = 0; i < k->nparts; i++) {
		struct part *p = &k->part[i];

		if (!p->query)
			continue;
		dns_cancel(p->query);
		p->query = NULL;
		if (p->domain)
			domain_is(p, DOMAIN_IS_UNDECIDED, &late);
		else
			client_is(p, CLIENT_IS_UNDECIDED, late.text);
	}
	for (uint32_t i = 0; i < k->nasked; i++) {
		if (!k->asked[i].query)
			continue;
		verify_cancel(k->asked[i].query);
		k->asked[i].query = NULL;
		k->pending--;
	}
	facts_ready(k);
}

/* ---- asking ---- */

static struct facts_ask *facts_new(struct worker *w, uint64_t budget_ns, facts_fn *fn, void *ctx)
{
	struct facts_ask *k = calloc(1, sizeof(*k));

	if (!k)
		return NULL;
	*k = (struct facts_ask){ .w = w, .fn = fn, .ctx = ctx, .timer.kind = TIMER_FACTS };
	wheel_set(w->wheel, &k->timer, w->now_ns + budget_ns);
	return k;
}

/* Everything was asked for; perhaps all is known. */
static enum status facts_begun(struct facts_ask *k, struct facts_ask **ret_ask)
{
	if (k->pending) {
		*ret_ask = k;
		return ST_AGAIN;
	}
	facts_free(k);
	return ST_OK;
}

enum status facts_client(struct worker *w, const uint8_t ip[16], uint64_t budget_ns, struct fact_client *ret, facts_fn *fn, void *ctx,
	struct facts_ask **ret_ask)
{
	struct facts_ask *k = facts_new(w, budget_ns, fn, ctx);
	struct dns_answer *found = NULL;
	struct part *p;

	*ret_ask = NULL;
	*ret = (struct fact_client){ .is = k ? CLIENT_IS_UNNAMED : CLIENT_IS_UNDECIDED, .why = "out of memory" };
	if (!k)
		return ST_OK;
	k->client = ret;
	memcpy(k->ip, ip, 16);
	p = &k->part[k->nparts++];
	p->ask = k;
	k->pending = 1;
	if (dns_ptr(w->dns, ip, on_ptr, p, &found, &p->query) != ST_AGAIN)
		take_ptr(p, found);
	return facts_begun(k, ret_ask);
}

static void ask_domains(struct facts_ask *k, struct fact_domain *domain, uint32_t n)
{
	k->pending += n;
	k->nparts = n;
	for (uint32_t i = 0; i < n; i++) {
		struct part *p = &k->part[i];
		struct dns_answer *found = NULL;

		p->ask = k;
		p->domain = &domain[i];
		if (dns_mx(k->w->dns, domain[i].name, on_mx, p, &found, &p->query) != ST_AGAIN)
			take_mx(p, found);
	}
}

/* ---- addresses of ours, asked of their destination ---- */

static void take_verified(struct asked *q, const struct verify_answer *a)
{
	static const enum fact_exists of[] = { [VERIFY_YES] = EXISTS_YES, [VERIFY_NO] = EXISTS_NO, [VERIFY_UNKNOWN] = EXISTS_UNKNOWN };

	*q->known = of[a->result];
	q->ask->pending--;
}

static void on_verified(void *ctx, const struct verify_answer *a)
{
	struct asked *q = ctx;

	q->query = NULL;
	take_verified(q, a);
	facts_ready(q->ask);
}

/* Where the configuration wants it of recipients. Class fragile never waits for others. ask: where mail for the address goes. */
static bool is_to_verify(const struct worker *w, const struct policy_facts *f, const struct address *a, struct span ask)
{
	char key[ADDRESS_DOMAIN_MAX + 1];
	struct out o = out_of(key, sizeof(key));

	return ask.n && policy_class(f) != CLASS_FRAGILE && !address_is_postmaster(a) && policy_sender_asks(a, &o) && policy_is_own(f, out_span(&o)) && verify_wanted(w, ask);
}

static void ask_verify(struct facts_ask *k, const struct policy_facts *f, struct span addr, uint64_t budget_ns, enum fact_exists *known)
{
	struct asked *q = &k->asked[k->nasked];
	uint64_t most_ns = f->snap->h->settings.verify_wait_ns;
	struct verify_answer a;
	enum status st;

	if (k->nasked == HEADER_ASKED_MAX)
		return;
	k->nasked++;
	k->pending++;
	*q = (struct asked){ .ask = k, .known = known };
	st = verify_address(k->w, addr, budget_ns < most_ns ? budget_ns : most_ns, on_verified, q, &a, &q->query);
	if (st == ST_OK)
		take_verified(q, &a);
	else if (st != ST_AGAIN)
		k->pending--; /* nobody can be asked */
}

/* ---- the sender ---- */

static bool is_wanted(const struct policy_facts *f, enum rule r)
{
	return policy_mode(f, r) != POLICY_OFF;
}

void facts_sender(struct worker *w, struct policy_facts *f, const struct address *sender, uint64_t budget_ns, struct pool *pool, struct fact_domain *ret, facts_fn *fn, void *ctx,
	struct facts_ask **ret_ask)
{
	char key[ADDRESS_DOMAIN_MAX + 1];
	struct out o = out_of(key, sizeof(key));
	bool asks = policy_sender_asks(sender, &o), exists = is_wanted(f, RULE_SENDER_UNKNOWN) && sender->full.n;
	bool domain = asks && (is_wanted(f, RULE_SENDER_DOMAIN) || is_wanted(f, RULE_SENDER_HOST_NAME));
	struct facts_ask *k;
	struct span ask = SPAN_NONE;
	struct pool work;

	*ret_ask = NULL;
	f->sender_domain = NULL;
	f->sender_known = EXISTS_UNASKED;
	pool_init(&work, f->snap->h->settings.transaction_max);
	if (exists)
		f->sender_known = policy_known(f, sender, &work, &ask);
	exists = exists && is_to_verify(w, f, sender, ask);
	if (!domain && !exists)
		goto out;
	if (domain) {
		*ret = (struct fact_domain){ .name = pool_span(pool, out_span(&o)), .is = DOMAIN_IS_UNDECIDED, .why = "out of memory" };
		f->sender_domain = ret;
	}
	k = !domain || ret->name.p ? facts_new(w, budget_ns, fn, ctx) : NULL;
	if (!k)
		goto out;
	if (domain)
		ask_domains(k, ret, 1);
	if (exists)
		ask_verify(k, f, ask, budget_ns, &f->sender_known);
	if (facts_begun(k, ret_ask) == ST_OK)
		*ret_ask = NULL;
out:
	pool_reset(&work);
}

void facts_cancel(struct facts_ask *ask)
{
	facts_free(ask);
}

/* ---- the header ---- */

/* The place of a domain among those to be asked about. */
static uint8_t place_of(struct fact_header *h, struct span name, struct pool *pool)
{
	uint32_t i = 0;

	while (i < h->ndomains && !span_eq(h->domain[i].name, name))
		i++;
	if (i == h->ndomains && i < HEADER_DOMAINS_MAX) {
		h->domain[i] = (struct fact_domain){ .name = pool_span(pool, name) };
		h->ndomains += h->domain[i].name.p != NULL;
	}
	return (uint8_t)i;
}

void facts_header(const struct policy_facts *f, struct span head, uint64_t len, struct pool *pool, struct fact_header *ret)
{
	struct span ask;
	struct pool work;

	originators_read(head, head.n == len, &ret->originators);
	ret->ndomains = 0;
	pool_init(&work, f->snap->h->settings.transaction_max);
	for (uint32_t i = 0; i < ret->originators.n; i++) {
		const struct address *a = &ret->originators.item[i].a;
		char key[ADDRESS_DOMAIN_MAX + 1];
		struct out o = out_of(key, sizeof(key));

		ret->domain_of[i] = policy_sender_asks(a, &o) ? place_of(ret, out_span(&o), pool) : HEADER_DOMAINS_MAX;
		ret->known[i] = policy_known(f, a, &work, &ask);
		pool_reset(&work);
	}
}

/* Each address once, as a From is often the Reply-To, too. */
static bool is_asked(const struct fact_header *h, uint32_t i)
{
	for (uint32_t k = 0; k < i; k++)
		if (span_eq(h->originators.item[k].a.full, h->originators.item[i].a.full))
			return true;
	return false;
}

enum status facts_header_ask(struct worker *w, const struct policy_facts *f, struct fact_header *h, uint64_t budget_ns, facts_fn *fn, void *ctx, struct facts_ask **ret_ask)
{
	struct facts_ask *k = h->originators.n ? facts_new(w, budget_ns, fn, ctx) : NULL;
	struct policy_facts others = *f; /* postmaster reads what is found, others decide whether it is worth a question */
	struct pool work;

	*ret_ask = NULL;
	others.to_postmaster = false;
	for (uint32_t i = 0; i < h->ndomains; i++)
		h->domain[i] = (struct fact_domain){ .name = h->domain[i].name, .is = k ? DOMAIN_IS_UNASKED : DOMAIN_IS_UNDECIDED, .why = "out of memory" };
	if (!k)
		return ST_OK;
	ask_domains(k, h->domain, h->ndomains);
	pool_init(&work, f->snap->h->settings.transaction_max);
	for (uint32_t i = 0; i < h->originators.n; i++) {
		const struct address *a = &h->originators.item[i].a;
		struct span ask;

		(void)policy_known(f, a, &work, &ask);
		if (!is_to_verify(w, f, a, ask) || is_asked(h, i))
			;
		else if (policy_mode(&others, RULE_HEADER_FROM) > POLICY_TAG)
			ask_verify(k, f, ask, budget_ns, &h->known[i]);
		else if (verify_known_no(w, ask))
			h->known[i] = EXISTS_NO;
		pool_reset(&work);
	}
	return facts_begun(k, ret_ask);
}
