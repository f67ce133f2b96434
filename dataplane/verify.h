/* Recipient verification (B2): whether an address takes mail, asked of what is known (this worker's cache, then Redis) and, when that is not enough, of its destination.
 *
 * Asking is a probe (probe.h): MAIL FROM:<> and RCPT over the connections and with the TLS policy of deliveries, never DATA. However many ask for an address at a time, in however many workers and on
 * however many nodes, one probe is made: the one who has the claim in Redis makes it, the others look for its result. What the records mean is decided in policy/recipient_known.h.
 *
 * Needs no session: whoever wants to know of an address (weirctl, sender checks) asks here.
 *
 * Owner: the worker. Thread: one. */
#ifndef WEIR_DATAPLANE_VERIFY_H
#define WEIR_DATAPLANE_VERIFY_H

#include "dataplane/policy/recipient_known.h"
#include "dataplane/probe.h"
#include "dataplane/worker.h"

struct verify_query;

enum verify_result { VERIFY_YES, VERIFY_NO, VERIFY_UNKNOWN };

struct verify_answer {
	enum verify_result result;
	const char *why;    /* in a few words, static */
	bool cached;        /* nobody was asked for it */
	struct reply reply; /* NO: the remote's, 5xx. UNKNOWN: what went wrong, 4xx, ours or the remote's. YES: code 0 */
};

/* Called once, from the worker's turn, unless cancelled. */
typedef void verify_fn(void *ctx, const struct verify_answer *a);

enum status verify_new(struct worker *w);
void verify_free(struct verify *v);
/* Whether addr, as it stands in an envelope, is one that the configuration wants verified. */
bool verify_wanted(const struct worker *w, struct span addr);
/* ST_OK: *ret is the answer. ST_AGAIN: fn gets it, after wait_ns at the latest (then UNKNOWN, 451 4.4.1, while the probe goes on for those who ask later). Also for addresses that the configuration does not
 * want verified; ST_INVALID: there is nobody to ask for it (no address, an address literal, bare postmaster). ST_NOMEM. */
enum status verify_address(struct worker *w, struct span addr, uint64_t wait_ns, verify_fn *fn, void *ctx, struct verify_answer *ret,
	struct verify_query **ret_query);
void verify_cancel(struct verify_query *q);
/* Whether this worker knows, without asking anybody, that addr does not exist. */
bool verify_known_no(struct worker *w, struct span addr);

/* What a destination said of a recipient of a message. */
void verify_delivered(struct worker *w, struct span addr, const struct reply *r);

/* The probe of an address came to its end. */
void verify_probed(struct probe *p);
void verify_timer(struct worker *w, struct timer *t);
void verify_wait_timer(struct worker *w, struct timer *t);

/* ---- names and records: verify_record.c ---- */

/* addr: an address or a domain. Its names in the caches: the tag, and the name of the address's record (empty for a domain). Buffers of VERIFY_NAME_MAX. ST_INVALID. */
enum { VERIFY_NAME_MAX = 336 };
struct verify_name {
	struct span key;    /* of this worker's cache: local@domain, or the domain */
	struct span domain; /* look-up form */
	struct span name;   /* in Redis; empty: it is a domain's */
	char key_buf[VERIFY_NAME_MAX], name_buf[VERIFY_NAME_MAX];
};
enum status verify_name(struct span addr, bool or_domain, struct verify_name *ret);
/* Names of a domain's own records, beside those of its addresses. */
#define VERIFY_DOMAIN_NAME SPAN(":verify")
#define VERIFY_FORGET_NAME SPAN(":forget")

uint64_t verify_now_ms(void);
/* Into this worker's cache and into Redis. */
void verify_write(struct worker *w, const struct verify_name *n, bool of_domain, const struct known *k);
/* What Redis has; malformed records, and those from the future, are nothing, and counted. */
void verify_read(struct span value, struct known *ret);
/* What is older than the domain's forgetting was not heard. */
void verify_drop_forgotten(struct known *k, const struct known *forget);
struct known_cache *verify_cache(struct worker *w);

/* ---- for operators: verify_show.c ---- */

/* A question of an operator. The asker's: he sets row, end and ctx. */
struct verify_show {
	struct worker *w;
	struct verify_name n;
	void (*row)(void *ctx, struct logline *row);
	void (*end)(void *ctx); /* all rows are said; called exactly once, maybe from within verify_show_begin, unless that says what is wrong */
	void *ctx;
};
/* Rows about what is known of it: here, and in Redis. NULL: end is called, or *ret_query is cancelled by who goes away. Else what is wrong. */
const char *verify_show_begin(struct worker *w, const char *what, struct verify_show *s, struct shared_query **ret_query);
/* Forgets it, on all nodes as soon as they look at Redis again. NULL, or what is wrong. */
const char *verify_forget(struct worker *w, const char *what);

#endif
