/* AUTH of a session: limits first, then whoever knows the password (the password file or Dovecot), then the answer.
 *
 * An attempt is counted against its client and its user before anything is looked at, cluster-wide, and is taken back when it succeeds or is not decided: so that
 * attempts under way at the same time, on whatever nodes, cannot be more than the limit either (P19). A limit that is reached refuses without looking, and without counting.
 *
 * Owner: the session. Thread: the worker's. */
#ifndef WEIR_DATAPLANE_AUTH_H
#define WEIR_DATAPLANE_AUTH_H

#include "dataplane/worker.h"

struct session;

/* Opens the password file or Dovecot's socket when a listener is a submission service. */
enum status auth_open(struct worker *w);
/* Once a second: the file, gauges. */
void auth_tick(struct worker *w);
/* Tells the session's engine which mechanisms can be checked now. */
void auth_offer(struct session *s);
/* SRV_AUTH. Answers at once, or later with the session waiting for it. */
void auth_decide(struct session *s);
/* The keys under which failures are counted (shared_rate). */
void auth_client_key(const uint8_t ip[16], struct out *o);
void auth_user_key(struct span user, struct out *o);
/* TIMER_AUTH: a failure may be said now. */
void auth_timer(struct worker *w, struct timer *t);
/* The client broke it off, or is gone. */
void auth_cancel(struct session *s);

#endif
