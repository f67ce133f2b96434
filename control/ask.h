/* Asks dataplane workers (spool/store/command.h) and reads their rows.
 *
 * weirctl talks to the workers itself, so that it works without weir-control. */
#ifndef WEIR_CONTROL_ASK_H
#define WEIR_CONTROL_ASK_H

#include "spool/base/span.h"
#include "spool/base/status.h"

typedef void row_fn(void *ctx, unsigned worker, struct span row);

/* Sends the request row to one worker and gives every row of the answer but the last. ST_NOT_FOUND: no such worker runs; ST_INVALID: it refused, the trail says why. */
enum status ask_worker(const char *run_dir, unsigned worker, struct span request, row_fn *fn, void *ctx);
/* The same for what takes longer than a moment. */
enum status ask_worker_within(const char *run_dir, unsigned worker, struct span request, unsigned limit_s, row_fn *fn, void *ctx);
/* Workers that have a command socket in the run directory: their numbers, in order. */
unsigned ask_workers(const char *run_dir, unsigned *ret, unsigned max);
/* The value of a key in a row, unescaped into buf as a string; "" when there is none. */
const char *row_value(struct span row, const char *key, char *buf, size_t cap);
/* Sends one line to weir-control. ST_OK: text is its answer without the closing "ok"; ST_INVALID: it refused, text says why; ST_IO: it does not answer. */
enum status ask_control(const char *run_dir, const char *request, char *text, size_t cap);

#endif
