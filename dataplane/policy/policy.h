/* The rules: each is given facts and returns a decision; none does I/O, looks at a clock or changes anything.
 *
 * One small file a rule, named after it; the comment above each names its id in the rules' table, spool/mail/rules.def has its modes and what operators are told. A rule says what it finds; apply.c alone knows what that
 * comes to for the client's class. The worker gathers the facts (tables, rates, DNS) and carries the decision out, so that the very same code can explain itself to an operator.
 *
 * Thread: any. Fails: never; a decision is a value. */
#ifndef WEIR_DATAPLANE_POLICY_POLICY_H
#define WEIR_DATAPLANE_POLICY_POLICY_H

#include "spool/mail/address.h"
#include "spool/mail/reply.h"
#include "spool/mail/rules.h"
#include "spool/store/snapshot.h"
#include "spool/store/tables.h"

struct policy_facts {
	const struct snapshot *snap;
	const struct tables *tables; /* of this moment: a worker changes them between two commands */
	const struct snap_net *net; /* the configured network of the client; NULL: an outside client */
	struct span auth_user; /* empty: nobody logged in */
	uint8_t client_ip[16];
};

struct decision {
	bool accept;
	bool undecided;     /* not accepted because it could not be found out: a 4xx at most, whatever the mode */
	enum rule rule;     /* whose finding it is, when not accepted */
	struct reply reply; /* when not accepted */
};

/* ---- apply.c: modes ---- */

/* What is done about a finding of the rule for this client; what class fragile is promised (A5) is in it. */
enum policy_mode policy_mode(const struct policy_facts *f, enum rule r);
/* The configuration line that says so; 0: it is the default. */
uint32_t policy_line(const struct policy_facts *f, enum rule r);
/* Turns a rule's finding into the decision. POLICY_OFF, MONITOR, TAG, HOLD: accepted now, the reply is what it would have been; DEFER, REJECT: the reply is as the client is to see it. */
enum policy_mode policy_apply(const struct policy_facts *f, struct decision *d);
/* Ends a refusal with the rule's stable code and its help page (A12), when one is configured. policy_apply does it, too. */
void policy_help(const struct snapshot *snap, enum rule r, struct reply *reply);

/* ---- the rules ---- */

/* The class of the client (A5): submission when it logged in, else of its network, CLASS_MX outside. */
enum snap_class policy_class(const struct policy_facts *f);

/* P19: whether the user who logged in may send as this sender. Everybody who did not log in may, by this rule. */
struct decision policy_sender(const struct policy_facts *f, const struct address *sender);

/* Whether this domain, in look-up form, is one that we serve: for anybody to send to, and for users to send as. */
bool policy_serves(const struct policy_facts *f, struct span domain);
/* A1, P5: whether this client may send to this recipient. local is true for a domain that we serve. */
struct decision policy_relay(const struct policy_facts *f, const struct address *rcpt);

/* B6: number of Received fields that the message has already. */
struct decision policy_hops(const struct policy_facts *f, unsigned received);

/* A8, D2: limit in messages per period for this client, or for the user who logged in; 0: none. */
double policy_rate_limit(const struct policy_facts *f);
/* over is what the counter said. */
struct decision policy_rate(const struct policy_facts *f, bool over, double rate);

#endif
