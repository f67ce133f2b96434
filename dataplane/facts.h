/* Facts for the rules that somebody must be asked for, by a session or by an operator's question: gathered without either, asynchronously, within a budget of time.
 *
 * DNS answers are cached by lookup/dns.c, for the whole worker and as long as they hold; nothing is cached here.
 *
 * Owner: what is asked for is the caller's, and stays where it is until fn was called or facts_cancel. Thread: the worker's. Fails: never; what cannot be found out is UNDECIDED. */
#ifndef WEIR_DATAPLANE_FACTS_H
#define WEIR_DATAPLANE_FACTS_H

#include "dataplane/policy/policy.h"
#include "dataplane/worker.h"

struct facts_ask;
/* All is there. Never called from inside the function that asked. */
typedef void facts_fn(void *ctx);

/* The DNS questions of one message: their time (P15), and how many domains are asked for at a time, three questions each. */
#define FACTS_BUDGET_NS (10 * NS_PER_S)
enum { FACTS_DOMAINS_MAX = HEADER_DOMAINS_MAX };

/* The name of a client host. ST_OK: it is there. ST_AGAIN: fn will be called. */
enum status facts_client(struct worker *w, const uint8_t ip[16], uint64_t budget_ns, struct fact_client *ret, facts_fn *fn, void *ctx,
	struct facts_ask **ret_ask);
/* What those rules about a sender that are not off want to know: fills f->sender_known, and *ret for f->sender_domain (its name is in the pool). An address of ours that the tables do not have, or of which they say one address
 * that its mail goes to, is asked for at its destination where the configuration wants that of recipients (B2), not for class fragile, which never waits for others. f stays, too.
 * *ret_ask is NULL when all is there already. */
void facts_sender(struct worker *w, struct policy_facts *f, const struct address *sender, uint64_t budget_ns, struct pool *pool, struct fact_domain *ret, facts_fn *fn, void *ctx,
	struct facts_ask **ret_ask);
/* Reads the header (head, of a message of len octets) and fills *ret, but for what others must be asked: facts_header_ask does that. Names are in the pool. */
void facts_header(const struct policy_facts *f, struct span head, uint64_t len, struct pool *pool, struct fact_header *ret);
/* Each domain in the header as a mail domain (P15: at most HEADER_DOMAINS_MAX), and addresses of ours as for facts_sender, where the rule would do more than tag: what is only tagged is decided by what is known, as a stranger's header must not cost anybody a question.
 * ST_OK: all is there. ST_AGAIN: fn will be called; f and h stay until then. */
enum status facts_header_ask(struct worker *w, const struct policy_facts *f, struct fact_header *h, uint64_t budget_ns, facts_fn *fn, void *ctx, struct facts_ask **ret_ask);
/* fn will not be called any more. */
void facts_cancel(struct facts_ask *ask);
/* TIMER_FACTS: the budget is used up. */
void facts_timer(struct worker *w, struct timer *t);

#endif
