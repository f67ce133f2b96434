/* How often each rule found something, by the client's class and by what was done about it: what makes mode monitor worth its while. In the process's counters page, so that weirctl and /metrics can read it.
 *
 * Owner: the process. Thread: its one. A table of another version in the page is begun anew by the writer, and nothing to readers. */
#ifndef WEIR_SPOOL_MAIL_RULE_COUNTS_H
#define WEIR_SPOOL_MAIL_RULE_COUNTS_H

#include "spool/base/counters.h"
#include "spool/mail/rules.h"

/* done: POLICY_MONITOR to POLICY_REJECT. What could not be found out and is answered 4xx counts as POLICY_DEFER. */
void rule_count(enum rule r, enum snap_class class, enum policy_mode done);
uint64_t rule_counts_get(const struct counters_page *p, enum rule r, enum snap_class class, enum policy_mode done);

#endif
