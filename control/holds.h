/* Holds of routes that an operator has ended before their time (F2): SPOOL/holds-released has a line for each, "DOMAIN HOLD TIME WHO", with HOLD and TIME in
 * nanoseconds since the epoch.
 *
 * A line is for the hold that the configuration had when it was written: another date is another hold. The time of the release stays the hold's end, from which the life of what waited counts. */
#ifndef WEIR_CONTROL_HOLDS_H
#define WEIR_CONTROL_HOLDS_H

#include "control/schema.h"

/* Ends the holds of routes in the making that were released. */
void holds_apply(struct model *m);
/* Forgets releases of holds that the model does not have any more. */
void holds_prune(const struct model *m);
/* Notes that the hold of this domain, as the published configuration has it, is over. False: out says why. */
bool holds_release(const char *run_dir, const char *domain, const char *by, FILE *out);

#endif
