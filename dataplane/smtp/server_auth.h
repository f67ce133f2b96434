/* AUTH (RFC 4954) within a server session: the part of server.c that knows its exchange. Only server.c includes this besides.
 *
 * What it refuses and how: 502 where AUTH is not offered, 503 out of order, 538 without TLS, 504 and 534 for mechanisms, 501 for bad base64, syntax and "*". */
#ifndef WEIR_DATAPLANE_SMTP_SERVER_AUTH_H
#define WEIR_DATAPLANE_SMTP_SERVER_AUTH_H

#include "dataplane/smtp/server.h"

/* server.c's part for it. Waits for the host's answer, for the next line of the exchange, or for a command again. */
enum server_auth_wait { AUTH_WAITS_HOST, AUTH_WAITS_LINE, AUTH_WAITS_NOTHING };
void server_auth_wait(struct smtp_server *s, enum server_auth_wait w);

enum server_action server_auth_command(struct smtp_server *s, struct span arg);
/* A line in the middle of the exchange; and one that was too long. */
enum server_action server_auth_line(struct smtp_server *s, struct span line);
enum server_action server_auth_line_long(struct smtp_server *s);
/* The exchange is over: what was said in it is wiped. */
void server_auth_end(struct smtp_server *s);
/* Everything about AUTH is forgotten. */
void server_auth_forget(struct smtp_server *s);

#endif
