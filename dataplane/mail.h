/* A message's way from complete to final: verdict and durability on one side, deliveries on the other. struct mail is what the worker knows of a message beyond
 * what the spool stores (struct store_msg), one to one, while it is awake.
 *
 * A message's fate is written in exactly three places: mail_seal (complete, into the spool), mail_decide (committed: the only place that can lead to
 * a 250), mail_settle (a recipient's outcome).
 *
 * Owner: the worker; mail_finish ends it together with its store_msg. */
#ifndef WEIR_DATAPLANE_MAIL_H
#define WEIR_DATAPLANE_MAIL_H

#include <sys/queue.h>
#include "dataplane/worker.h"

struct session;
struct bounce_rcpt;

/* Who answered a delivery, for the log: empty when nobody did. */
struct remote {
	struct span host;
	struct span policy; /* the TLS policy that held, as in policy/tls_policy.h */
	struct span tls;    /* version and cipher; "none" */
	bool final;         /* what it took is delivered */
	bool dsn;           /* it makes reports itself */
};
#define REMOTE_NONE ((struct remote){ 0 })

enum mail_verdict {
	VERDICT_NONE,
	VERDICT_CLEAN,
	VERDICT_INFECTED,
	VERDICT_UNSCANNED, /* an error, a time-out, no scanner: never delivered like this */
	VERDICT_SUSPECT,   /* scanners died on it: held */
};

struct mail {
	struct worker *w;
	struct store_msg *m;
	struct session *session; /* waits for the reply; NULL: gone, or there was none */
	LIST_HEAD(, delivery) waiting; /* deliveries that no connection has yet */
	struct timer retry;      /* TIMER_MAIL */
	uint32_t scan_slot;      /* scan.c's; 0: none */
	uint32_t deliveries;     /* struct delivery that name this mail */
	uint32_t bounces;        /* struct bounce under way */
	struct bounce_rcpt *failed; /* outcome.c's: failures to be reported together */
	uint32_t nfailed;
	uint64_t failed_ns;      /* since when */
	bool on_hold;            /* a recipient waited for its route's hold when it was looked at last: its next attempt is the hold's end, which may come sooner */
	bool durable;
	bool counted;            /* is in the queue gauges */
	bool accepted;           /* somebody was told 250, or it is our own, or recovered */
	uint8_t verdict;         /* enum mail_verdict */
	uint8_t class_;          /* enum snap_class of its client */
	bool hold_unscanned, hold_infected; /* by its client's class (rules E5, E1); otherwise it is refused */
	char verdict_name[80];
};

/* Puts a complete message into the spool and before the scanners; takes the body. session: who waits for the answer; NULL for Weir's own messages, which are not
 * scanned. On failure *ret_reply says what to answer. */
enum status mail_seal(struct worker *w, const struct envelope *env, struct body *b, struct session *session, struct mail **ret,
	struct reply *ret_reply);
/* The spool has it on stable storage. */
void mail_durable(struct mail *mail);
/* The spool could not write it. Both are gone after this. */
void mail_failed(struct mail *mail, const char *reason);
/* The scanners' answer. name is sanitised, at most 79 bytes. */
void mail_verdict(struct mail *mail, enum mail_verdict v, struct span name);
/* The counts of what recovery found. */
void mail_count_recovered(const struct store_row *row);
/* A message that is awake again: m->user is its mail then, and mail_go_on goes on where it was. NULL: no memory, it is parked for later. */
struct mail *mail_woken(struct worker *w, struct store_msg *m);
/* The mail may be gone after this. */
void mail_go_on(struct mail *mail);
/* Out of memory until due_ns (monotonic). False: something is under way, or the spool cannot now. The mail is gone when true. */
bool mail_park(struct mail *mail, uint64_t due_ns, uint32_t tag);
/* One recipient's outcome, in the log before anything is done about it. final states end it; RCPT_QUEUED defers until next_ns. */
void mail_settle(struct mail *mail, uint32_t i, enum rcpt_state state, const struct reply *reply, uint64_t next_ns, struct remote remote);
/* Ends it when nothing is left to do. The mail may be gone after this. */
void mail_finish(struct mail *mail);
/* Operator's hand. */
void mail_hold(struct mail *mail, struct span reason);
void mail_release(struct mail *mail, struct span who);
/* Recipients that are under way are finished first: they are not deleted. Gives how many were. */
uint32_t mail_delete(struct mail *mail, struct span who);
/* Opens a log line about the message: event, id. */
void mail_log_begin(struct logline *l, enum log_level level, const char *event, const struct mail *mail);

#endif
