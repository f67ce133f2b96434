/* What would become of a message, said before there is one: `weirctl explain`, check-sender, check-rcpt (A11).
 *
 * A rehearsal is a session without a connection: the protocol engine (smtp/server) takes the commands, the facts are gathered and the rules decide as they do for real mail. Nothing is counted against the client, noted for
 * weirctl trace or put into the spool; a destination may be asked for a recipient (B2), and what it says is remembered. Where a session ends with the first refusal a rehearsal goes on, to say all that is wrong.
 *
 * Owner: the asker. Thread: the worker's. */
#ifndef WEIR_DATAPLANE_REHEARSE_H
#define WEIR_DATAPLANE_REHEARSE_H

#include "dataplane/explain.h"

struct rehearsal;

struct rehearse_question {
	const char *client; /* address; NULL: nobody in particular from outside, no rule about clients is asked */
	const char *from;   /* "": the null sender; NULL: rules about senders are not asked */
	const char *to;     /* NULL: no recipient */
	const char *helo;   /* NULL: a made-up one */
	const char *user;   /* who logged in; NULL: nobody */
	uint64_t size;      /* of the message, as MAIL declares it; 0: rules about it are not asked */
	struct span header; /* fields, each a line; empty: rules about the header are not asked */
};

/* Rows: kind=client class= name=; kind=decision stage= rule= code= mode= does= status= reply= config_line=; kind=protocol stage= reply=; the last one kind=outcome outcome=accepted|held|refused|deferred reply= rule= code=.
 * end is called exactly once, maybe from within; then the rehearsal is only to be freed. NULL, or what is wrong with the question. */
const char *rehearse_begin(struct worker *w, const struct rehearse_question *q, explain_row_fn *emit, void (*end)(void *ctx), void *ctx, struct rehearsal **ret);
/* At any time. */
void rehearse_free(struct rehearsal *r);

#endif
