/* The passwords with which routes log in to their next hops, as weir-control has published them (tls_file.h).
 *
 * A copy of its own, wiped when it is given up. Owner: a configuration. Thread: the worker's. */
#ifndef WEIR_DATAPLANE_LOGINS_H
#define WEIR_DATAPLANE_LOGINS_H

#include "spool/store/tls_file.h"

struct logins;

/* NULL: there are none, or no memory for them. */
struct logins *logins_new(const struct tls_file *f);
void logins_free(struct logins *l);
/* The password of that user from that file; p NULL: it is not there (yet). Good as long as l. */
struct span logins_password(const struct logins *l, struct span user, struct span file);

#endif
