/* What comes before a session's first command: who the client is, whether it may have one more connection, and when it is greeted.
 *
 * On a listener with proxy: yes only balancers may connect, and they say first who their client is (dataplane/net/proxy.h). From then on the session is that client's, in
 * limits, rules, log and trace; until then it is nobody's.
 *
 * Clients from outside may have to wait for the greeting (banner_delay of the listener). Software that only throws mail at us does not wait; who talks into the silence gets
 * 554 in the place of the greeting (RFC 5321 3.1).
 *
 * Owner: none; sessions are inbound's. */
#ifndef WEIR_DATAPLANE_ADMIT_H
#define WEIR_DATAPLANE_ADMIT_H

#include "dataplane/session.h"

/* The connections of the session's client, and of its network: one more, or one less if it was counted. */
void admit_count(struct session *s, int change);
/* Reasons to refuse a connection before its first command; false when there is none. */
bool admit_refusal(struct session *s, struct reply *r);
/* The connection came to a listener with proxy: yes. False: from somebody who is no balancer; it is being closed. */
bool admit_balancer(struct session *s);
/* What a balancer says. True: the client is known now; what ev->used leaves is its own. */
bool admit_proxy(struct session *s, struct net_event *ev);
/* SRV_XCLIENT: the client says that it is another one (xclient_clients), or may not. */
void admit_xclient(struct session *s);
/* Whether the session has to wait for its greeting now. */
bool admit_waits(struct session *s);
/* The wait is over. */
void admit_greet(struct session *s);
/* The client did not. */
void admit_early(struct session *s, struct net_event *ev);

#endif
