/* P19: a user who logged in sends as itself. A user in auth.senders has the addresses that stand there, everybody else any address of our own domains.
 * The null sender is everybody's: notifications that a mail program makes have it (RFC 8098 section 3). */
#include "dataplane/policy/policy.h"

static bool owns(const struct policy_facts *f, const struct address *sender)
{
	const struct snap_senders *l = snap_find_senders(f->snap, f->auth_user);
	char buf[ADDRESS_DOMAIN_MAX + 1];
	struct out key = out_of(buf, sizeof(buf));

	if (!sender->is_literal && address_domain_key(sender->domain, &key) != ST_OK)
		return false;
	if (sender->is_literal)
		out_add(&key, sender->domain);
	return l ? snap_sender_in(f->snap, l, sender->local, out_span(&key)) : policy_serves(f, out_span(&key));
}

struct decision policy_sender(const struct policy_facts *f, const struct address *sender)
{
	struct decision d = { .accept = true, .rule = RULE_SENDER_OWNER };

	if (!f->auth_user.n || !sender->full.n || owns(f, sender))
		return d;
	d.accept = false;
	reply_set(&d.reply, 550, "5.7.1", "<%.*s> is not a sender of user %.*s", SPAN_FMT(sender->full), SPAN_FMT(f->auth_user));
	return d;
}
