/* Notifications: recipients that failed for good end together with the message that says so, in one commit of the spool.
 *
 * Reading the original's header may need the disk, so a bounce is a small agent of its own. */
#ifndef WEIR_DATAPLANE_BOUNCE_H
#define WEIR_DATAPLANE_BOUNCE_H

#include "dataplane/mail.h"
#include "spool/mail/dsn.h"

struct bounce;

struct bounce_rcpt {
	uint32_t index;   /* of the envelope */
	struct reply reply;
};

/* Settles these recipients as bounced and tells the sender (the postmaster when there is none). action DSN_DELAYED tells only. remote is copied.
 * When the notification cannot be stored the recipients are deferred instead. mail_finish is called at the end. */
void bounce_begin(struct mail *mail, enum dsn_action action, const struct bounce_rcpt *rcpt, uint32_t n, struct span remote);
/* STORE_READ with a cookie of ours. */
void bounce_read(struct worker *w, uint64_t cookie);

#endif
