/* A8, D2: how many messages a client host, or a user who logged in, may send in a period, and what happens beyond. Outside clients (mx) are not limited by this rule. */
#include "dataplane/policy/policy.h"

double policy_rate_limit(const struct policy_facts *f)
{
	if (policy_mode(f, RULE_RATE) == POLICY_OFF || (!f->net && !f->auth_user.n))
		return 0;
	if (f->auth_user.n)
		return f->snap->h->settings.rate_limit;
	return f->net->rate_limit < 0 ? f->snap->h->settings.rate_limit : f->net->rate_limit;
}

void policy_rate_key(const struct policy_facts *f, struct out *o)
{
	if (f->auth_user.n) {
		out_str(o, "user/");
		out_add(o, f->auth_user);
		return;
	}
	out_str(o, "client/");
	ip_write(f->client_ip, o);
}

struct decision policy_rate(const struct policy_facts *f, bool over, double rate)
{
	struct decision d = { .accept = !over, .rule = RULE_RATE };

	if (d.accept)
		return d;
	reply_set(&d.reply, 450, "4.7.1", "Too many messages from %s: %.0f, at most %.0f are allowed; try again later",
		f->auth_user.n ? "you" : "your host", rate, policy_rate_limit(f));
	return d;
}
