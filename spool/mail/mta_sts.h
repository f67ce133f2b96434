/* MTA-STS (RFC 8461) as text: the _mta-sts TXT record and the policy that its domain's web server gives. Pure functions over hostile input.
 *
 * Fetching is weir-control's, look-ups and caching are dataplane/lookup/mta_sts.c's.
 *
 * Thread: any. Fails: ST_INVALID with a trail; a policy that is not understood is no policy. */
#ifndef WEIR_SPOOL_MAIL_MTA_STS_H
#define WEIR_SPOOL_MAIL_MTA_STS_H

#include "spool/base/span.h"
#include "spool/base/status.h"

enum {
	MTA_STS_ID_MAX = 32,
	MTA_STS_MX_MAX = 100,              /* patterns of a policy; one with more is not understood */
	MTA_STS_TEXT_MAX = 64 * 1024,      /* RFC 8461 3.3 suggests this bound */
	MTA_STS_WRITTEN_MAX = 64 + MTA_STS_MX_MAX * 262,
	MTA_STS_AGE_MAX_S = 31557600,
};

enum mta_sts_mode { MTA_STS_NONE, MTA_STS_TESTING, MTA_STS_ENFORCE };

struct mta_sts_policy {
	enum mta_sts_mode mode;
	uint32_t max_age_s;
	uint32_t nmx;
	struct span mx[MTA_STS_MX_MAX]; /* borrowed from the text: "mx.example", "*.example" */
};

/* The id of a TXT record's text (its strings joined, 3.1). ST_NOT_FOUND: it is about something else; ST_INVALID: it wants to be one. */
enum status mta_sts_record(struct span txt, struct span *ret_id);
/* Reads a policy (3.2). Unknown fields are passed over, of repeated ones the first counts. */
enum status mta_sts_parse(struct span text, struct mta_sts_policy *ret);
/* Writes it in its normal form, which mta_sts_parse reads as the same; at most MTA_STS_WRITTEN_MAX bytes. */
void mta_sts_write(const struct mta_sts_policy *p, struct out *o);
/* Whether a mail exchanger (look-up form) is one of the policy's (4.1): a wildcard stands for exactly one label. */
bool mta_sts_matches(const struct mta_sts_policy *p, struct span mx);
const char *mta_sts_mode_name(enum mta_sts_mode m);

#endif
