/* Kills at any system call: a child does something and is killed before or behind its k-th one. */
#ifndef WEIR_TESTS_SUPPORT_KILL_AT_H
#define WEIR_TESTS_SUPPORT_KILL_AT_H

#include <stdbool.h>

/* Whether this machine lets a process trace its child. */
bool kill_at_works(void);
/* Calls act(ctx) in a child, which is killed at its k-th system call.
 * True: it came to its end before, and act gave true (a failed test if not). */
bool kill_at(unsigned k, bool (*act)(void *ctx), void *ctx);

#endif
