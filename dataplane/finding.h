/* What a rule found, carried out: refused, held, marked or only logged, as the rule's mode says (policy/apply.c decides, this does).
 *
 * A message that is to be held or marked has that in its envelope (trace, hold), so that a crash does not forget it. The field X-Weir-Policy goes above our Received field; fields of that name further down came with the
 * message, which is not touched (F5), and mean nothing.
 *
 * Owner: the session. Thread: the worker's. */
#ifndef WEIR_DATAPLANE_FINDING_H
#define WEIR_DATAPLANE_FINDING_H

#include "dataplane/session.h"

/* Carries the decision out. True: it is accepted (now). False: the caller answers with d->reply; log and trace know of it. to: the recipient, or empty. */
bool finding_accept(struct session *s, struct decision *d, struct span to);
/* The same refusal again, of another recipient of the transaction: d->reply is what it hears, log and trace know of it, nothing is counted. */
void finding_repeat(struct session *s, struct decision *d, struct span to);

#endif
