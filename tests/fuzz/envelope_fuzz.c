/* A stored envelope that is read is what would be written for it, octet by octet, lies in what was read, and its number of recipients is known beforehand. */
#include <stdlib.h>
#include "spool/mail/envelope.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct span stored = span_of(data, n);
	struct pool p;
	struct envelope e;
	uint32_t nrcpt;
	char *text = malloc(n + 1);
	struct out o = out_of(text, n);

	CHECK(text);
	pool_init(&p, 64 * n + 4096);
	if (envelope_read(stored, &p, &e) == ST_OK) {
		CHECK(envelope_nrcpt(stored, &nrcpt) && nrcpt == e.nrcpt);
		for (uint32_t i = 0; i < e.nrcpt; i++)
			CHECK(!e.rcpt[i].addr.n || (e.rcpt[i].addr.p >= stored.p && e.rcpt[i].addr.p + e.rcpt[i].addr.n <= stored.p + n));
		CHECK(envelope_size(&e) == n);
		envelope_write(&e, &o);
		CHECK(!o.over && span_eq(out_span(&o), stored));
	}
	pool_reset(&p);
	free(text);
	return 0;
}
