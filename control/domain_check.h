/* weirctl domain check and self-check: what is wrong with a managed domain, by the tables in use and by DNS as a worker sees it (B4, C5, C10).
 *
 * DNS is asked through a worker (cmd=dns): its resolver, its limits and its cache are those that mail goes by, and c-ares stays in dataplane/lookup. */
#ifndef WEIR_CONTROL_DOMAIN_CHECK_H
#define WEIR_CONTROL_DOMAIN_CHECK_H

#include "spool/store/snapshot.h"

/* Prints a report. argv: --dkim SELECTOR. Gives 0: nothing is wrong; 1: something is; 2: no worker answers; -1: a usage error. */
int domain_check(const char *run_dir, bool as_json, const struct snap_mail_domain *m, const struct snapshot *s, int argc, char **argv);
/* Whether postmaster leads somewhere in every served domain. */
int domain_self_check(const char *run_dir, bool as_json, const struct snapshot *s);

#endif
