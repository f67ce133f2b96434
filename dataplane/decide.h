/* What is decided about mail in a session: the sender, each recipient, room for the content, the whole message.
 *
 * Facts are gathered here, the rules (policy/) decide, and the decision is carried out here: said to the client, written to the log, noted for weirctl trace. A decision that must ask somebody leaves the session
 * waiting (enum session_waits), and answers later.
 *
 * Owner: the session. Thread: the worker's. */
#ifndef WEIR_DATAPLANE_DECIDE_H
#define WEIR_DATAPLANE_DECIDE_H

#include "dataplane/session.h"

/* A new session: asks for what takes time, while the client says EHLO. */
void decide_begin(struct session *s);
/* The client is another one than it seemed to be (XCLIENT). */
void decide_other_client(struct session *s);
/* The transaction is over, whatever was asked for it: its memory goes. */
void decide_stop(struct session *s);
/* The session ends: nobody is asked any more. */
void decide_end(struct session *s);
/* SRV_MAIL, SRV_RCPT, SRV_DATA, SRV_BODY, SRV_BODY_END: answered when they return, unless the session waits then. */
void decide_mail(struct session *s);
void decide_rcpt(struct session *s);
void decide_data(struct session *s);
void decide_body(struct session *s);
void decide_message(struct session *s);
/* What was asked about client and sender is there. */
void decide_mail_known(struct session *s);
/* The decision on a recipient that the session waited for. */
void decide_rcpt_came(struct session *s, struct decision *d);
/* The content that came so far is nothing. */
void decide_body_end(struct session *s);
/* The answer to what the session waits for. */
void decide_answer(struct session *s, const struct reply *r);

#endif
