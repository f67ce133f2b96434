/* TLSA records (RFC 6698) as SMTP uses them (RFC 7672): which are usable.
 *
 * Thread: any. Fails: never; a record that is not understood is not usable. */
#ifndef WEIR_SPOOL_MAIL_TLSA_H
#define WEIR_SPOOL_MAIL_TLSA_H

#include "spool/base/span.h"

enum tlsa_usage { TLSA_PKIX_TA, TLSA_PKIX_EE, TLSA_DANE_TA, TLSA_DANE_EE };

struct tlsa {
	uint8_t usage, selector, matching;
	struct span data; /* of the certificate or key, or its digest; borrowed */
};

/* Reads the data of a record. False when it is not usable (RFC 7672 3.1.3: neither DANE-TA nor DANE-EE; or unknown, or malformed). */
bool tlsa_parse(struct span rdata, struct tlsa *ret);
/* "3 1 1 0d6f...": as in zone files and reports. */
void tlsa_write(const struct tlsa *t, struct out *o);

#endif
