/* DNS as the worker sees it, for operators (cmd=dns, spool/store/command.h): the same resolver, limits and cache as for mail.
 *
 * Owner: the asker; the query is its to cancel. */
#ifndef WEIR_DATAPLANE_ASK_DNS_H
#define WEIR_DATAPLANE_ASK_DNS_H

#include "dataplane/lookup/dns.h"
#include "spool/base/log.h"

typedef void ask_dns_row_fn(void *ctx, struct logline *row);

/* type: mx, addr or txt. NULL: *ret_answer is there, or fn will be called with it (*ret_query); else what is wrong with the question. */
const char *ask_dns(struct dns *d, const char *type, const char *name, dns_fn *fn, void *ctx, struct dns_answer **ret_answer,
	struct dns_query **ret_query);
/* A row for the result, then one a record. */
void ask_dns_rows(const struct dns_answer *a, ask_dns_row_fn *emit, void *ctx);

#endif
