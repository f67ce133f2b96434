/* TLSA records of a mail exchanger (RFC 7672 2.2), by DNS.
 *
 * Only of use with a resolver that validates; whoever asks has checked that MX and addresses were secure.
 *
 * Owner: the caller gets a counted DNS answer that the set borrows from. Thread: one. */
#ifndef WEIR_DATAPLANE_LOOKUP_TLSA_H
#define WEIR_DATAPLANE_LOOKUP_TLSA_H

#include "dataplane/lookup/dns.h"
#include "spool/mail/tlsa.h"

enum { TLSA_SET_MAX = 32 };

enum tlsa_state {
	TLSA_NONE,     /* there are none, or nobody vouches for them */
	TLSA_USABLE,
	TLSA_UNUSABLE, /* there are, but none of a kind that we know: TLS is mandatory, its certificate means nothing */
	TLSA_FAILED,   /* the look-up failed, or its answer was bogus: this host must not be used now */
};

struct tlsa_set {
	enum tlsa_state state;
	uint32_t n;
	struct tlsa record[TLSA_SET_MAX]; /* the usable ones */
};

/* Like dns_tlsa, for _PORT._tcp.HOST. */
enum status tlsa_lookup(struct dns *d, struct span host, uint16_t port, dns_fn *fn, void *ctx, struct dns_answer **ret_answer,
	struct dns_query **ret_query);
/* What the answer says; the set borrows from it. */
void tlsa_read(const struct dns_answer *a, struct tlsa_set *ret);

#endif
