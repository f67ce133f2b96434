/* /metrics for Prometheus, from the counter pages of all processes.
 *
 * Thread: libmicrohttpd's own, which only reads the pages. */
#ifndef WEIR_CONTROL_METRICS_H
#define WEIR_CONTROL_METRICS_H

#include <stdbool.h>
#include <stdio.h>
#include "spool/base/counters.h"

/* where: "ADDRESS:PORT", or "none". */
enum status metrics_start(const char *stats_dir, const char *where);
void metrics_stop(void);
/* Writes the text format. */
void metrics_write(const char *stats_dir, FILE *f);

/* Calls fn for every counter page in the directory, in order of their names. */
typedef void page_fn(void *ctx, const char *role, int instance, const struct counters_page *p);
void each_page(const char *stats_dir, page_fn *fn, void *ctx);

#endif
