/* Making struct sts_answer: of nothing, or of a packet of weir-control (spool/store/sts_ask.h).
 *
 * Owner: the caller, with one reference (sts_release). Thread: one. Fails: NULL, no memory; what is not understood is no policy. */
#ifndef WEIR_DATAPLANE_LOOKUP_STS_ANSWER_H
#define WEIR_DATAPLANE_LOOKUP_STS_ANSWER_H

#include "dataplane/lookup/mta_sts.h"

struct sts_answer *sts_answer_new(enum sts_result result);
/* Also which domain it is about ("": it does not say), and how long the policy holds. */
struct sts_answer *sts_answer_read(struct span packet, char *ret_domain, size_t cap, uint64_t *ret_left_s);

#endif
