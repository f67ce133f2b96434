/* The MTA-STS policy of a domain (RFC 8461), for the data plane: asks DNS whether there is one, and weir-control for its text (spool/store/sts_ask.h), asynchronously on the
 * worker's loop. Policies are kept in memory as long as they hold; whether there is a new one is looked at every few minutes.
 *
 * Without weir-control, or when it takes too long, the policy is unknown: mail goes as if there were none, and a counter says so.
 *
 * Owner: answers are counted (sts_release). Thread: one. */
#ifndef WEIR_DATAPLANE_LOOKUP_MTA_STS_H
#define WEIR_DATAPLANE_LOOKUP_MTA_STS_H

#include "dataplane/lookup/dns.h"
#include "spool/mail/mta_sts.h"

struct sts;
struct sts_query;

enum sts_result {
	STS_POLICY,
	STS_NONE,    /* the domain has no policy, or none that can be had and understood */
	STS_UNKNOWN, /* weir-control did not answer */
};

/* Why the newest policy is not there (RFC 8460 4.3.2.2). */
enum sts_fault { STS_FAULT_NONE, STS_FAULT_FETCH, STS_FAULT_INVALID, STS_FAULT_WEBPKI };

struct sts_answer {
	uint32_t refs;
	enum sts_result result;
	enum sts_fault fault;
	char detail[96];
	const struct mta_sts_policy *policy; /* STS_POLICY; else NULL */
};

struct sts_ask {
	struct span domain;  /* look-up form */
	uint16_t port;       /* of https */
	uint64_t timeout_ns; /* for all of it */
};

typedef void sts_fn(void *ctx, struct sts_answer *answer);

enum status sts_new(struct uring *u, struct dns *dns, const char *run_dir, struct sts **ret);
/* After the ring is gone: until then a read may be under way. */
void sts_free(struct sts *s);
/* ST_OK: *ret_answer is there now (release it). ST_AGAIN: fn is called later, never from inside this call; *ret_query may be used to cancel. */
enum status sts_get(struct sts *s, const struct sts_ask *ask, sts_fn *fn, void *ctx, struct sts_answer **ret_answer, struct sts_query **ret_query);
/* fn will not be called any more. */
void sts_cancel(struct sts_query *q);
void sts_release(struct sts_answer *a);
/* Once per turn: time-outs. Gives the time until it must be called again in *ret_wait_ns (UINT64_MAX: none). */
void sts_turn(struct sts *s, uint64_t now_ns, uint64_t *ret_wait_ns);

#endif
