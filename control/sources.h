/* Where the table compiler finds the aliases of a domain: the file that is configured, or the live copy of its history (https, command, a file after a revert).
 *
 * Thread: one. */
#ifndef WEIR_CONTROL_SOURCES_H
#define WEIR_CONTROL_SOURCES_H

#include "control/progress.h"
#include "spool/store/snapshot.h"

struct source_text {
	char *bytes;      /* the caller frees it */
	size_t n;
	const char *name; /* for errors and explanations: a path, or the address that it came from */
};

/* m is of DOMAIN_ALIASES. ST_NOT_FOUND: nothing was fetched yet: the domain is not in the tables, and its mail is answered 451. A domain of the command line
 * that has no entries yet is an empty text. */
enum status source_read(const struct snapshot *s, const struct snap_mail_domain *m, struct source_text *ret);
/* Notes in the histories what the files of all domains say, after tables were made of them (C9). Gives how many changed. p may be NULL. */
unsigned sources_note_files(const struct snapshot *s, const char *by, struct progress *p);

#endif
