/* What is doubtful in compiled tables: addresses behind aliases that lead nowhere, loops, and aliases nested too deep to be accepted (C5). */
#ifndef WEIR_CONTROL_FINDINGS_H
#define WEIR_CONTROL_FINDINGS_H

#include "spool/store/tables.h"

/* what is "leads nowhere", "closes a loop" or "is nested too deep"; detail the address that does. */
typedef void findings_fn(void *ctx, const struct tables *t, const struct tables_alias *a, const char *what, struct span detail);

/* Gives how many there were. Each loop, and each chain that is too long, is found once. */
unsigned tables_findings(const struct tables *t, findings_fn *found, void *ctx);

#endif
