/* What weirctl queue says about messages and recipients, and which of them it is asked for. */
#ifndef WEIR_DATAPLANE_QUEUE_ROWS_H
#define WEIR_DATAPLANE_QUEUE_ROWS_H

#include "dataplane/worker.h"

struct queue_filter {
	const char *state, *domain, *sender; /* NULL: any */
};

void queue_row_msg(const struct worker *w, const struct store_msg *m, struct logline *row);
void queue_row_rcpt(const struct worker *w, const struct store_msg *m, uint32_t i, struct logline *row);
bool queue_matches(const struct worker *w, const struct store_msg *m, const struct queue_filter *f);

#endif
