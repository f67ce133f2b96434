/* A report of checks, a line a finding, for people or as JSON; and questions about DNS for it. */
#ifndef WEIR_CONTROL_REPORT_H
#define WEIR_CONTROL_REPORT_H

#include <jansson.h>
#include "spool/base/span.h"
#include "spool/base/status.h"

enum report_level { REPORT_OK, REPORT_ADVICE, REPORT_WRONG };

struct report {
	json_t *json; /* NULL: printed at once */
	unsigned wrong, advice;
};

void report_say(struct report *r, enum report_level level, const char *rule, const char *fmt, ...) __attribute__((format(printf, 4, 5)));
/* Prints what is to be said at the end; the exit code: 1 when something is wrong. */
int report_end(struct report *r);

struct dns_said {
	char result[16]; /* found, nxdomain, nodata, null-mx, tempfail; "": no worker answered */
	char text[128];
	unsigned n;
	char value[24][1024]; /* names of exchangers, addresses, texts */
};

/* type: mx, addr, txt. ST_NOT_FOUND: no worker answers, or it does not understand; the trail says. */
enum status report_dns(const char *run_dir, const char *type, const char *name, struct dns_said *ret);
static inline bool dns_found(const struct dns_said *d)
{
	return strcmp(d->result, "found") == 0;
}
/* The domain has no MX record: what was answered stands for its address. */
bool dns_is_implicit(const struct dns_said *mx, const char *domain);

#endif
