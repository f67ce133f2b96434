/* The worker's side of the links to scanner processes: jobs out, verdicts in. See spool/store/scan.h for the protocol.
 *
 * A scanner that dies is noticed by its socket; its jobs go to another one. The job that it was working on is blamed: at the second death the message
 * is suspect. Nothing a scanner says is trusted: names are sanitised, and one that says what it cannot know, or hangs, is killed. */
#ifndef WEIR_DATAPLANE_SCAN_H
#define WEIR_DATAPLANE_SCAN_H

#include "dataplane/mail.h"

/* Listens on <run>/scan-<index>. */
enum status scan_new(struct worker *w, struct scan **ret);
void scan_free(struct scan *s);
/* Asks for a verdict; mail_verdict will be called, never from inside this call. patient: nobody waits for the answer, so that it may wait for
 * a scanner as long as it takes. ST_FULL: no slot or no arena. */
enum status scan_post(struct scan *s, struct mail *mail, bool patient);
/* The mail is going away. */
void scan_cancel(struct scan *s, struct mail *mail);
void scan_timer(struct worker *w, struct timer *t);
/* Takes verdicts; once per turn. */
void scan_poll(struct scan *s);
/* Before the worker sleeps: false when a verdict came meanwhile. */
bool scan_sleep(struct scan *s);
void scan_awake(struct scan *s);
void scan_tick(struct scan *s);
void scan_describe(const struct scan *s, struct logline *row);

#endif
