/* What workers answer to weirctl, row by row: printed, or as JSON. */
#ifndef WEIR_CONTROL_ROWS_H
#define WEIR_CONTROL_ROWS_H

#include <jansson.h>
#include "spool/base/log.h"

struct rows {
	bool as_json;
	void (*print)(struct span row, unsigned n); /* n: how many came before it */
	unsigned n;
	json_t *json;
};

/* Asks every worker; gives how many answered. first_found: one good answer is enough (a message lives in one of them). */
int rows_ask(const char *run_dir, struct logline *request, struct rows *r, bool first_found);
/* A row's fields as they are. */
void rows_print(struct span row, unsigned n);
/* Has weir-control do what the row says, which begins with word; what it answers is printed, or as JSON. False: it refused or does not answer, and that was said. */
bool rows_order(const char *run_dir, bool as_json, const char *word, struct logline *row);
/* Says on standard error what the trail has; gives the exit code. */
int trail_failed(void);
/* To standard output; takes the reference. */
void dump_json(json_t *j);

#endif
