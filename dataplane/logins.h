/* The passwords with which routes log in to their next hops, as weir-control has published them (tls_file.h).
 *
 * A copy of its own, wiped when it is given up. Owner: a configuration. Thread: the worker's. */
#ifndef WEIR_DATAPLANE_LOGINS_H
#define WEIR_DATAPLANE_LOGINS_H

#include "dataplane/smtp/sasl_client.h"
#include "spool/store/tls_file.h"

struct logins;

/* NULL: there are none, or no memory for them. */
struct logins *logins_new(const struct tls_file *f);
void logins_free(struct logins *l);
/* That user with the password from that file, which is empty when it is not there (yet); without a nonce. Good as long as l, which may be NULL, and the spans given. */
struct sasl_login logins_find(struct logins *l, struct span user, struct span file);

#endif
