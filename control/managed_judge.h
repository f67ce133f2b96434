/* What a fetch of a managed domain means: a new live copy, no change, or a refusal of which postmaster hears once (C3, C4). The outcome is in the domain's state.
 *
 * Thread: one. */
#ifndef WEIR_CONTROL_MANAGED_JUDGE_H
#define WEIR_CONTROL_MANAGED_JUDGE_H

#include "control/managed.h"

/* The source says this. */
void managed_judge(struct managed *d, struct span text);
/* The source says what it said before. */
void managed_not_modified(struct managed *d);
/* The source says nothing. */
void managed_failed(struct managed *d, const char *detail);
/* Whether there is a live copy that is as it was written. */
bool managed_has_copy(const struct managed *d);

#endif
