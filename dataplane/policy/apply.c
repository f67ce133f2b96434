/* D2, A5: what a rule's finding comes to for this client. The one place that knows modes, and what clients of class fragile are promised. */
#include "dataplane/policy/policy.h"

enum { LINE_MAX_TEXT = 480 }; /* the reply is one line of 512 octets with its codes */

/* A5: a fragile client has no queue. It sees no refusal of what can be held, or told by a bounce. */
static enum policy_mode as_promised(enum rule r, enum policy_mode mode)
{
	if (mode < POLICY_DEFER)
		return mode;
	switch ((enum rule_guarantee)rule_row[r].guarantee) {
	case GUARANTEE_HOLD:
		return POLICY_HOLD;
	case GUARANTEE_SEND:
		return POLICY_MONITOR;
	case GUARANTEE_REFUSE:
		break;
	}
	return mode;
}

/* B4: postmaster is who is written to when nothing else works. */
static enum policy_mode as_for_postmaster(enum rule r, enum policy_mode mode)
{
	return mode > rule_postmaster[r] && rule_postmaster[r] != POLICY_OFF ? (enum policy_mode)rule_postmaster[r] : mode;
}

enum policy_mode policy_mode(const struct policy_facts *f, enum rule r)
{
	enum snap_class class = policy_class(f);
	enum policy_mode mode = snap_policy_mode(f->snap, r, class);

	if (class == CLASS_FRAGILE)
		mode = as_promised(r, mode);
	return f->to_postmaster ? as_for_postmaster(r, mode) : mode;
}

bool policy_is_of_sender(enum rule r)
{
	return r == RULE_CLIENT_DNS || r == RULE_SENDER_DOMAIN || r == RULE_SENDER_HOST_NAME || r == RULE_SENDER_UNKNOWN;
}

uint32_t policy_line(const struct policy_facts *f, enum rule r)
{
	return f->snap->h->settings.policy_line[r][policy_class(f)];
}

static void make_temporary(struct reply *r)
{
	if (!reply_is_permanent(r))
		return;
	r->code = r->code == 550 ? 450 : 451;
	r->enhanced[0] = 4;
}

static void make_permanent(struct reply *r)
{
	if (!reply_is_temporary(r))
		return;
	r->code = 550;
	r->enhanced[0] = 5;
}

void policy_help(const struct snapshot *snap, enum rule r, struct reply *reply)
{
	struct span url = snap_span(snap, snap->h->settings.policy_help_url), before = url;
	char buf[REPLY_TEXT_MAX];
	struct out o = out_of(buf, sizeof(buf));
	const char *code = memmem(url.p, url.n, "{code}", 6);

	if (!url.n)
		return;
	out_fmt(&o, " [%s] ", rule_row[r].name);
	if (code)
		before.n = (size_t)(code - url.p);
	out_add(&o, before);
	if (code) {
		out_str(&o, rule_row[r].name);
		out_add(&o, span_skip(url, before.n + 6));
	}
	if (o.over || o.n > LINE_MAX_TEXT)
		return; /* the configuration's check does not let it come to that */
	if (reply->text_len > LINE_MAX_TEXT - o.n)
		reply->text_len = (uint16_t)(LINE_MAX_TEXT - o.n);
	memcpy(reply->text + reply->text_len, buf, o.n);
	reply->text_len = (uint16_t)(reply->text_len + o.n);
}

enum policy_mode policy_apply(const struct policy_facts *f, struct decision *d)
{
	enum policy_mode mode = policy_mode(f, d->rule);

	if (d->accept)
		return POLICY_OFF;
	if (d->undecided && mode > POLICY_MONITOR && mode < POLICY_DEFER)
		mode = POLICY_MONITOR; /* nothing is known against it */
	if (mode < POLICY_DEFER) {
		d->accept = true;
		return mode;
	}
	if (mode == POLICY_DEFER)
		make_temporary(&d->reply);
	else if (!d->undecided)
		make_permanent(&d->reply);
	policy_help(f->snap, d->rule, &d->reply);
	return mode;
}
