/* TLS reports (RFC 8460): one JSON file for each day (UTC), RUN/tls-reports/report-DAY.json, made of the workers' counts (dataplane/tls_report.h) and made anew while they grow.
 *
 * Thread: one. Fails: a row that is not understood is left out. */
#ifndef WEIR_CONTROL_TLS_REPORTS_H
#define WEIR_CONTROL_TLS_REPORTS_H

#include "spool/base/span.h"

/* Every second or so: makes what is due. */
void tls_reports_turn(const char *run_dir);

#endif
