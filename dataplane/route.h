/* Where a recipient's domain goes: to the next hop's key under which outbound keeps its queue.
 *
 * A pure decision from the snapshot's tables; looking up MX records and addresses is conns.c's. */
#ifndef WEIR_DATAPLANE_ROUTE_H
#define WEIR_DATAPLANE_ROUTE_H

#include "spool/base/span.h"
#include "spool/base/status.h"
#include "spool/store/snapshot.h"

enum { ROUTE_KEY_MAX = 512 };

struct next_hop {
	enum snap_route_kind kind;
	enum snap_tls tls;
	const struct snap_route *route; /* NULL: by MX */
	struct span key;                /* "mx:cam.example", "lmtp:[127.0.0.1]:24,..."; in the caller's buffer */
	struct span domain;             /* look-up form; inside key when by MX */
};

/* rcpt is an address of an envelope. Bare "postmaster" goes where the configured postmaster address goes. buf of ROUTE_KEY_MAX bytes.
 * ST_INVALID: the domain has no look-up form. */
enum status route_rcpt(const struct snapshot *snap, struct span rcpt, char *buf, struct next_hop *ret);
/* The address to say in RCPT TO for this recipient: itself, or the configured postmaster for bare "postmaster". */
struct span route_address(const struct snapshot *snap, struct span rcpt);

#endif
