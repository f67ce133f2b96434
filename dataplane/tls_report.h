/* Counts of how TLS went in delivery, by policy and result (RFC 8460), for weir-control, which makes the reports of them.
 *
 * Counted in memory; every few seconds what is new is appended to <run>/tls-reports/counts-DAY-WORKER, a row of log.h each, with n=. A crash loses these few seconds.
 *
 * Owner: the worker. Thread: one. Fails: never; what cannot be kept is not counted. */
#ifndef WEIR_DATAPLANE_TLS_REPORT_H
#define WEIR_DATAPLANE_TLS_REPORT_H

#include "spool/base/span.h"
#include "spool/base/status.h"

struct tls_report;

struct tls_session_result {
	const char *type;   /* "sts", "tlsa", "no-policy-found" */
	struct span domain; /* policy domain */
	struct span policy; /* its lines, separated by "\n" */
	struct span mx;     /* receiving host */
	const char *result; /* result type (RFC 8460 4.3); NULL: success */
	struct span reason; /* of a failure: in words */
	struct span local_ip, remote_ip; /* of a failure: empty when there was no connection */
};

enum status tls_report_new(const char *run_dir, uint32_t worker, struct tls_report **ret);
void tls_report_free(struct tls_report *r);
void tls_report_count(struct tls_report *r, const struct tls_session_result *s);
/* Appends what is new. Once every few seconds, and at the end. */
void tls_report_flush(struct tls_report *r);

#endif
