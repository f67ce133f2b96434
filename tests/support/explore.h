/* Every execution of two threads over shared memory whose order is what C11 promises, and no more.
 *
 * A thread is a function that does all it does with shared memory through ex_do(), and else depends on nothing. The explorer runs each one step at a time,
 * in every order; a load may give every value that its thread is not yet bound to have seen passed (so stores arrive late and out of order where the memory order
 * lets them); either thread may die before any of its steps. Accesses that are not atomic must be ordered by others, or it is a race.
 * The model is the view-based one of release/acquire, relaxed, read-modify-write and sequentially consistent fences. What it leaves out: a
 * relaxed load that is delayed beyond a later store of its own thread to another atomic.
 *
 * Fails: the first execution that is wrong ends the search; ret->fault says how, ret->trace with which steps. */
#ifndef WEIR_TESTS_SUPPORT_EXPLORE_H
#define WEIR_TESTS_SUPPORT_EXPLORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { EX_THREADS = 2, EX_LOCS = 6, EX_WRITES = 24, EX_STEPS = 80, EX_VIEW = EX_LOCS + EX_THREADS };

enum ex_kind {
	EX_LOAD, EX_STORE, EX_SWAP, EX_FENCE, /* atomics; order says how */
	EX_READ, EX_WRITE,                    /* not atomic */
	EX_WAKE,  /* the other thread's next or present EX_BLOCK ends */
	EX_BLOCK, /* sleeps: gives 1 when woken, 0 when the other thread has died */
	EX_AWAIT, /* until loc has a newer value than this thread has seen (1), or the other has died (0) */
	EX_COUNT, /* something was delivered */
};

struct ex_step {
	enum ex_kind kind;
	int loc;
	int order; /* memory_order_* */
	uint32_t value;
};

struct ex_end {
	uint32_t last[EX_LOCS]; /* the last value of every location */
	uint32_t count[EX_THREADS];
	bool dead[EX_THREADS], blocked[EX_THREADS];
};

struct ex_config {
	void (*thread[EX_THREADS])(void);
	/* What is wrong with an execution's end; NULL: nothing. */
	const char *(*judge)(const struct ex_end *e);
	/* Makes a step of a thread weaker than it is written, to see that it is missed; or NULL. */
	void (*bend)(int thread, struct ex_step *s);
	int deaths; /* how many threads may die */
};

struct ex_report {
	const char *fault; /* NULL: every execution is right */
	uint64_t states, ends;
	char trace[EX_STEPS * 80];
};

void explore(const struct ex_config *c, struct ex_report *ret);
/* From inside a thread. */
uint32_t ex_do(struct ex_step s);
/* From inside a thread: this execution is wrong. */
void ex_fault(const char *what);

#endif
