/* Whatever a resolver sends: every record lies in the message, the walk ends, and text and TLSA of it are readable. */
#include <stdlib.h>
#include "dataplane/lookup/answer.h"
#include "dataplane/lookup/rr.h"
#include "spool/base/status.h"
#include "spool/mail/tlsa.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct span m = span_of(data, n);
	struct rr_walk w;
	struct rr rr;
	struct tlsa t;
	struct dns_answer *names = calloc(1, sizeof(*names));
	size_t found = 0;
	char *buf = malloc(2 * n + 64);
	struct out o;

	(void)(rr_rcode(m) + rr_authentic(m));
	rr_begin(&w, m);
	while (buf && rr_next(&w, &rr)) {
		CHECK(rr.data.p >= m.p && rr.data.p + rr.data.n <= m.p + m.n);
		CHECK(++found <= rr_count(m));
		o = out_of(buf, 2 * n + 64);
		rr_txt(rr.data, &o);
		CHECK(!o.over && o.n <= rr.data.n);
		o = out_of(buf, 2 * n + 64);
		if (tlsa_parse(rr.data, &t))
			tlsa_write(&t, &o);
		CHECK(!o.over);
	}
	if (names) {
		names->refs = 1;
		answer_take_ptr(names, m);
		CHECK(names->nrr <= DNS_PTR_USED);
		for (uint32_t i = 0; i < names->nrr; i++)
			CHECK(names->rr[i].n < 256 && names->rr[i].p[names->rr[i].n] == '\0');
		dns_answer_release(names);
	}
	free(buf);
	return 0;
}
