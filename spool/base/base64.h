/* Base64 (RFC 4648 section 4), strict: no line ends, no white space, padding as it must be, no stray bits.
 *
 * Pure functions. Fails: ST_INVALID; a writer that is full sets its `over`. */
#ifndef WEIR_SPOOL_BASE_BASE64_H
#define WEIR_SPOOL_BASE_BASE64_H

#include "spool/base/span.h"
#include "spool/base/status.h"

/* Characters that n bytes become. */
#define BASE64_LEN(n) (((n) + 2) / 3 * 4)

void base64_encode(struct span s, struct out *o);
/* Accepts exactly what base64_encode can write: what is decoded has one spelling. */
enum status base64_decode(struct span s, struct out *o);

#endif
