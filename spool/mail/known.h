/* What is known of whether an address, or a domain, takes mail (rule B2), and its text form, in which nodes share it.
 *
 * The text comes from a store that others can write to: a reader believes nothing of it that it has not checked, and a version that it does not know is nothing.
 *
 * Units: ms of spool time (clock_steady_ns). */
#ifndef WEIR_SPOOL_MAIL_KNOWN_H
#define WEIR_SPOOL_MAIL_KNOWN_H

#include "spool/base/status.h"
#include "spool/mail/reply.h"

enum known_kind {
	KNOWN_NOTHING, /* at tried_ms it was asked in vain, if that is not 0 */
	KNOWN_YES,     /* an address: it takes mail. A domain: it answers, and tells addresses apart */
	KNOWN_NO,      /* reply says why; 5xx */
	KNOWN_ALL,     /* a domain: it takes every local part at RCPT */
	KNOWN_MUTE,    /* a domain: it refuses the null sender for good, so that it cannot be asked */
	KNOWN_FORGET,  /* a domain: what is older than this is not believed any more */
	KNOWN_NKIND,
};

enum { KNOWN_TEXT_MAX = 400 /* of the remote's reply; more is cut */, KNOWN_MAX = 480 /* of the text form */ };

struct known {
	enum known_kind kind;
	uint64_t at_ms;     /* when that was learnt */
	uint64_t tried_ms;  /* when it was asked last without a clear answer; 0: not since */
	struct reply reply; /* the remote's: of NO, of MUTE, of what was tried; code 0: none */
};

/* "W1 no 1732186000000 0 550 5.1.1 text". o has room for KNOWN_MAX. */
void known_write(const struct known *k, struct out *o);
/* ST_UNSUPPORTED: another version. ST_CORRUPT: not what known_write writes. *ret is KNOWN_NOTHING then. */
enum status known_parse(struct span s, struct known *ret);
const char *known_name(enum known_kind kind);

#endif
