/* The text of a list of addresses that have moved (C8): one local part of the domain a line, with comments and blank lines as in an alias file.
 *
 * A pure reader, like aliasfile.h. Fails: a wrong line is one of the answers, and reading goes on behind it. */
#ifndef WEIR_CONTROL_MOVEDFILE_H
#define WEIR_CONTROL_MOVEDFILE_H

#include "spool/base/span.h"
#include "spool/mail/address.h"

struct movedfile {
	struct span rest;
	unsigned line;      /* of what was just given */
	const char *wrong;  /* NULL: it is good, and key is its look-up form */
	struct out key;
	char bytes[ADDRESS_LOCAL_MAX + 1];
};

struct movedfile movedfile_of(struct span text);
/* False at the end. */
bool movedfile_next(struct movedfile *f);

#endif
