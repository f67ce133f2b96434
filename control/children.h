/* The processes of a node: started as somebody else, started again when they end, ended in order.
 *
 * Thread: one, whose other children these are not. Fails: too many of them, or no memory, is a bug of the caller. */
#ifndef WEIR_CONTROL_CHILDREN_H
#define WEIR_CONTROL_CHILDREN_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

enum { CHILD_ARGS_MAX = 24, CHILD_STAGES = 4 };

struct child {
	const char *name;
	char *argv[CHILD_ARGS_MAX];
	pid_t pid; /* 0: it does not run */
	uint64_t started_ns, not_before_ns;
	int stage; /* order of stopping: low ones first */
	bool drops_itself; /* it needs root for its set-up, and is told the user */
};

struct child *child_new(const char *name, int stage);
void child_arg(struct child *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* user: whom it becomes, "": nobody else. A SIGTERM that comes before it has become its program ends it. */
void child_start(struct child *c, const char *user);
/* Takes leave of those that have ended; tell: says so. */
void children_reap(bool tell);
/* Starts those again that have ended; one that lives less than a second waits for one. True: there was any. */
bool children_again(const char *user);
/* SIGTERM to all, stage by stage, and SIGKILL to who takes longer than 12 s. */
void children_end(void);
/* "NAME PID", a line each. */
void children_list(FILE *f);

#endif
