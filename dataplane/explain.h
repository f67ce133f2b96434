/* What would become of a recipient, said by the very code that decides for real mail: `weirctl route`. */
#ifndef WEIR_DATAPLANE_EXPLAIN_H
#define WEIR_DATAPLANE_EXPLAIN_H

#include "dataplane/policy/policy.h"
#include "dataplane/worker.h"

typedef void explain_row_fn(void *ctx, struct logline *row);

/* One row a decision: rule= what= from= to= more= file= line= config_line=; the last ones are the next hop of each address, or the refusal. client: text of an address, or NULL for one
 * from outside. NULL, or what is wrong with the question. */
const char *explain_route(struct worker *w, const char *addr, const char *client, explain_row_fn *emit, void *ctx);
/* The line of the configuration that decides who may send to this recipient; 0: none does. */
uint32_t explain_relay_line(const struct policy_facts *f, const struct address *rcpt);

#endif
