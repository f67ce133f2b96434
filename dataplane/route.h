/* Where a recipient's domain goes: to the next hop's key under which outbound keeps its queue.
 *
 * A pure decision from the snapshot's tables; looking up MX records and addresses is conns.c's. */
#ifndef WEIR_DATAPLANE_ROUTE_H
#define WEIR_DATAPLANE_ROUTE_H

#include "spool/base/span.h"
#include "spool/base/status.h"
#include "spool/store/snapshot.h"
#include "spool/store/tables.h"

enum { ROUTE_KEY_MAX = 512 };

/* What the sender of a message demands of TLS (RFC 8689): what the route says; REQUIRETLS; TLS-Required: No, where only the operator's own demands count. */
enum hop_tls { HOP_TLS_ROUTE, HOP_TLS_REQUIRED, HOP_TLS_OPTIONAL };

struct next_hop {
	enum snap_route_kind kind;
	enum snap_tls tls;
	enum hop_tls demand;
	bool final;                     /* what it takes is delivered */
	const struct snap_route *route; /* NULL: by MX */
	struct span key;                /* "mx:cam.example", "lmtp:[127.0.0.1]:24,..."; in the caller's buffer */
	struct span domain;             /* look-up form; inside key when by MX */
};

/* rcpt is an address of an envelope. Bare "postmaster" goes where the configured postmaster address goes. buf of ROUTE_KEY_MAX bytes.
 * Tables say which addresses of a domain have moved; they may be empty. ST_INVALID: the domain has no look-up form; ST_AGAIN: it has moved addresses, but the tables do not have them now. */
enum status route_rcpt(const struct snapshot *snap, const struct tables *tables, struct span rcpt, enum hop_tls demand, char *buf, struct next_hop *ret);
/* The address to say in RCPT TO for this recipient: itself, or the configured postmaster for bare "postmaster". */
struct span route_address(const struct snapshot *snap, struct span rcpt);

#endif
