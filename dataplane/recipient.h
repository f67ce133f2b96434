/* RCPT: whether a recipient is taken, and what it becomes in the envelope (rules A1, C6 and what belongs to them).
 *
 * The rules decide (policy/), here the decision is carried out: an expanded recipient is replaced by what it stands for, with itself as ORCPT, and no address stands twice in an envelope with
 * expanded ones. The tables are those of the moment, so a new generation takes effect between two commands. */
#ifndef WEIR_DATAPLANE_RECIPIENT_H
#define WEIR_DATAPLANE_RECIPIENT_H

#include "dataplane/policy/alias.h"
#include "dataplane/session.h"
#include "dataplane/verify.h"

/* What the rules find about the session's last recipient, modes not yet applied; when it is to be accepted the envelope is complete with it. False: it waits, for the destination's word (B2) for example, and decide_rcpt_came gets the decision. */
bool recipient_decide(struct session *s, struct decision *ret);
/* Whether the destination of a recipient is to be asked (B2), and for which address. */
bool recipient_is_to_verify(const struct worker *w, const struct policy_facts *f, const struct address *rcpt, const struct alias_expansion *e, struct span *ret);
/* Whether one of the addresses behind it can get a message of this size (A7); 0: not known yet. */
struct decision recipient_size(const struct policy_facts *f, const struct address *rcpt, const struct alias_expansion *e, uint64_t size);
/* What follows from its answer. */
struct decision recipient_verified(const struct address *rcpt, const struct verify_answer *a);
/* The session ends while it waits. */
void recipient_cancel(struct session *s);
/* A new transaction, or the end of the session. */
void recipient_reset(struct session *s);
/* The recipients of a message of our own that is for this address: what it stands for, or itself when the tables do not say. The array is in the pool. ST_NOMEM. */
enum status recipient_of_ours(struct worker *w, struct span to, struct pool *pool, struct envelope *env);
/* At delivery: whether the tables refuse for good what stands in an envelope, because it was taken from a fragile client that must not be told (A5), or because its domain has changed since. */
bool recipient_is_refused(struct worker *w, struct span addr, struct reply *ret);

#endif
