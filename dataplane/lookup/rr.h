/* The answer section of a DNS message (RFC 1035 4), record by record. c-ares knows nothing of TLSA, gives no TTL of MX, and hides the header.
 *
 * Owner names are passed over, not compared: whoever can put a record into our resolver's answer can put its owner there too.
 *
 * Thread: any. Fails: a message that is cut or twisted just ends. */
#ifndef WEIR_DATAPLANE_LOOKUP_RR_H
#define WEIR_DATAPLANE_LOOKUP_RR_H

#include "spool/base/span.h"

struct rr {
	uint16_t type;
	uint32_t ttl_s;
	struct span data; /* in the message */
};

struct rr_walk {
	struct span message;
	size_t at;
	uint32_t left;
};

/* Goes behind the question. */
void rr_begin(struct rr_walk *w, struct span message);
/* The next record of class IN in the answer section. False at the end. */
bool rr_next(struct rr_walk *w, struct rr *ret);
/* The header's RCODE; 2 (SERVFAIL) when there is no whole header. */
unsigned rr_rcode(struct span message);
/* Whether the header has the AD bit: the resolver has validated all of the answer (RFC 4035 3.2.3). */
bool rr_authentic(struct span message);
/* Number of records in the answer section, as the header says. */
unsigned rr_count(struct span message);
/* The character strings of a TXT record, joined. */
void rr_txt(struct span data, struct out *o);

#endif
