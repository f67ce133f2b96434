/* weirctl trace, shared by its two files: trace_rows.c picks what belongs to the question from the ledger's rows, trace.c asks and shows.
 *
 * Owner: cmd_trace. Thread: one. */
#ifndef WEIR_CONTROL_TRACE_INTERNAL_H
#define WEIR_CONTROL_TRACE_INTERNAL_H

#include "control/ledger.h"
#include "spool/base/log.h"

enum { MESSAGES_MAX = 1000, GIVEN_MAX = 100 /* of a message; more are not shown */ };

/* What was found: rows of key=value, as in the log, in the order in which they happened. */
struct event {
	uint64_t id; /* 0: refused before it was a message */
	uint64_t at_ns;
	char *text;
};

struct message {
	uint64_t id;
	uint32_t nrcpt;
	char **rcpt; /* NULL: not known */
};

struct trace {
	uint64_t id;         /* what is asked for; 0: address is */
	struct span address; /* a mail address, a client's IP address, or a Message-ID */
	uint8_t ip[16];
	bool is_ip;
	uint64_t since_ns;
	struct message message[MESSAGES_MAX];
	unsigned nmessages;
	bool more;           /* there were too many */
	struct event *event;
	size_t nevents, cap;
	/* the acceptance whose recipients come next */
	uint64_t last_id;
	struct event given[GIVEN_MAX]; /* what its recipients stand for */
	unsigned ngiven;
	struct logline last;
	uint64_t last_at_ns;
	uint32_t last_nrcpt;
};

/* A row of the ledger, in the order in which they were written; repaired: it was lacking there. */
void trace_row(struct trace *t, const struct ledger_row *row, bool repaired);
/* NULL: it does not belong to what is asked for. */
struct message *trace_message(struct trace *t, uint64_t id);
void trace_free(struct trace *t);

#endif
