/* B2: whether a recipient is taken, from what is known of it and of its domain; and when that is not enough, that it must be asked for.
 *
 * A pure decision: the records come from caches, an answer of the destination becomes a record first (recipient_learn). So what a probe says and what the cache says later is
 * decided in one place. */
#ifndef WEIR_DATAPLANE_POLICY_RECIPIENT_KNOWN_H
#define WEIR_DATAPLANE_POLICY_RECIPIENT_KNOWN_H

#include "dataplane/policy/policy.h"
#include "spool/mail/known.h"

enum recipient_say {
	RECIPIENT_ASK,     /* not known well enough: ask the destination */
	RECIPIENT_YES,
	RECIPIENT_NO,      /* reply is the remote's */
	RECIPIENT_UNKNOWN, /* it was asked in vain a moment ago; reply says how that went */
};

struct recipient_facts {
	const struct snap_settings *set;
	const struct known *addr, *domain, *forget; /* kind KNOWN_NOTHING where there is no record */
	uint64_t now_ms;
};

/* What came of asking: the destination's own words about the address and, when it was asked for, about an invented one. */
struct recipient_heard {
	const struct reply *addr;     /* code 0: no answer, failure says why */
	const struct reply *invented; /* NULL: not asked; code 0: no answer */
	const struct reply *failure;  /* of the session or of the way there */
	bool mail_refused;            /* the replies above are those to MAIL FROM:<> */
	bool dest_refused;            /* failure is about the destination: no such domain, null MX */
};

enum recipient_say recipient_known(const struct recipient_facts *f, const struct reply **ret_reply, const char **ret_why);
/* Whether the domain is known to tell addresses apart: it need not be asked for an invented one. */
bool recipient_domain_known(const struct recipient_facts *f);
/* When there was no clear answer and time is up: what was good is taken for good as long as verify.domain_yes (an outage), else unknown. */
enum recipient_say recipient_outage(const struct recipient_facts *f);

/* What becomes of the records; true: that record is to be written. */
void recipient_learn(const struct recipient_heard *h, uint64_t now_ms, struct known *addr, struct known *domain, bool *ret_addr, bool *ret_domain);
/* The same from a delivery: taken, or refused as unknown (5.1.1). False: it says nothing about the address. */
bool recipient_learn_delivery(const struct reply *r, uint64_t now_ms, struct known *addr);
/* How long a record may be of use, and so is kept. */
uint64_t recipient_life_ns(const struct snap_settings *set, const struct known *k, bool of_domain, uint64_t now_ms);

#endif
