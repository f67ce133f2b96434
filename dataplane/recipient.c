#include "dataplane/recipient.h"

#include "dataplane/policy/alias.h"
#include "spool/base/counters.h"

/* The form in which recipients are compared: the local part as it is (P5), the domain in look-up form. */
static struct span compare_form(struct span addr, char *buf, size_t cap)
{
	struct out o = out_of(buf, cap);
	struct address a;

	if (address_parse(addr, ADDRESS_UTF8 | ADDRESS_ALLOW_BARE, &a) != ST_OK || a.is_literal || !a.domain.n)
		return addr;
	out_add(&o, a.local);
	out_char(&o, '@');
	return address_domain_key(a.domain, &o) == ST_OK ? out_span(&o) : addr;
}

/* True when the address is not in the envelope yet; now it counts as being there. Without memory it counts as new: a second copy does less harm than none. */
static bool is_new(struct session *s, struct span addr)
{
	char buf[ADDRESS_MAX * 2];
	struct span key = compare_form(addr, buf, sizeof(buf));

	if (!s->rcpts)
		return true;
	if (map_get(s->rcpts, key))
		return false;
	if (map_set(s->rcpts, key, s) != ST_OK)
		recipient_reset(s);
	return true;
}

/* Only transactions with an expanded recipient pay for the comparison. */
static void compare_begin(struct session *s)
{
	if (s->rcpts)
		return;
	if (map_new(&s->rcpts) != ST_OK) {
		s->rcpts = NULL;
		return;
	}
	for (uint32_t i = 0; i + 1 < s->smtp.env.nrcpt; i++)
		is_new(s, s->smtp.env.rcpt[i].addr);
}

static void log_dropped(struct session *s, const struct alias_expansion *e)
{
	struct logline l;

	log_begin(&l, LOG_LVL_WARN, "alias-dangling");
	log_str(&l, "rule", "C6");
	log_span(&l, "to", s->smtp.rcpt.full);
	log_u64(&l, "leads_nowhere", e->ndropped);
	log_span(&l, "first", e->dropped);
	log_emit(&l);
}

static bool put_expanded(struct session *s, struct alias_expansion *e)
{
	uint32_t n = 0;

	compare_begin(s);
	for (uint32_t i = 0; i < e->nrcpt; i++)
		if (is_new(s, e->rcpt[i]))
			e->rcpt[n++] = e->rcpt[i];
	counter_add(C_RCPT_EXPANDED, 1);
	if (e->ndropped)
		log_dropped(s, e);
	return smtp_server_rcpt_replace(&s->smtp, e->rcpt, n);
}

/* What was counted as being in the envelope is not: it must not be taken for a duplicate when it is given again. */
static void out_of_room(struct session *s, struct decision *d)
{
	recipient_reset(s);
	*d = (struct decision){ .accept = false, .rule = RULE_NO_ROOM };
	reply_set(&d->reply, 452, "4.3.1", "The transaction is too large, try with fewer recipients");
}

struct decision recipient_decide(struct session *s)
{
	struct alias_expansion e;
	struct pool work;
	struct decision d;

	d = policy_relay(&s->facts, &s->smtp.rcpt);
	if (!d.accept) {
		counter_add(C_RELAY_DENIED, 1);
		return d;
	}
	pool_init(&work, s->cfg->set->transaction_max);
	policy_alias(&s->facts, &s->smtp.rcpt, false, &work, &e);
	d = e.d;
	if (!d.accept)
		counter_add(C_RCPT_UNKNOWN, reply_is_permanent(&d.reply));
	else if (e.in_tables && !put_expanded(s, &e))
		out_of_room(s, &d);
	else if (!e.in_tables && !is_new(s, s->smtp.rcpt.full))
		(void)smtp_server_rcpt_replace(&s->smtp, NULL, 0);
	pool_reset(&work);
	return d;
}

void recipient_reset(struct session *s)
{
	if (s->rcpts)
		map_free(s->rcpts);
	s->rcpts = NULL;
}

enum status recipient_of_ours(struct worker *w, struct span to, struct pool *pool, struct envelope *env)
{
	struct policy_facts f = { .snap = &w->cfg->snap, .tables = &w->tables };
	struct alias_expansion e = { 0 };
	struct address a;
	uint32_t n;

	if (address_parse(to, ADDRESS_UTF8 | ADDRESS_ALLOW_BARE, &a) == ST_OK)
		policy_alias(&f, &a, false, pool, &e);
	n = e.in_tables && e.d.accept ? e.nrcpt : 1;
	env->rcpt = pool_alloc(pool, n * sizeof(*env->rcpt));
	if (!env->rcpt)
		return ST_NOMEM;
	env->nrcpt = n;
	env->rcpt[0].addr = to;
	for (uint32_t i = 0; e.in_tables && e.d.accept && i < n; i++)
		env->rcpt[i].addr = e.rcpt[i];
	return ST_OK;
}

bool recipient_is_refused(struct worker *w, struct span addr, struct reply *ret)
{
	struct policy_facts f = { .snap = &w->cfg->snap, .tables = &w->tables };
	struct alias_expansion e;
	struct address a;
	struct pool work;

	if (!w->tables.h || address_parse(addr, ADDRESS_UTF8 | ADDRESS_ALLOW_BARE, &a) != ST_OK)
		return false;
	pool_init(&work, w->cfg->set->transaction_max);
	policy_alias(&f, &a, false, &work, &e);
	pool_reset(&work);
	if (e.d.accept || !reply_is_permanent(&e.d.reply))
		return false;
	*ret = e.d.reply;
	return true;
}
