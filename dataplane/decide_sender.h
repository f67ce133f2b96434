/* What is found about the client and the sender of a transaction (A2, A6): asked for at MAIL, judged there, and said to each recipient. RFC 5321 4.5.1 wants postmaster to be reachable by those, too, whose DNS is wrong (B4),
 * and log and trace then name the recipient.
 *
 * Owner: the session. Thread: the worker's. */
#ifndef WEIR_DATAPLANE_DECIDE_SENDER_H
#define WEIR_DATAPLANE_DECIDE_SENDER_H

#include "dataplane/session.h"

/* A new session: the client's name is asked for while it says EHLO. */
void decide_sender_begin(struct session *s);
/* At MAIL. False: the session waits, and decide_mail_known is called. */
bool decide_sender_ask(struct session *s);
/* The facts are there: s->sender.refused is set when they would refuse a recipient. Nothing is carried out yet. */
void decide_sender_judge(struct session *s);
/* At RCPT (s->facts.to_postmaster is set): carries out what lets the recipient pass, once a transaction. False: it does not pass, and *ret is the finding, not yet carried out. */
bool decide_sender_passes(struct session *s, struct decision *ret);
/* At RCPT: carries out the finding that decide_sender_passes gave. The first in a transaction counts, others are only logged and noted. */
void decide_sender_refuse(struct session *s, struct decision *d);
/* The client is another one, or the session ends. */
void decide_sender_forget(struct session *s);
/* The transaction is over: its domain is not asked for any more. */
void decide_sender_stop(struct session *s);

#endif
