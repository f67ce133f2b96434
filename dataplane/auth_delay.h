/* P19: when a failed login is answered. Not when it is known to have failed, which says how long somebody's hash took, but at a time that was fixed when the client's last message came:
 * auth.failure_delay after it, or, for a backend that took longer, at the next multiple of it. So the time tells nothing of users, hashes, the queue of checks, or Dovecot's own delays.
 *
 * Owner: the session. Thread: the worker's. */
#ifndef WEIR_DATAPLANE_AUTH_DELAY_H
#define WEIR_DATAPLANE_AUTH_DELAY_H

#include "dataplane/worker.h"

struct session;

/* When the failure of what came at begun_ns is said, if it is known at now_ns. Units: ns. */
uint64_t auth_delay_due(uint64_t begun_ns, uint64_t now_ns, uint64_t delay_ns);
/* The client's message came; its answer is looked for. */
void auth_delay_begin(struct session *s);
/* It has failed. True: the session waits for TIMER_AUTH (auth_timer); false: the answer goes at once. */
bool auth_delay_wait(struct session *s);
void auth_delay_cancel(struct session *s);

#endif
