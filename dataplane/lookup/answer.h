/* From DNS messages to struct dns_answer: what dns.c keeps of them, and how much.
 *
 * Owner: the answer is dns.c's; what is added here dies with its last dns_answer_release. Thread: one. Fails: never; a message that is not understood adds nothing. */
#ifndef WEIR_DATAPLANE_LOOKUP_ANSWER_H
#define WEIR_DATAPLANE_LOOKUP_ANSWER_H

#include "dataplane/lookup/dns.h"

/* The smallest TTL of the answer section, at most `most`. */
uint32_t answer_ttl_s(struct span message, uint32_t most);
/* Adds mail exchangers, sorted; sets DNS_NULL_MX for RFC 7505's. */
void answer_take_mx(struct dns_answer *a, struct span message);
/* Adds addresses; and the canonical name when it is another one than name. */
void answer_take_addr(struct dns_answer *a, struct span message, const char *name, bool v6);
/* Keeps the data of all records of this type. */
void answer_take_rr(struct dns_answer *a, struct span message, uint16_t type);
/* Keeps the names of PTR records. */
void answer_take_ptr(struct dns_answer *a, struct span message);
/* "7.2.0.192.in-addr.arpa", or 32 digits below ip6.arpa (RFC 3596 2.5). */
void answer_reverse_name(const uint8_t ip[16], struct out *o);
/* Addresses of the family that the node can reach first, then one of each in turn. */
void answer_interleave(struct dns_answer *a, bool v6_first);

#endif
