/* What comes before a session's first command: whether the client may have one more connection, and when it is greeted.
 *
 * Clients from outside may have to wait for the greeting (banner_delay of the listener). Software that only throws mail at us does not wait; who talks into the silence gets
 * 554 in the place of the greeting (RFC 5321 3.1).
 *
 * Owner: none; sessions are inbound's. */
#ifndef WEIR_DATAPLANE_ADMIT_H
#define WEIR_DATAPLANE_ADMIT_H

#include "dataplane/session.h"

/* The connections of the session's client, and of its network: one more, or one less. */
void admit_count(struct session *s, int change);
/* Reasons to refuse a connection before its first command; false when there is none. */
bool admit_refusal(struct session *s, struct reply *r);
/* Whether the session has to wait for its greeting now. */
bool admit_waits(struct session *s);
/* The wait is over. */
void admit_greet(struct session *s);
/* What came before the first command was due. False: nothing was awaited, it is the session's. */
bool admit_data(struct session *s, struct net_event *ev);

#endif
