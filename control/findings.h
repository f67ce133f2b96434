/* What is doubtful in compiled tables: addresses behind aliases that lead nowhere, and loops (C5). */
#ifndef WEIR_CONTROL_FINDINGS_H
#define WEIR_CONTROL_FINDINGS_H

#include "spool/store/tables.h"

/* what is "leads nowhere" or "closes a loop"; detail the address that does. */
typedef void findings_fn(void *ctx, const struct tables *t, const struct tables_alias *a, const char *what, struct span detail);

/* Gives how many there were. Each loop is found once. */
unsigned tables_findings(const struct tables *t, findings_fn *found, void *ctx);

#endif
