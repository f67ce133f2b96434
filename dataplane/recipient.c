#include "dataplane/recipient.h"

#include <stdlib.h>
#include "dataplane/decide.h"
#include "dataplane/decide_sender.h"
#include "dataplane/dictionary.h"
#include "dataplane/policy/alias.h"
#include "dataplane/rcpt_check.h"
#include "dataplane/terms.h"
#include "spool/base/clock.h"
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

/* Whether the recipient will be in the envelope: nothing is said against it, or nothing that this client is to see (D2, A5). */
static bool is_taken(const struct session *s, const struct decision *d)
{
	return d->accept || policy_mode(&s->facts, d->rule) < POLICY_DEFER;
}

/* ---- the destination's word (B2) ---- */

/* Whether the destination is to be asked: only where one address comes out, as with several the relay answers for all of them itself. Who must not be told anyway (A5), and postmaster (B4), are not kept waiting. */
bool recipient_is_to_verify(const struct worker *w, const struct policy_facts *f, const struct address *rcpt, const struct alias_expansion *e, struct span *ret)
{
	*ret = e->in_tables && e->nrcpt ? e->rcpt[0] : rcpt->full;
	return e->d.accept && (!e->in_tables || e->nrcpt == 1) && policy_class(f) != CLASS_FRAGILE && !address_is_postmaster(rcpt) && verify_wanted(w, *ret);
}

static void on_verified(void *ctx, const struct verify_answer *a)
{
	struct session *s = ctx;

	s->check->verify = NULL;
	s->check->verified = true;
	s->check->answer = *a;
	recipient_go_on(s);
}

/* The remote's own text follows ours, on one line. */
struct decision recipient_verified(const struct address *rcpt, const struct verify_answer *a)
{
	struct decision d = { .accept = a->result == VERIFY_YES, .rule = a->result == VERIFY_NO ? RULE_RCPT_UNKNOWN : RULE_RCPT_UNVERIFIED };
	const uint8_t *e = a->reply.enhanced;
	bool of_domain = e[1] == 1 && (e[2] == 2 || e[2] == 10), no = a->result == VERIFY_NO;
	char text[REPLY_TEXT_MAX + 32], status[16] = "4.4.1";
	struct out o = out_of(text, sizeof(text));

	if (d.accept)
		return d;
	reply_line(&a->reply, &o);
	if (!no && e[0] == 4)
		reply_status(&a->reply, status);
	else if (no)
		reply_status(&(struct reply){ .enhanced = { 5, 1, of_domain ? e[2] : 1 } }, status);
	reply_set(&d.reply, no ? 550 : 451, status, "%.*s: %s (%.*s)", SPAN_FMT(rcpt->full), no ? "there is no such address" : "cannot be verified now",
		SPAN_FMT(out_span(&o)));
	return d;
}

/* False: the answer is waited for. */
static bool verify(struct session *s, struct span addr, struct decision *d)
{
	struct rcpt_check *c = s->check;
	struct out o = out_of(c->addr, sizeof(c->addr));
	enum status st;

	if (c->verified && span_eq(span_of(c->addr, c->addr_len), addr)) {
		*d = recipient_verified(&s->smtp.rcpt, &c->answer);
		return true;
	}
	out_add(&o, addr);
	c->addr_len = o.n;
	st = verify_address(s->w, addr, s->cfg->set->verify_wait_ns, on_verified, s, &c->answer, &c->verify);
	if (st == ST_OK)
		*d = recipient_verified(&s->smtp.rcpt, &c->answer);
	else if (st == ST_NOMEM)
		out_of_room(s, d);
	return st != ST_AGAIN;
}

/* ---- the decision ---- */

/* A7: by the size that MAIL declared, at least one address behind this one can get the message. The others are returned. */
struct decision recipient_size(const struct policy_facts *f, const struct address *rcpt, const struct alias_expansion *e, uint64_t size)
{
	uint32_t n = e->in_tables ? e->nrcpt : 1;
	struct decision d = { .accept = !size, .rule = RULE_ROUTE_SIZE };

	for (uint32_t i = 0; i < n && !d.accept; i++)
		d.accept = terms_takes(f->snap, f->tables, e->in_tables ? e->rcpt[i] : rcpt->full, size, &d.reply);
	return d;
}

static bool size_fits(const struct session *s, const struct alias_expansion *e, struct decision *d)
{
	struct decision size;

	if (!d->accept)
		return true;
	size = recipient_size(&s->facts, &s->smtp.rcpt, e, s->smtp.size_declared);
	if (!size.accept)
		*d = size;
	return size.accept;
}

/* What the tables and the destination say; an accepted recipient is in the envelope then. False: the destination is waited for. */
static bool judge(struct session *s, struct decision *d)
{
	struct alias_expansion e;
	struct pool work;
	struct span addr;
	bool done = true;

	*d = policy_relay(&s->facts, &s->smtp.rcpt);
	if (!d->accept) {
		counter_add(C_RELAY_DENIED, 1);
		return true;
	}
	pool_init(&work, s->cfg->set->transaction_max);
	policy_alias(&s->facts, &s->smtp.rcpt, false, &work, &e);
	*d = e.d;
	if (recipient_is_to_verify(s->w, &s->facts, &s->smtp.rcpt, &e, &addr))
		done = verify(s, addr, d);
	if (!done)
		;
	else if (!is_taken(s, d))
		counter_add(C_RCPT_UNKNOWN, reply_is_permanent(&d->reply));
	else if (!size_fits(s, &e, d))
		;
	else if (e.in_tables && e.d.accept && !put_expanded(s, &e))
		out_of_room(s, d);
	else if (!e.in_tables && !is_new(s, s->smtp.rcpt.full))
		(void)smtp_server_rcpt_replace(&s->smtp, NULL, 0);
	pool_reset(&work);
	return done;
}

/* What a client that guesses addresses hears: of a recipient, or, once a transaction, of a sender that is one of ours. */
static bool is_unknown(const struct session *s, const struct decision *d)
{
	const uint8_t *e = d->reply.enhanced;

	if (d->accept || !reply_is_permanent(&d->reply))
		return false;
	return d->rule == RULE_SENDER_UNKNOWN ? !s->sender_said.told : !policy_is_of_sender(d->rule) && e[1] == 1 && e[2] == 1;
}

static void check_free(struct session *s)
{
	struct rcpt_check *c = s->check;

	if (!c)
		return;
	if (c->query)
		shared_cancel(c->query);
	if (c->verify)
		verify_cancel(c->verify);
	wheel_cancel(s->w->wheel, &c->timer);
	free(c);
	s->check = NULL;
}

/* Goes on as far as it can; each step is made once. False: it waits. */
static bool decide(struct session *s, struct decision *ret)
{
	struct rcpt_check *c = s->check;

	if (dictionary_look(s))
		return false;
	if (c->refused) {
		*ret = (struct decision){ .accept = false, .rule = RULE_DICTIONARY };
		counter_add(C_BAD_REFUSED, 1);
		dictionary_refusal(&s->facts, &ret->reply);
		return true;
	}
	if (!c->decided && decide_sender_passes(s, &c->d) && !judge(s, &c->d))
		return false;
	c->decided = true;
	if (is_unknown(s, &c->d) && dictionary_count(s))
		return false;
	*ret = c->d;
	return true;
}

bool recipient_decide(struct session *s, struct decision *ret)
{
	bool done;

	s->check = calloc(1, sizeof(*s->check));
	if (!s->check) {
		out_of_room(s, ret);
		return true;
	}
	s->check->s = s;
	done = decide(s, ret);
	if (done)
		check_free(s);
	return done;
}

void recipient_go_on(struct session *s)
{
	struct decision d;

	if (s->waits != WAITS_RCPT || !decide(s, &d))
		return;
	check_free(s);
	decide_rcpt_came(s, &d);
}

void recipient_cancel(struct session *s)
{
	check_free(s);
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
