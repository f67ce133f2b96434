/* A RCPT that is being decided: what it waits for, and what is known of it so far. For recipient.c and dictionary.c. */
#ifndef WEIR_DATAPLANE_RCPT_CHECK_H
#define WEIR_DATAPLANE_RCPT_CHECK_H

#include "dataplane/session.h"
#include "dataplane/verify.h"

struct rcpt_check {
	struct session *s;
	struct timer timer;           /* TIMER_RCPT: when a delayed reply is due */
	struct shared_query *query;   /* of dictionary.c */
	struct verify_query *verify;
	bool looked;                  /* whether the client is refused was asked */
	bool refused;                 /* it is */
	bool verified;                /* answer is about addr */
	bool decided;                 /* d is the decision; only its reply may be put off */
	bool counted;
	struct decision d;
	struct verify_answer answer;
	size_t addr_len;
	char addr[ADDRESS_MAX + 2];
};

/* What was waited for came. */
void recipient_go_on(struct session *s);

#endif
