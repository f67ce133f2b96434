/* What weir-control remembers of a managed domain beside its history: <managed.directory>/<domain>/state, and refused, what the source said last when the guards did
 * not let it in. Losing it costs a fetch and perhaps a second mail, nothing else.
 *
 * weir-control writes it; weirctl reads it. */
#ifndef WEIR_CONTROL_DOMAIN_STATE_H
#define WEIR_CONTROL_DOMAIN_STATE_H

#include "control/domain_fetch.h"

struct domain_state {
	char url[1024];                               /* what etag and modified belong to */
	char etag[DOMAIN_TAG_MAX], modified[64];
	uint64_t fetched_s, next_s;                   /* the last and the next fetch; 0: none */
	bool failed;                                  /* the last one; the live copy stays */
	uint64_t failures;                            /* how many in a row did */
	char result[512];                             /* of the last one, a line */
	uint64_t refused, refused_entries;            /* XXH3 of the file "refused"; 0: there is none */
	bool refused_shrunk;                          /* it is only too small: it can be accepted */
	uint64_t told;                                /* XXH3 of what postmaster was told last; 0: nothing, or all is well again */
	uint64_t checked_s, next_check_s, findings;   /* the check in detail (C5) */
};

/* Nothing known: all zero. */
void domain_state_read(const char *dir, const char *domain, struct domain_state *ret);
enum status domain_state_write(const char *dir, const char *domain, const struct domain_state *s);

#endif
