/* The text of an alias file (C3): "alias:address[,address...]", one a line, with comments, blank lines, LF or CR LF.
 *
 * A comment begins with "#" at the start of a line or behind a blank; in a quoted local part it is a character like any other. An alias is a local part without a domain, an address has one. A pure
 * reader: it opens no file and allocates nothing; whether an alias was there before is its caller's question.
 *
 * Fails: a wrong line is an event of its own with what is wrong, and reading goes on behind it, so that one run finds all errors. */
#ifndef WEIR_CONTROL_ALIASFILE_H
#define WEIR_CONTROL_ALIASFILE_H

#include "spool/base/span.h"

struct aliasfile {
	struct span rest;
	unsigned line;         /* of the event just given */
	struct span name;      /* ALIASFILE_ENTRY: as written, a valid local part */
	struct span addresses; /* ALIASFILE_ENTRY: one or more, for aliasfile_address */
	char wrong[256];       /* ALIASFILE_WRONG */
};

enum aliasfile_event { ALIASFILE_ENTRY, ALIASFILE_WRONG, ALIASFILE_END };

struct aliasfile aliasfile_of(struct span text);
enum aliasfile_event aliasfile_next(struct aliasfile *f);
/* Takes the next address off the list; they are all valid. False at the end. */
bool aliasfile_address(struct span *addresses, struct span *ret);

#endif
