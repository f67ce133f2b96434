/* Who asks the command socket, and what is going on for each, as command.c (the socket, its packets), command_queue.c (messages) and command_questions.c (what would become of mail) see it.
 *
 * Owner: the worker. Thread: its own. */
#ifndef WEIR_DATAPLANE_COMMAND_INTERNAL_H
#define WEIR_DATAPLANE_COMMAND_INTERNAL_H

#include "dataplane/command.h"
#include "dataplane/verify.h"
#include "spool/store/command.h"

enum { ASKERS = 32, ARGS_MAX = 16, WANTED = 128 };

struct arg {
	char key[24];
	char value[512];
};

/* One asker: its request, then the answer as a growing text of which packets are cut at row ends. */
struct asker {
	struct command *command;
	int fd;
	uint32_t gen;
	char request[COMMAND_REQUEST];
	size_t request_len;
	struct arg arg[ARGS_MAX];
	unsigned nargs;
	char *answer;
	size_t len, cap, sent, packet;
	struct shared_query *query;
	struct verify_show show;
	struct dns_query *dns;
	struct rehearsal *rehearsal;
	struct verify_ask *verifies;
	struct rate_rule {
		double limit;
		uint64_t period_ns;
		const char *source, *mode;
		uint32_t line; /* of the configuration; 0: none */
	} rule;
	/* a walk over messages, WALK_AHEAD of which may be on their way from the log */
	const char *act; /* NULL: only looks */
	uint32_t store, ahead;
	size_t pos;
	uint64_t left, after;
	bool whole;      /* with every recipient */
	bool used, waits, walking;
};

/* A parked message that somebody has an order for. */
struct wanted {
	uint64_t id;
	struct asker *asker;
	uint32_t gen;
};

struct command {
	struct worker *w;
	int listen_fd;
	bool accept_rests; /* it failed, for want of descriptors for example: again at the next tick */
	struct asker asker[ASKERS];
	struct wanted wanted[WANTED];
	uint32_t nwanted;
};

/* ---- command.c ---- */

/* The value of an argument, NULL when it was not given. */
const char *command_arg(const struct asker *a, const char *key);
void command_row(struct asker *a, struct logline *row);
/* All rows are there: the answer goes out. Only for an asker that waits. */
void command_answered(struct asker *a);

/* ---- command_queue.c: NULL, or what is wrong ---- */

const char *queue_index(struct command *c, struct asker *a);
/* A walk over messages; act: what is done with each, NULL: they are only looked at. */
const char *queue_walk(struct asker *a, const char *act);

/* ---- command_questions.c: NULL, or what is wrong ---- */

const char *question_rate(struct command *c, struct asker *a);
const char *question_holds(struct command *c, struct asker *a);
const char *question_verify(struct command *c, struct asker *a);
const char *question_verify_ask(struct command *c, struct asker *a);
const char *question_dns(struct command *c, struct asker *a);
const char *question_holds(struct command *c, struct asker *a);
const char *question_route(struct command *c, struct asker *a);
const char *question_explain(struct command *c, struct asker *a);

#endif
