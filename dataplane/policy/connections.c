#include "dataplane/policy/connections.h"

uint32_t policy_conns_of_client(const struct policy_facts *f)
{
	const struct snap_settings *set = &f->snap->h->settings;

	if (!f->net)
		return set->conns_per_client;
	return f->net->conns_max ? f->net->conns_max : set->conns_per_own;
}

uint32_t policy_conns_of_all(const struct policy_facts *f, uint32_t all_max)
{
	uint32_t reserve = (uint32_t)((uint64_t)all_max * f->snap->h->settings.conns_reserved / 100);

	switch (policy_class(f)) {
	case CLASS_FRAGILE:
		return all_max;
	case CLASS_ROBUST:
		return all_max - reserve / 2;
	case CLASS_SUBMISSION:
	case CLASS_MX:
	case CLASS_NCLASS:
		break;
	}
	return all_max - reserve;
}

enum conn_finding policy_connection(const struct policy_facts *f, const struct conn_counts *n)
{
	if (n->all > policy_conns_of_all(f, n->all_max))
		return CONN_TOO_MANY;
	if (n->client > policy_conns_of_client(f))
		return CONN_TOO_MANY_OF_CLIENT;
	if (!f->net && n->network > f->snap->h->settings.conns_per_network)
		return CONN_TOO_MANY_OF_NETWORK;
	return CONN_GOOD;
}
