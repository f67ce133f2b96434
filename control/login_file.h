/* Files with the password of a next hop: read and checked here, once for the configuration check and once to be published.
 *
 * Owner: the caller, who wipes what it got. */
#ifndef WEIR_CONTROL_LOGIN_FILE_H
#define WEIR_CONTROL_LOGIN_FILE_H

#include "spool/base/span.h"
#include "spool/base/status.h"

enum { LOGIN_PASSWORD_MAX = 255 };

/* The file is the password: one line, its end aside. ST_IO, ST_INVALID, ST_DENIED (others may read it): the trail says why and names the file, and never has any of the content. */
enum status login_file_read(const char *path, char buf[LOGIN_PASSWORD_MAX], struct span *ret);

#endif
