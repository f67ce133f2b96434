/* Inbound SMTP sessions: from an accepted connection to a message in the spool.
 *
 * Owner: sessions are this module's; a session ends with its connection. */
#ifndef WEIR_DATAPLANE_INBOUND_H
#define WEIR_DATAPLANE_INBOUND_H

#include "dataplane/worker.h"

struct session;

enum status inbound_new(struct worker *w, struct inbound **ret);
void inbound_free(struct inbound *in);
void inbound_net_event(struct worker *w, struct net_event *ev);
void inbound_timer(struct worker *w, struct timer *t);
/* Sends what the session has to say and closes it. */
void inbound_close(struct session *s);
/* The answer to a session's message: only mail_decide calls it. */
void inbound_answer(struct session *s, const struct reply *r);
/* What a session waited for came, and its engine was answered: it goes on, unless it waits for something else now. */
void inbound_go_on(struct session *s);
/* The spool has room again. */
void inbound_room(struct worker *w);
/* Tells sessions that wait for a command to go (421); the others end their message first. hurry: those too. */
void inbound_shutdown(struct worker *w, bool hurry);
uint32_t inbound_sessions(const struct worker *w);

#endif
