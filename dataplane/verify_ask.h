/* Addresses that an operator, or the regular check of a domain (C5), wants verified (B2): asked of what is known and of their destinations, all at the same time, with the probes, budgets and claims of RCPT.
 *
 * Owner: the asker. Thread: the worker's. */
#ifndef WEIR_DATAPLANE_VERIFY_ASK_H
#define WEIR_DATAPLANE_VERIFY_ASK_H

#include "dataplane/verify.h"
#include "spool/store/command.h"

struct verify_ask;

/* addresses: one a line, at most VERIFY_ASK_MAX. A row for each, in any order: addr= result=yes|no|unknown|not-asked cached=yes|no why= reply=. end is called exactly once, maybe from within; then *ret is only to be freed.
 * NULL, or what is wrong. */
const char *verify_ask_begin(struct worker *w, struct span addresses, void (*row)(void *ctx, struct logline *row), void (*end)(void *ctx), void *ctx, struct verify_ask **ret);
/* At any time; probes that are under way go on for those who ask later. NULL is nothing. */
void verify_ask_free(struct verify_ask *a);

#endif
