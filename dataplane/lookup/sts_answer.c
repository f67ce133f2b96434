#include "dataplane/lookup/sts_answer.h"

#include <stdio.h>
#include <stdlib.h>
#include "spool/base/log.h"

/* An answer with a policy, in one piece. */
struct with_policy {
	struct sts_answer answer;
	struct mta_sts_policy policy; /* borrows from text */
	char text[];
};

void sts_release(struct sts_answer *a)
{
	if (a && --a->refs == 0)
		free(a);
}

struct sts_answer *sts_answer_new(enum sts_result result)
{
	struct sts_answer *a = calloc(1, sizeof(*a));

	if (!a)
		return NULL;
	a->refs = 1;
	a->result = result;
	return a;
}

static struct sts_answer *answer_of_text(struct span text)
{
	struct with_policy *w = calloc(1, sizeof(*w) + text.n);

	if (!w)
		return NULL;
	memcpy(w->text, text.p, text.n);
	w->answer.refs = 1;
	w->answer.result = STS_NONE;
	if (mta_sts_parse(span_of(w->text, text.n), &w->policy) == ST_OK) {
		w->answer.result = STS_POLICY;
		w->answer.policy = &w->policy;
	}
	return &w->answer;
}

static enum sts_fault fault_of(struct span word)
{
	return span_eq(word, SPAN("fetch")) ? STS_FAULT_FETCH : span_eq(word, SPAN("invalid")) ? STS_FAULT_INVALID :
		span_eq(word, SPAN("webpki")) ? STS_FAULT_WEBPKI : STS_FAULT_NONE;
}

struct sts_answer *sts_answer_read(struct span packet, char *ret_domain, size_t cap, uint64_t *ret_left_s)
{
	struct span row = span_cut(&packet, '\n'), k, v;
	struct sts_answer *a = packet.n ? answer_of_text(packet) : sts_answer_new(STS_NONE);
	char buf[512];

	*ret_domain = '\0';
	*ret_left_s = 0;
	while (a && row_next(&row, &k, &v, buf, sizeof(buf))) {
		if (span_eq(k, SPAN("domain")))
			snprintf(ret_domain, cap, "%.*s", SPAN_FMT(v));
		else if (span_eq(k, SPAN("left_s")) && !span_u64(v, MTA_STS_AGE_MAX_S, ret_left_s))
			*ret_left_s = 0;
		else if (span_eq(k, SPAN("fault")))
			a->fault = fault_of(v);
		else if (span_eq(k, SPAN("detail")))
			snprintf(a->detail, sizeof(a->detail), "%.*s", SPAN_FMT(v));
	}
	return a;
}
