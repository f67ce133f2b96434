/* A policy that is understood has a normal form that is understood as the same; a record's id is what it may be. */
#include <stdlib.h>
#include "spool/base/status.h"
#include "spool/mail/mta_sts.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void same(const struct mta_sts_policy *a, const struct mta_sts_policy *b)
{
	CHECK(a->mode == b->mode && a->max_age_s == b->max_age_s && a->nmx == b->nmx);
	for (uint32_t i = 0; i < a->nmx; i++) {
		CHECK(span_eq(a->mx[i], b->mx[i]));
		CHECK(a->mx[i].p[0] == '*' || mta_sts_matches(b, a->mx[i]));
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	static struct mta_sts_policy p, again;
	static char buf[MTA_STS_WRITTEN_MAX];
	struct out o = out_of(buf, sizeof(buf));
	struct span id;

	if (mta_sts_record(span_of(data, n), &id) == ST_OK)
		CHECK(id.n >= 1 && id.n <= MTA_STS_ID_MAX && id.p >= (const char *)data && id.p + id.n <= (const char *)data + n);
	if (mta_sts_parse(span_of(data, n), &p) != ST_OK)
		return 0;
	mta_sts_write(&p, &o);
	CHECK(!o.over);
	CHECK(mta_sts_parse(out_span(&o), &again) == ST_OK);
	same(&p, &again);
	return 0;
}
