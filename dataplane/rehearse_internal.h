/* A rehearsal, as rehearse.c (the play) and rehearse_say.c (what is said of it) see it. */
#ifndef WEIR_DATAPLANE_REHEARSE_INTERNAL_H
#define WEIR_DATAPLANE_REHEARSE_INTERNAL_H

#include "dataplane/facts.h"
#include "dataplane/rehearse.h"
#include "dataplane/smtp/server.h"
#include "dataplane/verify.h"
#include "spool/mail/passline.h"

enum { HEADER_MAX = 8192 };

/* What is asked next; each is asked once. */
enum scene { SCENE_EHLO, SCENE_MAIL, SCENE_RCPT, SCENE_HEADER, SCENE_END };

struct rehearsal {
	struct worker *w;
	struct config *cfg;
	explain_row_fn *emit;
	void (*end)(void *ctx);
	void *ctx;
	struct smtp_server smtp;
	struct policy_facts facts;
	struct fact_client client;
	struct fact_domain sender;
	struct fact_header *header;
	struct facts_ask *client_ask, *domain_ask; /* under way, as the two below */
	struct shared_query *query;
	struct verify_query *verify;
	enum scene scene;
	bool is_known_client, has_from, has_to;
	uint64_t size;           /* of the message; 0: not said */
	struct decision fits;    /* what its destination says to that */
	bool refused, held;      /* first is what it was refused for, else the first thing for which it would be held */
	struct decision first;
	struct reply protocol;   /* of the engine, when it did not like a command; code 0: it did */
	char command[ADDRESS_MAX + 64];
	char from[ADDRESS_MAX + 16], to[ADDRESS_MAX + 16], helo[256], user[PASSLINE_USER_MAX + 1];
	size_t head_len;
	char head[HEADER_MAX];
};

/* Says the decision, and what it comes to for this client. what: a word of what was found out, or NULL. */
void rehearse_say(struct rehearsal *r, struct decision *d, const char *what);
void rehearse_say_client(struct rehearsal *r);
/* The engine did not like the command. */
void rehearse_say_protocol(struct rehearsal *r);
/* The last row. */
void rehearse_say_outcome(struct rehearsal *r);

#endif
