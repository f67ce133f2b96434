/* The registry of clients in weir-control (A3): changed by orders, each a row of its history (who, when, what) before it is published; evidence that workers gather is copied to clients.directory every minute.
 *
 * Thread: one. */
#ifndef WEIR_CONTROL_CLIENTS_H
#define WEIR_CONTROL_CLIENTS_H

#include <stdio.h>
#include "spool/base/span.h"

/* do=set|delete|revert and what it needs; the answer goes to out. False: it says why nothing has changed. */
bool clients_order(const char *run_dir, struct span row, const char *by, FILE *out);
/* Every second or so; now: whatever the time is, evidence is kept. */
void clients_turn(const char *run_dir, bool now);

#endif
