/* Orders of operators about managed domains, from the control socket (C4, C9): "domain do=... domain=D ..." as a row of log.h.
 *
 *   do=fetch                        fetches now
 *   do=accept                       takes what the guard against shrinking refused
 *   do=set local=L addresses=A,...  one entry, of a domain whose source is the command line
 *   do=delete local=L               the same
 *   do=revert [n=N]                 back to what it was after change N, or before the last one
 *
 * Thread: one. */
#ifndef WEIR_CONTROL_MANAGED_ORDERS_H
#define WEIR_CONTROL_MANAGED_ORDERS_H

#include <stdio.h>
#include "spool/base/span.h"

enum order_result { ORDER_DONE, ORDER_FAILED, ORDER_LATER /* fd was taken: the answer comes when the fetch is over, and tables are made of the change */ };

/* row: what follows "domain". by: who orders it. The answer goes to out, or, later, to fd. */
enum order_result managed_order(struct span row, const char *by, int fd, FILE *out);

#endif
