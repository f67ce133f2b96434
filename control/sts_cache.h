/* MTA-STS policies that still hold, on disk: <run>/mta-sts-policies/DOMAIN, a row "id= until_s=" and behind it the policy in its normal form. So that a restart does not make
 * weir-control forget what a network attacker would like it to forget (RFC 8461 10.2).
 *
 * Thread: one. */
#ifndef WEIR_CONTROL_STS_CACHE_H
#define WEIR_CONTROL_STS_CACHE_H

#include "spool/mail/mta_sts.h"

struct sts_cached {
	char id[MTA_STS_ID_MAX + 1];
	uint64_t left_s;
	bool old; /* in the second half of its life: time for a new one */
	size_t len;
	char text[MTA_STS_WRITTEN_MAX];
};

/* Makes its directory. */
enum status sts_cache_open(const char *run_dir);
/* A policy of this domain (look-up form) that still holds. False: there is none. */
bool sts_cache_get(const char *domain, struct sts_cached *ret);
/* Keeps it for its max_age; one of 0 ends what was kept. */
enum status sts_cache_put(const char *domain, const char *id, const struct mta_sts_policy *p);

#endif
