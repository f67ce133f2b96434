/* Mail of weir-control's own: handed to a worker, who puts it into its spool like a bounce (dataplane/notice.c). Nothing waits; what no worker takes is offered again.
 *
 * Thread: one. */
#ifndef WEIR_CONTROL_NOTICES_H
#define WEIR_CONTROL_NOTICES_H

#include "spool/base/span.h"

typedef void notice_taken_fn(const char *domain, uint64_t key);

struct notice_order {
	const char *to, *subject;
	const char *text;       /* lines, each ends with "\n" */
	const char *domain;     /* domain and key are for taken */
	uint64_t key;
	notice_taken_fn *taken; /* called once a worker has the mail in its spool; may be NULL */
};

/* A notice takes the place of one that waits and has the same address and subject, or is left out when that has the same key. Copies what it is given. */
void notices_add(const struct notice_order *o);
/* Every second or so. */
void notices_turn(const char *run_dir);
void notices_stop(void);

#endif
