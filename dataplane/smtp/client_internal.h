/* What client.c (the session) and client_txn.c (a transaction on it) share. For nobody else. */
#ifndef WEIR_DATAPLANE_SMTP_CLIENT_INTERNAL_H
#define WEIR_DATAPLANE_SMTP_CLIENT_INTERNAL_H

#include "dataplane/smtp/client.h"

enum client_phase { PHASE_GREETING, PHASE_EHLO, PHASE_HELO, PHASE_STARTTLS, PHASE_TLS, PHASE_AUTH, PHASE_READY, PHASE_TXN, PHASE_RSET, PHASE_LAST, PHASE_RESULT,
	PHASE_QUIT, PHASE_CLOSED };

/* Ends the session with this reply, or with a 451 of our own. Recipients that were only accepted have no result then. */
enum client_action client_fail(struct smtp_client *c, const struct reply *r);
enum client_action client_fail_text(struct smtp_client *c, const char *enhanced, const char *text);

/* EHLO is over, and this server is to know who we are (cfg->login). */
enum client_action auth_begin(struct smtp_client *c);
/* A reply in PHASE_AUTH; line: its last one. */
enum client_action auth_reply(struct smtp_client *c, const struct reply *r, struct span line);

/* Whether a reply is due in PHASE_TXN. unsent: the last of what was said is not out yet. */
bool txn_reply_due(const struct smtp_client *c, bool unsent);
enum client_action txn_reply(struct smtp_client *c, struct reply *r);
/* A complete reply in PHASE_TXN that was not due. */
enum client_action txn_unasked(struct smtp_client *c, const struct reply *r);
/* The answer to the RSET or QUIT (PHASE_LAST) that ends a transaction. */
enum client_action txn_end_reply(struct smtp_client *c, const struct reply *r);
/* What needs no input: writes commands. CLI_BODY when the content is due. */
enum client_action txn_due(struct smtp_client *c);
/* No result of the transaction counts. */
void txn_void(struct smtp_client *c);
/* The session is over: recipients that wait for the final reply will not get it, and have no result. */
void txn_lost(struct smtp_client *c);
enum client_wait txn_wait(const struct smtp_client *c);

#endif
