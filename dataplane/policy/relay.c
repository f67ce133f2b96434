/* A1: who may send to whom. Users who logged in and inside clients to anywhere, everyone to the domains that we serve; never an open relay, whatever the spelling. */
#include "dataplane/policy/policy.h"

enum snap_class policy_class(const struct policy_facts *f)
{
	if (f->auth_user.n)
		return CLASS_SUBMISSION;
	return f->net ? (enum snap_class)f->net->class_ : CLASS_MX;
}

bool policy_serves(const struct policy_facts *f, struct span domain)
{
	return snap_find_domain(f->snap, domain) || snap_find_mail_domain(f->snap, domain) || tables_find_domain(f->tables, domain);
}

/* A local part is opaque (P5): only the domain, in look-up form, decides. An address literal is never one of our domains. */
static bool is_local(const struct policy_facts *f, const struct address *rcpt)
{
	char buf[ADDRESS_DOMAIN_MAX + 1];
	struct out key = out_of(buf, sizeof(buf));

	if (rcpt->domain.n == 0)
		return address_is_postmaster(rcpt); /* bare postmaster is always ours (RFC 5321 4.5.1) */
	if (rcpt->is_literal || address_domain_key(rcpt->domain, &key) != ST_OK)
		return false;
	return policy_serves(f, out_span(&key));
}

bool policy_is_our_postmaster(const struct policy_facts *f, const struct address *rcpt)
{
	return address_is_postmaster(rcpt) && is_local(f, rcpt);
}

struct decision policy_relay(const struct policy_facts *f, const struct address *rcpt)
{
	struct decision d = { .accept = true, .rule = RULE_RELAY_DENIED };

	if (f->auth_user.n || f->net || is_local(f, rcpt))
		return d;
	d.accept = false;
	if (f->expired)
		reply_set(&d.reply, 550, "5.7.1", "Relaying denied: the registration of your host has expired");
	else
		reply_set(&d.reply, 550, "5.7.1", "Relaying denied: %.*s is not served here", SPAN_FMT(rcpt->domain));
	return d;
}
