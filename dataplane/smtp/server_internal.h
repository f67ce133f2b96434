/* A server session from the inside: what its parts share. server.c has the session and its small commands, server_envelope.c MAIL and RCPT, server_body.c
 * DATA, BDAT and content, server_auth.c the exchange of AUTH, server_xclient.c XCLIENT. Only they include this. */
#ifndef WEIR_DATAPLANE_SMTP_SERVER_INTERNAL_H
#define WEIR_DATAPLANE_SMTP_SERVER_INTERNAL_H

#include "dataplane/smtp/server.h"

/* state.phase and state.waiting */
enum { PHASE_COMMAND, PHASE_BODY, PHASE_AUTH };
enum { NOT_WAITING, FOR_MAIL, FOR_RCPT, FOR_DATA, FOR_END, FOR_220, FOR_TLS, FOR_AUTH, FOR_XCLIENT };

/* ---- server.c ---- */

void server_greeting(struct smtp_server *s);
void server_say(struct smtp_server *s, const struct reply *r);
/* An error of the client's: says it, counts it; too many of them end the session. */
enum server_action server_error(struct smtp_server *s, const struct reply *r);
enum server_action server_out_of_room(struct smtp_server *s);
enum server_action server_close(struct smtp_server *s);
bool server_in_transaction(const struct smtp_server *s);
void server_transaction_reset(struct smtp_server *s);
/* Ends the transaction without a message; tells the host when it knew of one. */
enum server_action server_reset_action(struct smtp_server *s);
/* A command that carries a message on is no part of a flood. */
void server_uncount(struct smtp_server *s);
bool server_arg_is_empty(struct span arg);

#define SAY(s, code, enhanced, ...)                                                                                                \
	do {                                                                                                                       \
		struct reply say_reply;                                                                                            \
		reply_set(&say_reply, code, enhanced, __VA_ARGS__);                                                                \
		server_say(s, &say_reply);                                                                                         \
	} while (0)

#define ERROR(s, code, enhanced, ...)                                                                                              \
	({                                                                                                                         \
		struct reply error_reply;                                                                                          \
		reply_set(&error_reply, code, enhanced, __VA_ARGS__);                                                              \
		server_error(s, &error_reply);                                                                                     \
	})

/* ---- server_envelope.c: commands ---- */

enum server_action server_mail(struct smtp_server *s, struct span arg);
enum server_action server_rcpt(struct smtp_server *s, struct span arg);

/* ---- server_body.c ---- */

enum server_action server_data(struct smtp_server *s, struct span arg);
enum server_action server_bdat(struct smtp_server *s, struct span arg);
/* The host has made room: content begins, or goes on with the next chunk. */
void server_body_begin(struct smtp_server *s);
enum server_action server_body_step(struct smtp_server *s, struct span in, size_t *ret_used);
/* What comes of the content is thrown away; this is said at its end. */
void server_discard(struct smtp_server *s, const struct reply *r);
/* Says the final reply as often as there is room for; after the last time the transaction is over. */
enum server_action server_say_finals(struct smtp_server *s);
void server_answer_end(struct smtp_server *s, const struct reply *r);

#endif
