/* Makes parked messages due before their time: those of a destination that is back, and those whose hold has ended (F2).
 *
 * A flush goes through the index a slice a turn. It decides nothing: a message that it wakes is looked at like any other that is due, and may go back to sleep.
 *
 * Owner: the worker. Thread: one. */
#ifndef WEIR_DATAPLANE_FLUSH_H
#define WEIR_DATAPLANE_FLUSH_H

#include "dataplane/mail.h"

struct flush;

enum status flush_new(struct worker *w, struct flush **ret);
/* tag: of a destination, or HOLD_TAG for all that waits for a hold. */
void flush_begin(struct flush *f, uint32_t tag);
/* Once a turn. True: there is more to do at once. */
bool flush_turn(struct flush *f);

#endif
