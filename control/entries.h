/* The entries of one alias file as a set: read with all errors (C3), looked at by the guards of managed domains (C4), compared with another, edited.
 *
 * Pure but for memory; the text must outlive the set. */
#ifndef WEIR_CONTROL_ENTRIES_H
#define WEIR_CONTROL_ENTRIES_H

#include <stdio.h>
#include "spool/base/span.h"

struct entry {
	char *key;             /* look-up form */
	struct span name;      /* as written */
	struct span addresses; /* as written, trimmed */
	unsigned line;
};

struct entries {
	struct entry *row; /* sorted by key */
	size_t n;
	unsigned wrong;    /* errors: lines that are not understood, and names that are there twice */
};

/* Reads all of it; errors go to `complain`, each with "<name>:<line>: ", at most a hundred. */
void entries_read(struct entries *e, struct span text, const char *name, FILE *complain);
void entries_free(struct entries *e);
/* key in look-up form, or NULL. */
const struct entry *entries_find(const struct entries *e, const char *key);

/* What a domain must have (RFC 2142). */
extern const char *const entries_required[]; /* ends with NULL */

enum guard { GUARD_PASSED, GUARD_WRONG, GUARD_SHRUNK };

/* Whether this may take the place of the live entries (NULL: there are none yet). What is wrong goes to `complain`, a line each. GUARD_SHRUNK: nothing but that. */
enum guard entries_guard(const struct entries *e, const struct entries *live, unsigned shrink_percent, FILE *complain);

struct entries_diff {
	size_t added, changed, removed;
	char text[500]; /* "+a ~b -c", as far as it fits */
};
/* before may be NULL. */
void entries_compare(const struct entries *before, const struct entries *after, struct entries_diff *ret);

#endif
