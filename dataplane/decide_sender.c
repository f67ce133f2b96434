#include "dataplane/decide_sender.h"

#include <stdlib.h>
#include "dataplane/clients.h"
#include "dataplane/decide.h"
#include "dataplane/finding.h"
#include "dataplane/inbound.h"
#include "spool/base/clock.h"
#include "spool/base/counters.h"

static void on_client(void *ctx);
static void on_sender(void *ctx);

static bool is_wanted(const struct session *s, enum rule r)
{
	return policy_mode(&s->facts, r) != POLICY_OFF;
}

/* ---- asking ---- */

static void ask_client(struct session *s)
{
	if (s->client || !is_wanted(s, RULE_CLIENT_DNS))
		return;
	s->client = calloc(1, sizeof(*s->client));
	if (s->client && facts_client(s->w, s->facts.client_ip, FACTS_BUDGET_NS, s->client, on_client, s, &s->client_ask) == ST_OK)
		s->facts.client = s->client;
}

static void ask_domain(struct session *s)
{
	s->dns_begun_ns = s->w->now_ns;
	s->dns_left_ns = FACTS_BUDGET_NS;
	facts_sender(s->w, &s->facts, &s->smtp.sender, FACTS_BUDGET_NS, &s->smtp.pool, &s->sender, on_sender, s, &s->domain_ask);
}

static void facts_came(struct session *s)
{
	if (s->waits != WAITS_FACTS || s->client_ask || s->domain_ask)
		return;
	s->waits = WAITS_NOTHING;
	decide_mail_known(s);
	inbound_go_on(s);
}

static void on_client(void *ctx)
{
	struct session *s = ctx;

	s->client_ask = NULL;
	s->facts.client = s->client;
	facts_came(s);
}

static void on_sender(void *ctx)
{
	struct session *s = ctx;

	uint64_t took = s->w->now_ns - s->dns_begun_ns;

	s->domain_ask = NULL;
	s->dns_left_ns -= took < s->dns_left_ns ? took : s->dns_left_ns;
	facts_came(s);
}

void decide_sender_begin(struct session *s)
{
	ask_client(s);
}

bool decide_sender_ask(struct session *s)
{
	s->sender_said = (struct sender_said){ 0 };
	ask_client(s); /* a user who logged in is of another class */
	ask_domain(s);
	if (!s->client_ask && !s->domain_ask)
		return true;
	s->waits = WAITS_FACTS;
	return false;
}

void decide_sender_stop(struct session *s)
{
	if (s->domain_ask)
		facts_cancel(s->domain_ask);
	s->domain_ask = NULL;
}

void decide_sender_forget(struct session *s)
{
	if (s->client_ask)
		facts_cancel(s->client_ask);
	s->client_ask = NULL;
	free(s->client);
	s->client = NULL;
	s->facts.client = NULL;
}

/* ---- judging ---- */

static bool judge(void *ctx, struct decision *d)
{
	struct session *s = ctx;

	if (d->accept)
		return true;
	s->sender_said.invalid = s->sender_said.invalid || (!d->undecided && d->rule != RULE_CLIENT_DNS);
	policy_apply(&s->facts, d);
	s->sender_said.refused = s->sender_said.refused || !d->accept;
	return true;
}

void decide_sender_judge(struct session *s)
{
	policy_mail(&s->facts, &s->smtp.sender, judge, s);
	if (is_wanted(s, RULE_SENDER_DOMAIN) || is_wanted(s, RULE_SENDER_HOST_NAME) || is_wanted(s, RULE_SENDER_UNKNOWN))
		clients_sender(s, !s->sender_said.invalid);
}

/* ---- for each recipient ---- */

struct passing {
	struct session *s;
	struct decision *refused;
};

static bool pass(void *ctx, struct decision *d)
{
	struct passing *p = ctx;
	struct session *s = p->s;
	struct decision applied = *d;
	enum policy_mode mode;

	if (d->accept)
		return true;
	mode = policy_apply(&s->facts, &applied);
	if (!applied.accept) {
		*p->refused = *d;
		return false;
	}
	if (mode == POLICY_OFF || s->sender_said.done[d->rule] >= mode)
		return true;
	s->sender_said.done[d->rule] = (uint8_t)mode;
	applied = *d;
	if (finding_accept(s, &applied, s->smtp.rcpt.full))
		return true;
	*p->refused = applied; /* no room to hold it */
	return false;
}

bool decide_sender_passes(struct session *s, struct decision *ret)
{
	struct passing p = { .s = s, .refused = ret };

	return policy_mail(&s->facts, &s->smtp.sender, pass, &p);
}

void decide_sender_refuse(struct session *s, struct decision *d)
{
	if (s->sender_said.told) {
		finding_repeat(s, d, s->smtp.rcpt.full);
		return;
	}
	s->sender_said.told = true;
	counter_add(C_SENDER_INVALID, d->rule != RULE_CLIENT_DNS);
	finding_accept(s, d, s->smtp.rcpt.full);
}
