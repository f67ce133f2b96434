/* A check of a mail domain under way, as domain_check.c (the whole, DNS) and check_targets.c (where its aliases lead) see it. */
#ifndef WEIR_CONTROL_CHECK_INTERNAL_H
#define WEIR_CONTROL_CHECK_INTERNAL_H

#include "control/report.h"
#include "spool/store/snapshot.h"
#include "spool/store/tables.h"

struct check {
	const char *run_dir, *domain;
	const struct snapshot *s;
	struct tables t;
	const struct tables_domain *d;
	struct report r;
	bool silent; /* no worker answered: there is no report */
};

/* Asks a worker about DNS. False: nobody answers, or it cannot be said now; then that is reported. */
bool check_ask(struct check *c, const char *type, const char *name, const char *rule, struct dns_said *ret);

/* C5: mail can be sent to every domain that the aliases lead to, and their destinations take the addresses. */
void check_targets(struct check *c);

#endif
