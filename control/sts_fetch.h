/* Fetches MTA-STS policies by https (RFC 8461 3.3), many at a time, without waiting (control/web.h).
 *
 * The policy host must have a certificate for its name from an authority that we trust; nothing is redirected, cached or authenticated; answers are bounded.
 *
 * Thread: one. */
#ifndef WEIR_CONTROL_STS_FETCH_H
#define WEIR_CONTROL_STS_FETCH_H

#include "control/web.h"
#include "spool/mail/mta_sts.h"

struct sts_fetch_order {
	const char *domain;   /* look-up form */
	struct span address;  /* of mta-sts.DOMAIN */
	uint16_t port;
	const char *ca_file;  /* "": the system's */
};

/* fault: NULL, or "fetch", "invalid" (then detail says more), "webpki" as in spool/store/sts_ask.h. policy is NULL with a fault. */
typedef void sts_fetched_fn(void *ctx, const struct mta_sts_policy *policy, const char *fault, const char *detail);

/* ST_OK: fn is called once, from web_wait. ST_FULL: too many are under way. */
enum status sts_fetch(const struct sts_fetch_order *o, sts_fetched_fn *fn, void *ctx);

#endif
