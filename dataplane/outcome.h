/* What a delivery attempt led to for each recipient: delivered, later again, or never; and who hears of it (RFC 3461).
 *
 * Failures of one message are reported together: those of one attempt always, those of several destinations as long as none keeps the others waiting for more than
 * OUTCOME_GATHER_S. Until the report is written the recipients stay open: after a crash they are tried again.
 *
 * Owner: an outcome is its caller's, from {0} to outcome_finish. */
#ifndef WEIR_DATAPLANE_OUTCOME_H
#define WEIR_DATAPLANE_OUTCOME_H

#include "dataplane/bounce.h"

enum { OUTCOME_GATHER_S = 30, OUTCOME_GATHER_MAX = 1000 };

struct outcome {
	struct outcome_list {
		struct bounce_rcpt *rcpt;
		uint32_t n, cap;
	} list[DSN_EXPANDED]; /* by enum dsn_action */
};

/* r is the final word of an attempt on recipient i. */
void outcome_add(struct outcome *oc, struct mail *mail, uint32_t i, const struct reply *r, struct remote remote);
/* Carries it out. The mail may be gone after this. */
void outcome_finish(struct mail *mail, struct outcome *oc);
/* Reports failures that were gathered, if it is time. True: it did, and the mail may be gone. */
bool outcome_report(struct mail *mail);
/* When gathered failures are reported at the latest, monotonic; UINT64_MAX: there are none. */
uint64_t outcome_report_due(const struct mail *mail);

/* When recipient i was deferred last (up to a quarter of a second before), by its next attempt; 0: it never was. */
uint64_t outcome_deferred_ns(const struct mail *mail, uint32_t i);

#endif
