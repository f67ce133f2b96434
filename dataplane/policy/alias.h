/* What a recipient in one of our domains stands for: aliases, long forms, forwarding, retired domains, postmaster (C6, C7, C8, B4).
 *
 * A pure decision from the compiled tables: it ends whatever they say, because an alias is followed once, and gives each address once. Addresses of domains that are not in the tables stand for themselves.
 *
 * Thread: any. Fails: never; a refusal, also for want of memory, is a value. */
#ifndef WEIR_DATAPLANE_POLICY_ALIAS_H
#define WEIR_DATAPLANE_POLICY_ALIAS_H

#include "dataplane/policy/policy.h"
#include "spool/base/pool.h"
#include "spool/store/tables.h"

enum { ALIAS_DEPTH_MAX = TABLES_DEPTH_MAX, ALIAS_RCPTS_MAX = 10000 };

/* One step of the way, for explanations. */
struct alias_step {
	const char *rule, *what;
	unsigned depth;
	struct span from;                   /* local@domain */
	struct span to;                     /* what it is, or the first of what it stands for; empty: nothing */
	uint32_t nto;
	const struct tables_domain *domain; /* its line is in the configuration */
	const struct tables_alias *alias;   /* its line is in the alias file; NULL: the domain's row decided */
};

struct alias_expansion {
	struct decision d;
	bool in_tables;        /* false: the recipient stands for itself, rcpt is empty */
	struct span *rcpt;     /* in the pool or the tables; no two are the same */
	uint32_t nrcpt;
	uint32_t ndropped;     /* addresses behind it that lead nowhere, while others do not */
	struct span dropped;   /* the first of them */
	struct alias_step *step; /* when asked for */
	uint32_t nstep;
};

/* The pool is for the results and the work, all of which may be thrown away afterwards. */
void policy_alias(const struct policy_facts *f, const struct address *rcpt, bool explain, struct pool *pool, struct alias_expansion *ret);

#endif
