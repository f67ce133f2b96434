/* A question to a destination: does it take this recipient? One address, and maybe an invented one beside it, in a transaction without content that goes over a delivery connection.
 *
 * Owner: whoever began it, until it is answered (verify_probed) or given up; then it is freed here. Thread: one. */
#ifndef WEIR_DATAPLANE_PROBE_H
#define WEIR_DATAPLANE_PROBE_H

#include <sys/queue.h>
#include "dataplane/smtp/client.h"
#include "spool/mail/address.h"

struct dest;
struct out_conn;
struct worker;

enum probe_state { PROBE_QUEUED, PROBE_ASKING, PROBE_ANSWERED };

struct probe {
	TAILQ_ENTRY(probe) entry; /* in its destination's queue, while it is PROBE_QUEUED */
	struct dest *dest;
	enum probe_state state;
	bool abandoned;           /* nobody wants to know any more, but a connection has it */
	bool again;               /* it went back once because an idle connection had died */
	bool mail_refused;        /* see smtp_txn */
	bool dest_refused;        /* failure is that of the destination as a whole, and for good */
	struct out_conn *conn;    /* that asks; PROBE_ASKING */
	void *owner;
	struct envelope env;
	struct env_rcpt rcpt[2];
	uint32_t index[2], nrcpt;
	struct reply result[2];   /* code 0: no answer; failure says why */
	struct reply failure;
	char addr[2][ADDRESS_MAX + 2];
};
TAILQ_HEAD(probe_queue, probe);

/* Asks for addr, and for an invented local part of its domain beside it when asked to. It goes where mail to addr goes. NULL: it cannot, *why says so (4xx or 5xx); permanent: no route leads there. */
struct probe *probe_begin(struct worker *w, struct span addr, bool invented, void *owner, struct reply *why);
/* Nobody wants to know any more. */
void probe_give_up(struct probe *p);

/* ---- for outbound.c and the connections ---- */

/* The next one that may be asked now over a connection of this destination; NULL: none. */
struct probe *probe_pick(struct dest *d);
/* Connections that its probes can use now. */
uint32_t probe_wanted(const struct dest *d);
void probe_txn(struct probe *p, struct smtp_txn *t);
/* The transaction is over: everything in result, mail_refused and failure is as it will be. */
void probe_answered(struct probe *p);
/* Back to the front of the queue: nothing was said about it. */
void probe_unpick(struct probe *p);
/* The destination cannot be reached, or does not exist. */
void probe_dest_failed(struct dest *d, const struct reply *why);

#endif
