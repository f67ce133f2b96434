#include "dataplane/verify.h"

#include <stdlib.h>
#include <sys/random.h>
#include "dataplane/lookup/known_cache.h"
#include "dataplane/route.h"
#include "spool/base/clock.h"
#include "spool/base/counters.h"

/* Who lost the claim looks for the winner's result this often. A claim outlives its probe by CLAIM_OVER_NS: should its owner die, others wait no longer than that. */
#define POLL_NS (150 * NS_PER_MS)
#define CLAIM_OVER_NS (5 * NS_PER_S)

enum { TOKEN_BYTES = 16 };

enum job_state {
	JOB_LOOKING,  /* in Redis, for what is known */
	JOB_CLAIMING,
	JOB_WAITING,  /* somebody else asks the destination */
	JOB_COUNTING, /* whether the destination may be asked now */
	JOB_PROBING,
};

struct verify_query {
	LIST_ENTRY(verify_query) entry;
	struct verify_job *job;
	verify_fn *fn;
	void *ctx;
	struct timer timer; /* TIMER_VERIFY_WAIT */
};

/* An address that is being looked after. */
struct verify_job {
	struct verify *v;
	struct verify_name n;
	enum job_state state;
	bool claimed, joined;
	LIST_HEAD(, verify_query) queries;
	struct timer timer; /* TIMER_VERIFY */
	struct shared_query *query;
	struct probe *probe;
	struct known addr, domain, forget;
	char token[TOKEN_BYTES];
};

struct verify {
	struct worker *w;
	struct known_cache *cache;
	struct map *jobs;
};

static void judge(struct verify_job *j);
static void look(struct verify_job *j);

enum status verify_new(struct worker *w)
{
	struct verify *v = calloc(1, sizeof(*v));

	if (!v)
		return ST_NOMEM;
	v->w = w;
	if (map_new(&v->jobs) != ST_OK || known_cache_new(w->cfg->set->verify_cache, &v->cache) != ST_OK) {
		map_free(v->jobs);
		free(v);
		return ST_NOMEM;
	}
	w->verify = v;
	return ST_OK;
}

struct known_cache *verify_cache(struct worker *w)
{
	return w->verify->cache;
}

/* ":ask:LOCAL", what the one who asks claims. */
static struct span claim_name(const struct verify_job *j, char *buf, size_t cap)
{
	struct out o = out_of(buf, cap);

	out_str(&o, ":ask:");
	out_add(&o, span_skip(j->n.name, sizeof(":addr:") - 1));
	return out_span(&o);
}

static struct recipient_facts facts_of(const struct verify_job *j)
{
	return (struct recipient_facts){ .set = j->v->w->cfg->set, .addr = &j->addr, .domain = &j->domain, .forget = &j->forget, .now_ms = verify_now_ms() };
}

/* ---- answers ---- */

static void answer_set(struct verify_answer *a, enum recipient_say say, const struct reply *r, const char *why)
{
	*a = (struct verify_answer){ .result = say == RECIPIENT_YES ? VERIFY_YES : say == RECIPIENT_NO ? VERIFY_NO : VERIFY_UNKNOWN, .why = why };
	if (a->result != VERIFY_YES && r)
		a->reply = *r;
}

/* No clear answer, for this reason of our own: an address that was good is good as long as an outage may last. */
static void answer_unclear(const struct recipient_facts *f, const struct reply *r, const char *why, struct verify_answer *a)
{
	enum recipient_say say = recipient_outage(f);

	counter_add(C_VERIFY_OUTAGE, say == RECIPIENT_YES);
	answer_set(a, say, r, why);
}

static void answer_count(const struct verify_answer *a)
{
	counter_add(C_VERIFY_YES, a->result == VERIFY_YES);
	counter_add(C_VERIFY_NO, a->result == VERIFY_NO);
	counter_add(C_VERIFY_UNKNOWN, a->result == VERIFY_UNKNOWN);
}

static void query_free(struct verify_query *q)
{
	LIST_REMOVE(q, entry);
	wheel_cancel(q->job->v->w->wheel, &q->timer);
	free(q);
}

static void query_answer(struct verify_query *q, const struct verify_answer *a)
{
	verify_fn *fn = q->fn;
	void *ctx = q->ctx;

	query_free(q);
	answer_count(a);
	fn(ctx, a);
}

static void job_free(struct verify_job *j)
{
	struct verify *v = j->v;
	struct verify_query *q;
	char buf[VERIFY_NAME_MAX];

	if (map_get(v->jobs, j->n.key) == j)
		map_del(v->jobs, j->n.key);
	counter_set(C_VERIFY_WAITING, map_len(v->jobs));
	while ((q = LIST_FIRST(&j->queries)))
		query_free(q);
	if (j->query)
		shared_cancel(j->query);
	if (j->probe)
		probe_give_up(j->probe);
	if (j->claimed)
		shared_release(v->w->shared, j->n.domain, claim_name(j, buf, sizeof(buf)), span_of(j->token, sizeof(j->token)));
	wheel_cancel(v->w->wheel, &j->timer);
	free(j);
}

/* Everybody gets the answer; who asks from within it begins anew. */
static void job_finish(struct verify_job *j, const struct verify_answer *a)
{
	struct verify_query *q;

	map_del(j->v->jobs, j->n.key);
	while ((q = LIST_FIRST(&j->queries)))
		query_answer(q, a);
	job_free(j);
}

static void finish_unclear(struct verify_job *j, const struct reply *r, const char *why)
{
	struct recipient_facts f = facts_of(j);
	struct verify_answer a;

	answer_unclear(&f, r, why, &a);
	job_finish(j, &a);
}

/* ---- the probe ---- */

static void log_probe(const struct verify_job *j, const struct recipient_heard *h, const struct verify_answer *a)
{
	static const char *const name[] = { [VERIFY_YES] = "yes", [VERIFY_NO] = "no", [VERIFY_UNKNOWN] = "unknown" };
	const struct reply *r = h->addr->code ? h->addr : h->failure;
	char text[REPLY_TEXT_MAX + 32];
	struct out o = out_of(text, sizeof(text));
	struct logline l;

	reply_line(r, &o);
	log_begin(&l, LOG_LVL_INFO, "verified");
	log_str(&l, "rule", "B2");
	log_span(&l, "to", j->n.key);
	log_str(&l, "result", name[a->result]);
	log_str(&l, "why", a->why);
	log_span(&l, "reply", out_span(&o));
	log_emit(&l);
}

static void learn(struct verify_job *j, const struct recipient_heard *h)
{
	struct recipient_facts f;
	const struct reply *r;
	struct verify_answer a;
	enum recipient_say say;
	const char *why;
	bool addr, domain;

	recipient_learn(h, verify_now_ms(), &j->addr, &j->domain, &addr, &domain);
	if (addr)
		verify_write(j->v->w, &j->n, false, &j->addr);
	if (domain)
		verify_write(j->v->w, &j->n, true, &j->domain);
	f = facts_of(j);
	say = recipient_known(&f, &r, &why);
	counter_add(C_VERIFY_OUTAGE, say == RECIPIENT_YES && j->addr.tried_ms != 0);
	answer_set(&a, say, r, say == RECIPIENT_UNKNOWN ? "the destination gave no clear answer" : why);
	log_probe(j, h, &a);
	job_finish(j, &a);
}

void verify_probed(struct probe *p)
{
	struct verify_job *j = p->owner;
	struct recipient_heard h = { .addr = &p->result[0], .invented = p->nrcpt > 1 ? &p->result[1] : NULL, .failure = &p->failure,
		.mail_refused = p->mail_refused, .dest_refused = p->dest_refused };

	j->probe = NULL;
	learn(j, &h);
	free(p);
}

/* The destination was not asked, or did not answer. */
static void learn_failure(struct verify_job *j, const struct reply *why, bool dest_refused)
{
	struct reply none = { 0 };

	learn(j, &(struct recipient_heard){ .addr = &none, .failure = why, .dest_refused = dest_refused });
}

static void probe(struct verify_job *j)
{
	struct worker *w = j->v->w;
	struct recipient_facts f = facts_of(j);
	struct reply why;

	j->state = JOB_PROBING;
	counter_add(C_VERIFY_PROBES, 1);
	j->probe = probe_begin(w, j->n.key, !recipient_domain_known(&f), j, &why);
	if (j->probe)
		wheel_set(w->wheel, &j->timer, w->now_ns + w->cfg->set->verify_probe_ns);
	else
		learn_failure(j, &why, reply_is_permanent(&why));
}

static void over_budget(struct verify_job *j)
{
	struct reply r;

	counter_add(C_VERIFY_OVER, 1);
	reply_set(&r, 451, "4.4.5", "Its destination is asked for too many addresses at the moment, try again later");
	finish_unclear(j, &r, "the destination is asked for too many addresses");
}

static void on_rate(void *ctx, const struct rate_answer *a)
{
	struct verify_job *j = ctx;

	j->query = NULL;
	if (a->over)
		over_budget(j);
	else
		probe(j);
}

/* Whether the destination may be asked now. */
static void count(struct verify_job *j)
{
	struct worker *w = j->v->w;
	double limit = w->cfg->set->verify_probe_rate;
	char route[ROUTE_KEY_MAX], key[ROUTE_KEY_MAX + 8];
	struct out o = out_of(key, sizeof(key));
	struct rate_answer a;
	struct next_hop hop;

	j->state = JOB_COUNTING;
	if (limit <= 0 || route_rcpt(&w->cfg->snap, &w->tables, j->n.key, HOP_TLS_ROUTE, route, &hop) != ST_OK) {
		probe(j);
		return;
	}
	out_str(&o, "verify/");
	out_add(&o, hop.key);
	if (shared_rate(w->shared, out_span(&o), 1, limit, 60 * NS_PER_S, true, on_rate, j, &a, &j->query) == ST_OK)
		on_rate(j, &a);
}

/* ---- the claim ---- */

static void on_claim(void *ctx, enum shared_claim c)
{
	struct verify_job *j = ctx;

	j->query = NULL;
	if (c == SHARED_CLAIM_LOST) {
		counter_add(C_VERIFY_JOINED, !j->joined);
		j->joined = true;
		j->state = JOB_WAITING;
		wheel_set(j->v->w->wheel, &j->timer, j->v->w->now_ns + POLL_NS);
		return;
	}
	j->claimed = c == SHARED_CLAIM_WON;
	if (j->claimed)
		look(j); /* another one may have ended between our look and our claim: what did it leave? */
	else
		count(j);
}

static void claim(struct verify_job *j)
{
	struct worker *w = j->v->w;
	char buf[VERIFY_NAME_MAX];

	if (j->claimed) {
		count(j);
		return;
	}
	j->state = JOB_CLAIMING;
	if (getrandom(j->token, sizeof(j->token), 0) != sizeof(j->token) ||
		shared_claim(w->shared, j->n.domain, claim_name(j, buf, sizeof(buf)), span_of(j->token, sizeof(j->token)),
			w->cfg->set->verify_probe_ns + CLAIM_OVER_NS, on_claim, j, &j->query) != ST_AGAIN)
		count(j);
}

/* ---- looking ---- */

static void judge(struct verify_job *j)
{
	struct recipient_facts f = facts_of(j);
	const struct reply *r;
	struct verify_answer a;
	const char *why;
	enum recipient_say say = recipient_known(&f, &r, &why);

	if (say == RECIPIENT_ASK) {
		claim(j);
		return;
	}
	answer_set(&a, say, r, why);
	a.cached = true;
	counter_add(C_VERIFY_CACHED, 1);
	job_finish(j, &a);
}

static void on_values(void *ctx, const struct span *values)
{
	struct verify_job *j = ctx;
	struct verify *v = j->v;
	uint64_t at;

	j->query = NULL;
	if (values) {
		verify_read(values[0], &j->addr);
		verify_read(values[1], &j->domain);
		verify_read(values[2], &j->forget);
		if (j->forget.kind != KNOWN_FORGET)
			j->forget = (struct known){ 0 };
		verify_drop_forgotten(&j->addr, &j->forget);
		verify_drop_forgotten(&j->domain, &j->forget);
		known_cache_put(v->cache, j->n.key, &j->addr, v->w->now_ns);
		known_cache_put(v->cache, j->n.domain, &j->domain, v->w->now_ns);
	} else {
		known_cache_get(v->cache, j->n.key, &j->addr, &at);
		known_cache_get(v->cache, j->n.domain, &j->domain, &at);
	}
	judge(j);
}

static void look(struct verify_job *j)
{
	struct span names[] = { j->n.name, VERIFY_DOMAIN_NAME, VERIFY_FORGET_NAME };

	j->state = JOB_LOOKING;
	if (shared_get(j->v->w->shared, j->n.domain, names, 3, on_values, j, &j->query) != ST_AGAIN)
		on_values(j, NULL);
}

/* ---- asking ---- */

/* What this worker knows by itself, when that is as good as a look at Redis. */
static bool known_here(struct verify *v, const struct verify_name *n, struct verify_answer *ret)
{
	static const struct known nothing;
	struct known addr, domain;
	struct recipient_facts f = { .set = v->w->cfg->set, .addr = &addr, .domain = &domain, .forget = &nothing, .now_ms = verify_now_ms() };
	uint64_t addr_ns, domain_ns, now = v->w->now_ns;
	const struct reply *r;
	enum recipient_say say;

	known_cache_get(v->cache, n->key, &addr, &addr_ns);
	known_cache_get(v->cache, n->domain, &domain, &domain_ns);
	if (shared_is_up(v->w->shared)) {
		if (!addr_ns || now - addr_ns > KNOWN_CACHE_FRESH_NS)
			addr = nothing;
		if (!domain_ns || now - domain_ns > KNOWN_CACHE_FRESH_NS)
			domain = nothing;
	}
	say = recipient_known(&f, &r, &ret->why);
	if (say == RECIPIENT_ASK)
		return false;
	answer_set(ret, say, r, ret->why);
	ret->cached = true;
	counter_add(C_VERIFY_CACHED, 1);
	answer_count(ret);
	return true;
}

static struct verify_job *job_new(struct verify *v, struct span addr)
{
	struct verify_job *j = calloc(1, sizeof(*j));

	if (!j)
		return NULL;
	j->v = v;
	j->timer.kind = TIMER_VERIFY;
	LIST_INIT(&j->queries);
	if (verify_name(addr, false, &j->n) != ST_OK || map_set(v->jobs, j->n.key, j) != ST_OK) {
		free(j);
		return NULL;
	}
	counter_set(C_VERIFY_WAITING, map_len(v->jobs));
	return j;
}

static struct verify_query *query_new(struct verify_job *j, uint64_t wait_ns, verify_fn *fn, void *ctx)
{
	struct verify_query *q = calloc(1, sizeof(*q));

	if (!q)
		return NULL;
	*q = (struct verify_query){ .job = j, .fn = fn, .ctx = ctx, .timer.kind = TIMER_VERIFY_WAIT };
	LIST_INSERT_HEAD(&j->queries, q, entry);
	wheel_set(j->v->w->wheel, &q->timer, j->v->w->now_ns + wait_ns);
	return q;
}

/* The first look is made in the next turn, so that nobody is called back from within verify_address. */
enum status verify_address(struct worker *w, struct span addr, uint64_t wait_ns, verify_fn *fn, void *ctx, struct verify_answer *ret,
	struct verify_query **ret_query)
{
	struct verify *v = w->verify;
	struct verify_name n;
	struct verify_job *j;
	enum status st = verify_name(addr, false, &n);

	*ret_query = NULL;
	if (st != ST_OK)
		return st;
	if (known_here(v, &n, ret))
		return ST_OK;
	j = map_get(v->jobs, n.key);
	if (j) {
		counter_add(C_VERIFY_JOINED, 1);
	} else {
		j = job_new(v, addr);
		if (!j)
			return ST_NOMEM;
		j->state = JOB_WAITING;
		wheel_set(w->wheel, &j->timer, w->now_ns);
	}
	*ret_query = query_new(j, wait_ns, fn, ctx);
	return *ret_query ? ST_AGAIN : ST_NOMEM;
}

bool verify_known_no(struct worker *w, struct span addr)
{
	struct verify_answer a;
	struct verify_name n;

	return verify_name(addr, false, &n) == ST_OK && known_here(w->verify, &n, &a) && a.result == VERIFY_NO;
}

void verify_cancel(struct verify_query *q)
{
	query_free(q);
}

/* ---- time ---- */

void verify_timer(struct worker *w, struct timer *t)
{
	struct verify_job *j = container_of(t, struct verify_job, timer);
	struct probe *p = j->probe;
	struct reply r;

	(void)w;
	if (p) {
		j->probe = NULL;
		probe_give_up(p);
		reply_set(&r, 451, "4.4.1", "The destination did not answer in time");
		learn_failure(j, &r, false);
	} else if (LIST_EMPTY(&j->queries)) {
		job_free(j); /* nobody wants to know any more, and it is not us who ask */
	} else {
		look(j);
	}
}

void verify_wait_timer(struct worker *w, struct timer *t)
{
	struct verify_query *q = container_of(t, struct verify_query, timer);
	struct recipient_facts f = facts_of(q->job);
	struct verify_answer a;
	struct reply r;

	(void)w;
	reply_set(&r, 451, "4.4.1", "Its destination has not answered yet, try again later");
	answer_unclear(&f, &r, "the destination has not answered yet", &a);
	query_answer(q, &a);
}

/* ---- deliveries ---- */

void verify_delivered(struct worker *w, struct span addr, const struct reply *r)
{
	struct verify *v = w->verify;
	struct verify_name n;
	struct known k, old;
	uint64_t at, now = verify_now_ms();

	if (!verify_wanted(w, addr) || !recipient_learn_delivery(r, now, &k) || verify_name(addr, false, &n) != ST_OK)
		return;
	known_cache_get(v->cache, n.key, &old, &at);
	if (old.kind == KNOWN_YES && k.kind == KNOWN_YES && !old.tried_ms && now - old.at_ms < w->cfg->set->verify_address_yes_ns / NS_PER_MS / 2)
		return; /* nothing new */
	counter_add(C_VERIFY_LEARNT, 1);
	verify_write(w, &n, false, &k);
}

void verify_free(struct verify *v)
{
	struct span key;
	void *j;

	if (!v)
		return;
	for (size_t pos = 0; map_next(v->jobs, &pos, &key, &j);)
		job_free(j);
	map_free(v->jobs);
	known_cache_free(v->cache);
	free(v);
}
