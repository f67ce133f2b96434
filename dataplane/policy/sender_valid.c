/* A6: any sender is taken that could be answered: its domain is one for mail, and in our own domains it exists. */
#include "dataplane/policy/alias.h"

static bool served_or_routed(const struct policy_facts *f, struct span domain)
{
	char name[ADDRESS_DOMAIN_MAX + 2];
	struct out o = out_of(name, sizeof(name));

	if (policy_serves(f, domain))
		return true;
	out_char(&o, '.');
	out_add(&o, domain);
	return snap_route_is(f->snap, out_span(&o));
}

bool policy_is_own(const struct policy_facts *f, struct span domain)
{
	while (domain.n) {
		if (served_or_routed(f, domain))
			return true;
		span_cut(&domain, '.');
	}
	return false;
}

bool policy_sender_asks(const struct address *sender, struct out *key)
{
	return sender->domain.n && !sender->is_literal && address_domain_key(sender->domain, key) == ST_OK && !key->over &&
		memchr(key->p, '.', key->n) != NULL;
}

struct decision policy_domain(const struct policy_facts *f, struct span who, const struct fact_domain *domain)
{
	struct decision d = { .accept = true, .rule = RULE_SENDER_DOMAIN };
	bool own = policy_is_own(f, domain->name);
	struct span n = domain->name;

	switch (domain->is) {
	case DOMAIN_IS_UNASKED:
	case DOMAIN_IS_MX:
		return d;
	case DOMAIN_IS_ADDRESS:
		if (!own)
			return d;
		d.rule = RULE_SENDER_HOST_NAME;
		reply_set(&d.reply, 550, "5.1.8", "<%.*s>: %.*s is the name of a host, not a mail domain", SPAN_FMT(who), SPAN_FMT(n));
		break;
	case DOMAIN_IS_EMPTY:
		reply_set(&d.reply, 550, "5.1.8", "<%.*s>: domain %.*s has no MX %s", SPAN_FMT(who), SPAN_FMT(n), own ? "record" : "or address record");
		break;
	case DOMAIN_IS_MISSING:
		reply_set(&d.reply, 550, "5.1.8", "<%.*s>: domain %.*s does not exist", SPAN_FMT(who), SPAN_FMT(n));
		break;
	case DOMAIN_IS_NULL_MX:
		reply_set(&d.reply, 550, "5.7.27", "<%.*s>: domain %.*s says that it takes no mail (null MX)", SPAN_FMT(who), SPAN_FMT(n));
		break;
	case DOMAIN_IS_UNDECIDED:
		d.undecided = true;
		reply_set(&d.reply, 451, "4.4.3", "<%.*s>: domain %.*s could not be looked up (%s), try again later", SPAN_FMT(who), SPAN_FMT(n), domain->why);
		break;
	}
	d.accept = false;
	return d;
}

enum fact_exists policy_known(const struct policy_facts *f, const struct address *a, struct pool *work, struct span *ret_ask)
{
	struct alias_expansion e;

	policy_alias(f, a, false, work, &e);
	*ret_ask = !e.d.accept ? SPAN_NONE : !e.in_tables ? a->full : e.nrcpt == 1 ? e.rcpt[0] : SPAN_NONE;
	if (e.in_tables && e.d.accept)
		return EXISTS_YES;
	return e.in_tables && (e.d.rule == RULE_RCPT_UNKNOWN || e.d.rule == RULE_RCPT_RETIRED) ? EXISTS_NO : EXISTS_UNKNOWN;
}

struct decision policy_sender_domain(const struct policy_facts *f, const struct address *sender)
{
	struct decision d = { .accept = true, .rule = RULE_SENDER_DOMAIN };
	char key[ADDRESS_DOMAIN_MAX + 1];
	struct out o = out_of(key, sizeof(key));

	if (!sender->full.n)
		return d; /* notifications (RFC 5321 4.5.5) */
	if (!policy_sender_asks(sender, &o)) {
		d.accept = false;
		reply_set(&d.reply, 550, "5.1.8", "<%.*s>: %.*s is not the full name of a mail domain", SPAN_FMT(sender->full), SPAN_FMT(sender->domain));
		return d;
	}
	return f->sender_domain ? policy_domain(f, sender->full, f->sender_domain) : d;
}

struct decision policy_sender_exists(const struct policy_facts *f, const struct address *sender)
{
	struct decision d = { .accept = f->sender_known != EXISTS_NO, .rule = RULE_SENDER_UNKNOWN };

	if (!d.accept)
		reply_set(&d.reply, 550, "5.1.7", "<%.*s>: there is no such sender here", SPAN_FMT(sender->full));
	return d;
}

bool policy_mail(const struct policy_facts *f, const struct address *sender, policy_take_fn *take, void *ctx)
{
	struct decision d = policy_client_dns(f);

	if (!take(ctx, &d))
		return false;
	d = policy_sender_domain(f, sender);
	if (!take(ctx, &d))
		return false;
	d = policy_sender_exists(f, sender);
	return take(ctx, &d);
}
