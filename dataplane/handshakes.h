/* How many TLS handshakes a client address may begin (P23): each costs the worker a signature, and the client nothing.
 *
 * A client has a minute's worth at once, and then one at a time as that fills up again. Counted by each worker for itself, in bounded memory: among more
 * clients than MAX_CLIENTS the one that was quiet for longest is forgotten.
 *
 * Owner: the worker. Thread: the worker's. */
#ifndef WEIR_DATAPLANE_HANDSHAKES_H
#define WEIR_DATAPLANE_HANDSHAKES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "spool/base/status.h"

struct handshakes;

enum status handshakes_new(struct handshakes **ret);
void handshakes_free(struct handshakes *h);
/* Counts one more of this client (IPv6: of its /64); false when it would be more than a_minute. 0: no limit. Without memory: true. */
bool handshakes_allow(struct handshakes *h, const uint8_t ip[16], uint32_t a_minute, uint64_t now_ns);
size_t handshakes_clients(const struct handshakes *h);

#endif
