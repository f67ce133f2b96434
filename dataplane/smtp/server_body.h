/* The content of a message within a server session, by DATA or BDAT: taken piece by piece, or read and thrown away. Only server.c and server_body.c include this.
 *
 * What is refused on the way is said at its end: a client that is still sending does not listen. Only a bare CR or LF ends the session at once, because what follows could be a
 * command or content. */
#ifndef WEIR_DATAPLANE_SMTP_SERVER_BODY_H
#define WEIR_DATAPLANE_SMTP_SERVER_BODY_H

#include "dataplane/smtp/server.h"

/* of state.phase and state.waiting */
enum { PHASE_COMMAND, PHASE_BODY, PHASE_AUTH };
enum { NOT_WAITING, FOR_MAIL, FOR_RCPT, FOR_DATA, FOR_END, FOR_220, FOR_TLS, FOR_AUTH };

/* server.c's part for it. */
void server_say(struct smtp_server *s, const struct reply *r);
void server_forget_transaction(struct smtp_server *s);
enum server_action server_close(struct smtp_server *s);

#define SAY(s, code, enhanced, ...)                                                                                                \
	do {                                                                                                                       \
		struct reply say_reply;                                                                                            \
		reply_set(&say_reply, code, enhanced, __VA_ARGS__);                                                                \
		server_say(s, &say_reply);                                                                                         \
	} while (0)

/* A step in PHASE_BODY. */
enum server_action server_body_step(struct smtp_server *s, struct span in, size_t *ret_used);
/* state.refusals is not 0: says as many as there is room for; after the last of them the transaction is over. */
enum server_action server_body_refusals(struct smtp_server *s);

#endif
