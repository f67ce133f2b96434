#include "dataplane/lookup/tlsa.h"

enum status tlsa_lookup(struct dns *d, struct span host, uint16_t port, dns_fn *fn, void *ctx, struct dns_answer **ret_answer,
	struct dns_query **ret_query)
{
	char name[280];
	struct out o = out_of(name, sizeof(name));

	out_fmt(&o, "_%u._tcp.%.*s", port, SPAN_FMT(host));
	*ret_answer = NULL;
	*ret_query = NULL;
	if (o.over)
		return trail(ST_INVALID, "the name is too long");
	return dns_tlsa(d, out_span(&o), fn, ctx, ret_answer, ret_query);
}

void tlsa_read(const struct dns_answer *a, struct tlsa_set *ret)
{
	ret->n = 0;
	switch (a->result) {
	case DNS_TEMPFAIL:
		ret->state = TLSA_FAILED;
		return;
	case DNS_FOUND:
		break;
	case DNS_NXDOMAIN:
	case DNS_NODATA:
	case DNS_NULL_MX:
		ret->state = TLSA_NONE;
		return;
	}
	ret->state = TLSA_NONE;
	if (!a->secure || !a->nrr)
		return;
	for (uint32_t i = 0; i < a->nrr && ret->n < TLSA_SET_MAX; i++)
		if (tlsa_parse(a->rr[i], &ret->record[ret->n]))
			ret->n++;
	ret->state = ret->n ? TLSA_USABLE : TLSA_UNUSABLE;
}
