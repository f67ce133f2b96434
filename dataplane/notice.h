/* A mail of the node's own to somebody who looks after it: composed here, put into the spool like a bounce, without a sender (cmd=notice, spool/store/command.h).
 *
 * It is not taken in by SMTP: so it needs no listener, and no rule about clients stands in its way. */
#ifndef WEIR_DATAPLANE_NOTICE_H
#define WEIR_DATAPLANE_NOTICE_H

#include "dataplane/worker.h"

/* text: lines that end with LF; what is not ASCII becomes "?". NULL: it is in the spool; else what is wrong. */
const char *notice_send(struct worker *w, const char *to, const char *subject, struct span text);

#endif
