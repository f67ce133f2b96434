/* Delivery: one queue per destination, retries with backoff, outcomes.
 *
 * A destination is a next hop (route.h) as this worker sees it: its waiting deliveries, its connections, and whether it is down. A delivery is one message for
 * up to DELIVERY_RCPT_MAX of its recipients there. */
#ifndef WEIR_DATAPLANE_OUTBOUND_H
#define WEIR_DATAPLANE_OUTBOUND_H

#include <sys/queue.h>
#include "dataplane/mail.h"
#include "dataplane/pace.h"
#include "dataplane/probe.h"
#include "dataplane/route.h"

enum { DELIVERY_RCPT_MAX = 100 };

struct delivery {
	TAILQ_ENTRY(delivery) entry; /* in its destination's queue; not while a connection has it */
	LIST_ENTRY(delivery) of_mail; /* in mail->waiting; likewise */
	struct mail *mail;
	struct dest *dest;
	bool again; /* went back once already because an idle connection had died */
	uint32_t nrcpt, cap;
	uint32_t rcpt[];
};
TAILQ_HEAD(delivery_queue, delivery);

struct out_conn;

struct dest {
	struct outbound *outbound;
	char key[ROUTE_KEY_MAX];
	uint32_t tag;       /* of its key: parked messages carry it */
	struct span domain; /* in key; ROUTE_MX only */
	enum snap_route_kind kind;
	enum snap_tls tls;
	enum hop_tls tls_demand;  /* of the senders of what goes there */
	bool final;               /* what it takes is delivered */
	struct config *cfg; /* that of its making: its route's hosts are there */
	const struct snap_route *route;
	struct delivery_queue queue;
	uint32_t nqueue, nconns, nconnecting;
	TAILQ_HEAD(, out_conn) idle;
	struct probe_queue probes; /* recipients that it is to be asked about (B2) */
	uint32_t nprobes, nprobing, nprobe_opening; /* waiting; being asked about over connections; connections that are being made for them */
	TAILQ_ENTRY(dest) entry; /* among the destinations */
	TAILQ_ENTRY(dest) dirty_entry;
	struct pace pace;         /* how many connections */
	uint64_t no_bdat_until_ns; /* monotonic: it offers CHUNKING, but does not know BDAT; 0: nothing of that kind */
	bool dirty;               /* is to be pumped at the end of this turn */
	struct delivery *filling; /* outbound_put's */
	const struct mail *filling_for;
	uint64_t down_until_ns;   /* monotonic; 0: not down */
	struct reply *down_reply; /* what it said */
	bool failing;             /* since its last success it could not be reached */
	uint64_t back_ns;         /* spool time: then it was reached again; 0: long ago */
};

enum status outbound_new(struct worker *w, struct outbound **ret);
/* Takes every recipient of a queued message that is due and not under way to its destination; the others are waited for. */
void outbound_put(struct mail *mail);
/* Nothing goes on with it now: ends it when no recipient is open, else puts it out of memory until it is due. The mail may be gone after this. */
void outbound_rest(struct mail *mail);
/* Takes back what waits; what a connection has already goes on. */
void outbound_withdraw(struct mail *mail);
/* The partition has stopped: nothing of it is delivered any more but what a connection has already. */
void outbound_fenced(struct store *s);
/* Once per turn: gives what waits to connections, opening them as needed. */
void outbound_turn(struct worker *w);
/* Once a second: forgets destinations that nothing goes to. */
void outbound_tick(struct worker *w);
void outbound_timer(struct worker *w, struct timer *t);
/* Attempts all deferred recipients of this message now. */
void outbound_retry(struct mail *mail);

/* The route of recipient i; NULL: by MX. */
const struct snap_route *outbound_route(const struct mail *mail, uint32_t i);
/* The destination of a hop; NULL: no memory. It stays while something waits for it. */
struct dest *outbound_dest(struct worker *w, const struct next_hop *hop);

/* ---- for conns.c ---- */

/* The next delivery for a connection of dest, now the connection's; NULL: none waits. */
struct delivery *outbound_pick(struct dest *d);
/* Puts it back at the front: nothing was said about it. Or lets it go, when it was held, or its partition stopped, while the connection had it: the mail may be gone then. */
void outbound_unpick(struct delivery *dl);
/* Leaves it its first n recipients; the others go back to the front as a delivery of their own. */
void outbound_split(struct delivery *dl, uint32_t n);
/* A connection could not be made, or was of no use, while others of the destination are. */
void outbound_conn_refused(struct dest *d);
/* What became of each recipient: result[i] for dl->rcpt[i]; code 0: no answer, failure says why. The delivery is gone after this. */
void outbound_result(struct delivery *dl, const struct reply *result, const struct reply *failure, struct remote remote);
/* The destination cannot be reached (temporary) or does not exist (permanent): everything that waits gets this. */
void outbound_dest_failed(struct dest *d, const struct reply *why);
/* A connection of it ended or became idle: before the turn ends its queue is looked at. */
void outbound_wake(struct dest *d);
struct worker *outbound_worker(const struct dest *d);
/* Number of connections in all and of this destination. */
void outbound_count_conn(struct dest *d, int change);
/* A report is begun or done: what became of its recipients is not in the log before it is. */
void outbound_count_report(struct worker *w, int change);
/* Deliveries and reports under way; 0: the worker may stop. */
uint32_t outbound_busy(const struct worker *w);
/* No new deliveries are begun. */
void outbound_shutdown(struct worker *w);

#endif
