/* The words of ESMTP: extensions in the answer to EHLO, and the parameters of MAIL and RCPT (RFC 1870, 3461, 6152, 6531, 8689, 9422).
 *
 * One table of extensions serves both directions. */
#ifndef WEIR_DATAPLANE_SMTP_PARAMS_H
#define WEIR_DATAPLANE_SMTP_PARAMS_H

#include "dataplane/smtp/client.h"
#include "dataplane/smtp/server.h"

/* Takes one line of the answer to EHLO (without code): its bit of enum client_ext, or 0. The numbers of SIZE and LIMITS go to *v. */
uint32_t ext_parse(struct span line, struct ehlo_values *v);
/* Writes the answer to EHLO. */
void ext_write(const struct smtp_server *s, struct out *o);
/* Parameters behind the address of MAIL. False: *r is the refusal. */
bool mail_params(struct smtp_server *s, struct span params, struct reply *r);
/* Parameters behind the address of RCPT. */
bool rcpt_params(struct smtp_server *s, struct span params, struct env_rcpt *rcpt, struct reply *r);
/* What the client adds behind MAIL FROM:<> and RCPT TO:<>. */
void mail_params_write(const struct smtp_client *c, struct out *o);
void rcpt_params_write(const struct smtp_client *c, const struct env_rcpt *rcpt, struct out *o);

#endif
