/* Names and passwords for https sources, in a file that nobody else may read (C2): lines "DOMAIN USER:PASSWORD", DOMAIN "*" for all others; "#" begins a comment line.
 *
 * Read anew for every fetch, so that a change needs no reload; what was read is wiped by secrets_wipe. No error says anything of what the file holds but a line's number. */
#ifndef WEIR_CONTROL_SECRETS_H
#define WEIR_CONTROL_SECRETS_H

#include <stdbool.h>
#include "spool/base/status.h"

struct secret {
	char user[256], password[256];
};

/* ST_NOT_FOUND: the file has no line for the domain (look-up form). ST_DENIED: others may read it. ST_INVALID, ST_IO. */
enum status secrets_find(const char *path, const char *domain, struct secret *ret);
void secrets_wipe(struct secret *s);

#endif
