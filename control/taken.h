/* Waits until the workers use what has been published. */
#ifndef WEIR_CONTROL_TAKEN_H
#define WEIR_CONTROL_TAKEN_H

#include <stdbool.h>
#include <stdio.h>

/* Waits, at most 10 s, until every worker uses the published configuration and the current tables, and says on `out` (NULL: nobody asked) how many do. Workers that
 * do not, with what they use instead, are named on stderr; then false. */
bool taken_wait(const char *run_dir, FILE *out);

#endif
