/* What a route says about its mail beside where it goes: pure functions of the snapshot, the tables and the time (rows A7, F2). Without a route, and where it says
 * nothing, the node's own settings hold. */
#ifndef WEIR_DATAPLANE_TERMS_H
#define WEIR_DATAPLANE_TERMS_H

#include "spool/base/span.h"
#include "spool/mail/envelope.h"
#include "spool/mail/reply.h"
#include "spool/store/snapshot.h"
#include "spool/store/tables.h"

/* All times are spool time (clock_steady_ns). route may be NULL everywhere. */
bool terms_on_hold(const struct snap_route *route, uint64_t now_ns);
/* From when a message's life counts: its arrival, or the end of the hold that it waited through. */
uint64_t terms_born(const struct snap_route *route, uint64_t arrived_ns, uint64_t now_ns);
/* How long delivery is tried; UINT64_MAX: for ever. is_report: it has no sender. */
uint64_t terms_life(const struct snap_settings *set, const struct snap_route *route, bool is_report);
/* After what time the sender is told of a delay; 0: never. */
uint64_t terms_notice(const struct snap_settings *set, const struct snap_route *route);
/* "on hold until 2027-01-05T08:00Z: the reason". */
void terms_hold_text(const struct snapshot *snap, const struct snap_route *route, struct out *o);

/* A7: this recipient's route takes messages of that size; else *ret is 552 5.3.4. */
bool terms_takes(const struct snapshot *snap, const struct tables *tables, struct span rcpt, uint64_t size, struct reply *ret);
/* The same of a whole envelope: false when none of its recipients can get the message. */
bool terms_envelope_takes(const struct snapshot *snap, const struct tables *tables, const struct envelope *env, uint64_t size, struct reply *ret);

#endif
