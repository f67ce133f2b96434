/* P16, A3, A5: whether a client may have one more connection to this worker.
 *
 * One address and one network from outside have their caps. An address of ours (relay_clients, the registry) has a higher one of its own, which its entry can change, and its network has none: a /24 full of printers is nobody's
 * attack. The last connections of the worker are kept for our own: those from outside have a queue and other exchangers to go to, our robust hosts have a queue, and class fragile has neither: it gets the very last ones.
 *
 * Pure. Thread: any. */
#ifndef WEIR_DATAPLANE_POLICY_CONNECTIONS_H
#define WEIR_DATAPLANE_POLICY_CONNECTIONS_H

#include "dataplane/policy/policy.h"

enum conn_finding { CONN_GOOD, CONN_TOO_MANY, CONN_TOO_MANY_OF_CLIENT, CONN_TOO_MANY_OF_NETWORK };

/* Connections that there are, this one among them; all_max: that the worker can have. */
struct conn_counts {
	uint32_t all, all_max, client, network;
};

/* Connections that the client's address may have. */
uint32_t policy_conns_of_client(const struct policy_facts *f);
/* All connections of the worker that there may be for a client of this class to have one. */
uint32_t policy_conns_of_all(const struct policy_facts *f, uint32_t all_max);
enum conn_finding policy_connection(const struct policy_facts *f, const struct conn_counts *n);

#endif
