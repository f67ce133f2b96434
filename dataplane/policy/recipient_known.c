#include "dataplane/policy/recipient_known.h"

#include "spool/base/clock.h"

static bool is_young(uint64_t at_ms, uint64_t now_ms, uint64_t life_ns)
{
	return at_ms && (at_ms >= now_ms || (now_ms - at_ms) < life_ns / NS_PER_MS);
}

/* ---- what records say ---- */

static bool counts(const struct recipient_facts *f, const struct known *k, enum known_kind kind, uint64_t life_ns)
{
	return k->kind == kind && k->at_ms > f->forget->at_ms && is_young(k->at_ms, f->now_ms, life_ns);
}

static bool was_good(const struct recipient_facts *f)
{
	return counts(f, f->addr, KNOWN_YES, f->set->verify_domain_yes_ns);
}

bool recipient_domain_known(const struct recipient_facts *f)
{
	return counts(f, f->domain, KNOWN_YES, f->set->verify_domain_yes_ns);
}

enum recipient_say recipient_outage(const struct recipient_facts *f)
{
	return was_good(f) ? RECIPIENT_YES : RECIPIENT_UNKNOWN;
}

static enum recipient_say say(enum recipient_say what, const char *why, const struct known *k, const struct reply **ret_reply, const char **ret_why)
{
	*ret_reply = k ? &k->reply : NULL;
	*ret_why = why;
	return what;
}

enum recipient_say recipient_known(const struct recipient_facts *f, const struct reply **ret_reply, const char **ret_why)
{
	const struct snap_settings *set = f->set;

	if (counts(f, f->domain, KNOWN_NO, set->verify_domain_no_ns))
		return say(RECIPIENT_NO, "the domain takes no mail", f->domain, ret_reply, ret_why);
	if (counts(f, f->addr, KNOWN_NO, set->verify_address_no_ns))
		return say(RECIPIENT_NO, "the destination refused it", f->addr, ret_reply, ret_why);
	if (counts(f, f->addr, KNOWN_YES, set->verify_address_yes_ns))
		return say(RECIPIENT_YES, "the destination takes it", NULL, ret_reply, ret_why);
	if (counts(f, f->domain, KNOWN_ALL, set->verify_domain_yes_ns))
		return say(RECIPIENT_YES, "the domain takes every address", NULL, ret_reply, ret_why);
	if (counts(f, f->domain, KNOWN_MUTE, set->verify_domain_no_ns))
		return say(RECIPIENT_YES, "the destination refuses the null sender: it cannot be asked", NULL, ret_reply, ret_why);
	if (f->addr->tried_ms <= f->forget->at_ms || !is_young(f->addr->tried_ms, f->now_ms, set->verify_retry_ns))
		return say(RECIPIENT_ASK, "not known", NULL, ret_reply, ret_why);
	if (was_good(f))
		return say(RECIPIENT_YES, "it was good before the destination stopped answering", NULL, ret_reply, ret_why);
	return say(RECIPIENT_UNKNOWN, "it was asked in vain a moment ago", f->addr, ret_reply, ret_why);
}

uint64_t recipient_life_ns(const struct snap_settings *set, const struct known *k, bool of_domain, uint64_t now_ms)
{
	uint64_t life = 0, age = k->at_ms && k->at_ms < now_ms ? (now_ms - k->at_ms) * NS_PER_MS : 0;

	switch (k->kind) {
	case KNOWN_YES: /* of an address: an outage may make it last */
	case KNOWN_ALL:
		life = set->verify_domain_yes_ns > set->verify_address_yes_ns ? set->verify_domain_yes_ns : set->verify_address_yes_ns;
		break;
	case KNOWN_NO:
		life = of_domain ? set->verify_domain_no_ns : set->verify_address_no_ns;
		break;
	case KNOWN_MUTE:
		life = set->verify_domain_no_ns;
		break;
	case KNOWN_NOTHING:
		return set->verify_retry_ns;
	case KNOWN_FORGET: /* until all that is older has ended by itself */
	case KNOWN_NKIND:
		return set->verify_domain_yes_ns > set->verify_address_yes_ns ? set->verify_domain_yes_ns : set->verify_address_yes_ns;
	}
	return life > age ? life - age : 0;
}

/* ---- what is learnt ---- */

/* Mailbox full, system trouble, routing trouble: the address may be right (RFC 3463 X.2.2, X.3, X.4.). X.4.1 is what some large services say of unknown users. */
static bool is_about_address(const struct reply *r)
{
	const uint8_t *e = r->enhanced;

	return reply_is_permanent(r) && !(e[0] && ((e[1] == 2 && e[2] == 2) || e[1] == 3 || (e[1] == 4 && e[2] != 1)));
}

/* The destination says of both that it does not know their domain. */
static bool is_about_domain(const struct reply *a, const struct reply *b)
{
	return reply_is_permanent(a) && reply_is_permanent(b) && a->enhanced[0] && a->enhanced[1] == 1 && a->enhanced[2] == 2 &&
		b->enhanced[0] && b->enhanced[1] == 1 && b->enhanced[2] == 2;
}

static void set_known(struct known *k, enum known_kind kind, uint64_t now_ms, const struct reply *r)
{
	*k = (struct known){ .kind = kind, .at_ms = now_ms };
	if (r)
		k->reply = *r;
}

/* What was known stays, with the note that it was asked in vain. A refusal that may pass is one that passes. */
static void note_trial(struct known *k, uint64_t now_ms, const struct reply *r)
{
	if (k->kind != KNOWN_YES)
		*k = (struct known){ .kind = KNOWN_NOTHING };
	k->tried_ms = now_ms;
	k->reply = *r;
	if (reply_is_temporary(r))
		return;
	if (r->enhanced[0])
		k->reply.enhanced[0] = 4;
	k->reply.code = 451;
}

static void learn_domain(const struct recipient_heard *h, uint64_t now_ms, struct known *domain, bool *ret)
{
	const struct reply *a = h->addr, *b = h->invented;

	*ret = true;
	if (is_about_domain(a, b))
		set_known(domain, KNOWN_NO, now_ms, a);
	else if (reply_is_ok(a) && reply_is_ok(b))
		set_known(domain, KNOWN_ALL, now_ms, NULL);
	else if (is_about_address(b) || (is_about_address(a) && reply_is_ok(b)))
		set_known(domain, KNOWN_YES, now_ms, NULL);
	else
		*ret = false; /* greylisting, for example: it says nothing of either */
}

void recipient_learn(const struct recipient_heard *h, uint64_t now_ms, struct known *addr, struct known *domain, bool *ret_addr, bool *ret_domain)
{
	*ret_addr = *ret_domain = false;
	if (h->dest_refused) {
		set_known(domain, KNOWN_NO, now_ms, h->failure);
		*ret_domain = true;
		return;
	}
	if (h->mail_refused && reply_is_permanent(h->addr)) {
		set_known(domain, KNOWN_MUTE, now_ms, h->addr);
		*ret_domain = true;
		return;
	}
	*ret_addr = true;
	if (!h->mail_refused && reply_is_ok(h->addr))
		set_known(addr, KNOWN_YES, now_ms, NULL);
	else if (!h->mail_refused && is_about_address(h->addr))
		set_known(addr, KNOWN_NO, now_ms, h->addr);
	else
		note_trial(addr, now_ms, h->addr->code ? h->addr : h->failure);
	if (h->invented && h->invented->code && h->addr->code && !h->mail_refused)
		learn_domain(h, now_ms, domain, ret_domain);
}

bool recipient_learn_delivery(const struct reply *r, uint64_t now_ms, struct known *addr)
{
	if (reply_is_ok(r))
		set_known(addr, KNOWN_YES, now_ms, NULL);
	else if (r->code == 550 && r->enhanced[0] == 5 && r->enhanced[1] == 1 && r->enhanced[2] == 1)
		set_known(addr, KNOWN_NO, now_ms, r);
	else
		return false;
	return true;
}
