/* P10, A10: how many reports are made. Forged senders must not turn the relay into a source of bounces, nor a flood of undeliverable ones into a flood at the postmaster.
 *
 * Counts in windows of reports.period, for this worker: by addressee, by the client host that the mail came from, and all together. Of undeliverable reports (double
 * bounces) the postmaster gets one for each undeliverable address of a client host, and a limited number for that host.
 *
 * Owner: the worker. Thread: one. Memory: an entry or two for each report allowed in a window; without memory for one nothing is allowed. */
#ifndef WEIR_DATAPLANE_REPORT_LIMITS_H
#define WEIR_DATAPLANE_REPORT_LIMITS_H

#include "spool/base/span.h"
#include "spool/base/status.h"
#include "spool/store/snapshot.h"

struct report_limits;

struct report_ask {
	const struct snap_settings *set;
	uint64_t now_ns;         /* monotonic */
	struct span to;          /* who would get it */
	const uint8_t *host;     /* 16 bytes: the client that the mail reported on came from */
	bool double_bounce;
	struct span failed_rcpt; /* double bounces only: the address that could not be delivered to */
};

enum status report_limits_new(struct report_limits **ret);
void report_limits_free(struct report_limits *l);
/* NULL: it may be made, and is counted. Else the name of the limit that is reached: "reports.per_sender", ...; "duplicate" for a double bounce told before. */
const char *report_limit(struct report_limits *l, const struct report_ask *ask);

#endif
