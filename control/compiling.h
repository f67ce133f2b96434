/* How far the compilation of tables is that runs, as weir-control counts it: for weirctl. */
#ifndef WEIR_CONTROL_COMPILING_H
#define WEIR_CONTROL_COMPILING_H

#include <jansson.h>
#include "spool/base/counters.h"

struct compiling {
	uint64_t phase, done, of; /* phase 0: none runs */
};

/* From weir-control's counters; NULL: it does not run. */
void compiling_take(struct compiling *c, const struct counters_page *p);
/* The same, from the files of a node. */
void compiling_read(struct compiling *c, const char *run_dir);
/* A line, when one runs. */
void compiling_print(const struct compiling *c);
/* null: none runs. */
json_t *compiling_json(const struct compiling *c);

#endif
