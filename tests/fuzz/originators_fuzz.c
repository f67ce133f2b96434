/* Any header: what is found in From, Sender and Reply-To are whole addresses, bounded in number; and of a header that is cut nothing is said to be missing. */
#include <stdlib.h>
#include "spool/base/status.h"
#include "spool/mail/originators.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void check(struct span head, bool all, struct originators *o)
{
	uint32_t from = 0, fields = 0;

	originators_read(head, all, o);
	CHECK(o->n <= ORIGINATORS_MAX && o->text_len <= sizeof(o->text) && memchr(o->bad, 0, sizeof(o->bad)));
	for (uint32_t i = 0; i < o->n; i++) {
		struct address a;

		CHECK(o->item[i].a.full.p >= o->text && o->item[i].a.full.p + o->item[i].a.full.n <= o->text + o->text_len);
		CHECK(address_parse(o->item[i].a.full, ADDRESS_UTF8, &a) == ST_OK && a.domain.n);
		from += o->item[i].field == ORIGIN_FROM;
	}
	for (unsigned f = 0; f < ORIGIN_NFIELD; f++)
		fields += o->nfield[f];
	CHECK(from == o->nfrom && (fields || !o->n) && (fields || !*o->bad));
	CHECK(!all || !o->is_cut);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	/* copies of just this size: a sanitizer sees every step too far */
	char *copy = malloc(n ? n : 1);
	struct originators *o = malloc(sizeof(*o)), *part = malloc(sizeof(*o));

	if (copy && o && part) {
		memcpy(copy, data, n);
		check(span_of(copy, n), true, o);
		check(span_of(copy, n / 2), false, part);
		CHECK(part->n <= o->n || *o->bad);
	}
	free(copy);
	free(part);
	free(o);
	return 0;
}
