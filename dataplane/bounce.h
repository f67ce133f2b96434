/* Notifications: recipients that get a final state end together with the message that says so, in one commit of the spool.
 *
 * Reading the original's header may need the disk, so a bounce is a small agent of its own. How many are made is limited (report_limits.h): what is above is counted
 * and logged, and the recipients end all the same. */
#ifndef WEIR_DATAPLANE_BOUNCE_H
#define WEIR_DATAPLANE_BOUNCE_H

#include "dataplane/mail.h"
#include "spool/mail/dsn.h"

struct bounce;

struct bounce_rcpt {
	uint32_t index;   /* of the envelope */
	struct reply reply;  /* the last that was said */
	uint64_t expired_ns; /* it was temporary, but the message was tried for so long; 0: not so */
	struct span policy; /* of a struct remote */
	char remote[256], tls[64];
};

void bounce_rcpt_set(struct bounce_rcpt *r, uint32_t index, const struct reply *reply, struct remote remote);
/* Settles these recipients as bounced (DSN_FAILED) or delivered (DSN_DELIVERED, DSN_RELAYED) and tells the sender (of failures the postmaster when there is none);
 * DSN_DELAYED tells only. Takes rcpt. When a failure cannot be stored the recipients are deferred instead. The mail may be gone after this. */
void bounce_begin(struct mail *mail, enum dsn_action action, struct bounce_rcpt *rcpt, uint32_t n);
/* STORE_READ with a cookie of ours. */
void bounce_read(struct worker *w, uint64_t cookie);

#endif
