#include "spool/mail/tlsa.h"

enum { SELECTOR_SPKI = 1, MATCHING_FULL = 0, MATCHING_SHA256 = 1, MATCHING_SHA512 = 2 };

static bool length_ok(const struct tlsa *t)
{
	switch (t->matching) {
	case MATCHING_FULL:
		return t->data.n > 0;
	case MATCHING_SHA256:
		return t->data.n == 32;
	case MATCHING_SHA512:
		return t->data.n == 64;
	default:
		return false;
	}
}

bool tlsa_parse(struct span rdata, struct tlsa *ret)
{
	if (rdata.n < 4)
		return false;
	*ret = (struct tlsa){ (uint8_t)rdata.p[0], (uint8_t)rdata.p[1], (uint8_t)rdata.p[2], span_skip(rdata, 3) };
	return (ret->usage == TLSA_DANE_TA || ret->usage == TLSA_DANE_EE) && ret->selector <= SELECTOR_SPKI && length_ok(ret);
}

void tlsa_write(const struct tlsa *t, struct out *o)
{
	out_fmt(o, "%u %u %u ", t->usage, t->selector, t->matching);
	for (size_t i = 0; i < t->data.n; i++)
		out_fmt(o, "%02x", (uint8_t)t->data.p[i]);
}
