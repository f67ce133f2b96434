/* The rules: each is given facts and returns a decision; none does I/O, looks at a clock or changes anything.
 *
 * One small file a rule, named after it; the comment above each names its id in the rules' table, spool/mail/rules.def has its modes and what operators are told. A rule says what it finds; apply.c alone knows what that
 * comes to for the client's class. The worker gathers the facts (tables, rates, DNS) and carries the decision out, so that the very same code can explain itself to an operator.
 *
 * Thread: any. Fails: never; a decision is a value. */
#ifndef WEIR_DATAPLANE_POLICY_POLICY_H
#define WEIR_DATAPLANE_POLICY_POLICY_H

#include "spool/base/pool.h"
#include "spool/mail/address.h"
#include "spool/mail/originators.h"
#include "spool/mail/reply.h"
#include "spool/mail/rules.h"
#include "spool/store/snapshot.h"
#include "spool/store/tables.h"

/* What DNS says about a domain as a mail domain (A6). */
enum domain_is {
	DOMAIN_IS_UNASKED,
	DOMAIN_IS_MX,        /* it has MX records */
	DOMAIN_IS_ADDRESS,   /* none, but an address: a host, and by RFC 5321 5.1 its own mail exchanger */
	DOMAIN_IS_EMPTY,     /* neither */
	DOMAIN_IS_MISSING,   /* there is no such domain */
	DOMAIN_IS_NULL_MX,   /* RFC 7505 */
	DOMAIN_IS_UNDECIDED,
};
struct fact_domain {
	struct span name;  /* look-up form; not NUL-terminated */
	enum domain_is is;
	char why[96];      /* DOMAIN_IS_UNDECIDED: "server failure" */
};

/* The name of a client host (A2). */
enum client_is {
	CLIENT_IS_NAMED,   /* name was asked, and has the client's address */
	CLIENT_IS_UNNAMED, /* no PTR record */
	CLIENT_IS_OTHER,   /* it has a name, which does not have its address */
	CLIENT_IS_UNDECIDED,
};
struct fact_client {
	enum client_is is;
	char name[256]; /* NAMED, OTHER */
	char why[96];   /* UNDECIDED */
};

/* Whether somebody has an address of ours: the tables say so, or whoever is asked where they do not (B2). */
enum fact_exists { EXISTS_UNASKED, EXISTS_YES, EXISTS_NO, EXISTS_UNKNOWN };

/* The originators in the header of a message (B5). */
enum { HEADER_DOMAINS_MAX = 8, HEADER_ASKED_MAX = 8 };
struct fact_header {
	struct originators originators;
	uint32_t ndomains;
	struct fact_domain domain[HEADER_DOMAINS_MAX]; /* each once; those beyond are not asked about */
	uint8_t domain_of[ORIGINATORS_MAX];            /* of each originator: its place in domain; beyond ndomains: not asked */
	enum fact_exists known[ORIGINATORS_MAX];
};

struct policy_facts {
	const struct snapshot *snap;
	const struct tables *tables; /* of this moment: a worker changes them between two commands */
	const struct snap_net *net; /* the configured network of the client; NULL: an outside client */
	const struct snap_net *expired; /* net is NULL, and was this until its registration expired */
	struct span auth_user; /* empty: nobody logged in */
	bool to_postmaster;    /* it is about a recipient, or a message all of whose recipients are, postmaster of ours (B4) */
	uint8_t client_ip[16];
	const struct fact_client *client;        /* NULL: not asked */
	const struct fact_domain *sender_domain; /* NULL: not asked */
	enum fact_exists sender_known;
	const struct fact_header *header;        /* NULL: not looked at */
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
/* Whether the rule is about the client or the sender: what it finds is said of each recipient, so that postmaster can be reached (B4, RFC 5321 4.5.1). */
bool policy_is_of_sender(enum rule r);
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

/* A2: whether the client is registered in DNS. Accepts what was not asked. */
struct decision policy_client_dns(const struct policy_facts *f);

/* Whether DNS must be asked about the sender's domain, and under which name (written to key). Not for the null sender, address literals and names of one label. */
bool policy_sender_asks(const struct address *sender, struct out *key);
/* A6: the sender's domain is one for mail (RULE_SENDER_DOMAIN or _HOST_NAME), and it exists if it is ours (RULE_SENDER_UNKNOWN). */
struct decision policy_sender_domain(const struct policy_facts *f, const struct address *sender);
struct decision policy_sender_exists(const struct policy_facts *f, const struct address *sender);
/* Whether a domain, in look-up form, lies within ours: it or a domain above it is served here, or has a route for all sub-domains. */
bool policy_is_own(const struct policy_facts *f, struct span domain);
/* A domain as one of an address that can have mail; who is the address, for the reply. */
struct decision policy_domain(const struct policy_facts *f, struct span who, const struct fact_domain *domain);
/* Whether the tables have an address of ours. EXISTS_UNKNOWN: they do not say. ret_ask: the one address that mail for it goes to, whose destination knows more (as at RCPT, B2); empty: there is none, or several. In the
 * pool, the tables or the address. */
enum fact_exists policy_known(const struct policy_facts *f, const struct address *a, struct pool *work, struct span *ret_ask);

/* What MAIL is answered by once the facts are there: the rules in their order (A2, A6), each finding given to take; it ends where that says false. */
typedef bool policy_take_fn(void *ctx, struct decision *d);
bool policy_mail(const struct policy_facts *f, const struct address *sender, policy_take_fn *take, void *ctx);

/* B5: From, Sender and Reply-To. */
struct decision policy_header_from(const struct policy_facts *f);

/* Whether this domain, in look-up form, is one that we serve: for anybody to send to, and for users to send as. */
bool policy_serves(const struct policy_facts *f, struct span domain);
/* B4: whether a recipient is postmaster of a domain that we serve, or bare postmaster, which is the relay's own. */
bool policy_is_our_postmaster(const struct policy_facts *f, const struct address *rcpt);
/* A1, P5: whether this client may send to this recipient. local is true for a domain that we serve. */
struct decision policy_relay(const struct policy_facts *f, const struct address *rcpt);

/* B6: number of Received fields that the message has already. */
struct decision policy_hops(const struct policy_facts *f, unsigned received);

/* A8, D2: limit in messages per period for this client, or for the user who logged in; 0: none. */
double policy_rate_limit(const struct policy_facts *f);
/* Whose messages are counted: the user's, else the client host's. */
void policy_rate_key(const struct policy_facts *f, struct out *o);
/* over is what the counter said. */
struct decision policy_rate(const struct policy_facts *f, bool over, double rate);

#endif
