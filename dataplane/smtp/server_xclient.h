/* XCLIENT (Postfix's XCLIENT_README) within a server session: the part of server.c that knows its attributes. Only the parts of the session include this. */
#ifndef WEIR_DATAPLANE_SMTP_SERVER_XCLIENT_H
#define WEIR_DATAPLANE_SMTP_SERVER_XCLIENT_H

#include "dataplane/smtp/server.h"

enum server_action server_xclient_command(struct smtp_server *s, struct span arg);
/* In the answer to EHLO, for who may use it. */
void server_xclient_offer(const struct smtp_server *s, struct out *o);

#endif
