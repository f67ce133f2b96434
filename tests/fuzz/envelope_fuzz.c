/* A stored envelope that is read is what would be written for it, octet by octet; one of an older version once it is written anew. It lies in what was read, and its number of recipients is
 * known beforehand. */
#include <stdlib.h>
#include "spool/mail/envelope.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

/* In memory of its own, as long as envelope_size says. */
static struct out write_again(const struct envelope *e)
{
	size_t size = envelope_size(e);
	struct out o = out_of(malloc(size), size);

	CHECK(o.p);
	envelope_write(e, &o);
	CHECK(!o.over && o.n == size);
	return o;
}

static bool lies_in(struct span outer, struct span s)
{
	return !s.n || (s.p >= outer.p && s.p + s.n <= outer.p + outer.n);
}

/* What is written for what is in `stored`; p == NULL: it is not an envelope. */
static struct out read_and_write(struct span stored)
{
	struct out o = { 0 };
	struct pool p;
	struct envelope e;
	uint32_t nrcpt;

	pool_init(&p, 64 * stored.n + 4096);
	if (envelope_read(stored, &p, &e) == ST_OK) {
		CHECK(envelope_nrcpt(stored, &nrcpt) && nrcpt == e.nrcpt && e.trace.n <= ENV_TRACE_MAX);
		CHECK(lies_in(stored, e.sender) && lies_in(stored, e.trace) && lies_in(stored, e.hold));
		for (uint32_t i = 0; i < e.nrcpt; i++)
			CHECK(lies_in(stored, e.rcpt[i].addr) && lies_in(stored, e.rcpt[i].orcpt));
		o = write_again(&e);
	}
	pool_reset(&p);
	return o;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct out first = read_and_write(span_of(data, n)), again;

	if (!first.p)
		return 0;
	again = read_and_write(out_span(&first));
	CHECK(again.p && span_eq(out_span(&first), out_span(&again)));
	CHECK(first.p[0] != data[0] || span_eq(out_span(&first), span_of(data, n)));
	free(first.p);
	free(again.p);
	return 0;
}
