/* Fetches the aliases of a managed mail domain by https (C2): certificate verified, basic authentication, ETag and If-Modified-Since, bounded in size and time,
 * redirected within its own host only. Judges nothing of what it gets.
 *
 * Thread: one. */
#ifndef WEIR_CONTROL_DOMAIN_FETCH_H
#define WEIR_CONTROL_DOMAIN_FETCH_H

#include "control/web.h"
#include "spool/base/span.h"

enum { DOMAIN_TAG_MAX = 512 };

struct domain_order {
	const char *domain, *url, *ca_file, *secrets_file; /* "": the system's, none */
	const char *etag, *modified;                       /* of the last answer; "": unconditional */
	size_t max;
	long timeout_s;
};

enum domain_fetched { DOMAIN_FETCH_NEW, DOMAIN_FETCH_SAME, DOMAIN_FETCH_FAILED };

struct domain_answer {
	enum domain_fetched what;
	struct span text;                     /* NEW; valid during the call */
	char etag[DOMAIN_TAG_MAX], modified[64]; /* NEW */
	char detail[512];                     /* FAILED: why */
};

typedef void domain_fetched_fn(void *ctx, const struct domain_answer *a);

struct domain_fetch;
/* ST_OK: fn is called once, from web_wait, unless cancelled. Otherwise the trail says why not. */
enum status domain_fetch(const struct domain_order *o, domain_fetched_fn *fn, void *ctx, struct domain_fetch **ret);
void domain_fetch_cancel(struct domain_fetch *f);

#endif
