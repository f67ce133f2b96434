/* The node's TLS secrets: certificates, ticket keys and passwords of next hops on their way from the files of the configuration to <run>/tls (tls_file.h).
 *
 * Certificate files that change under their names are noticed (tls.watch); what cannot be used changes nothing and is said. Ticket keys are made here and
 * replaced every tls.ticket_life, unless nodes share a file of them.
 *
 * Thread: weir-control's. */
#ifndef WEIR_CONTROL_TLS_KEYS_H
#define WEIR_CONTROL_TLS_KEYS_H

#include <stdio.h>
#include "spool/store/snapshot.h"
#include "spool/store/tls_file.h"

/* Publishes what a configuration names; before the configuration itself. False: nothing was changed, why is in errors. */
bool tls_keys_publish(const struct snapshot *s, const char *run_dir, FILE *errors);
/* Once a second or so: looks at the files when it is time, and makes new ticket keys. */
void tls_keys_turn(const char *run_dir);
/* Ticket keys that nodes share: 80 octets each, name, AES key and HMAC key, the first for new tickets. ST_IO, ST_INVALID. */
enum status tls_keys_file(const char *path, struct tls_file *ret, bool *ret_open);

#endif
