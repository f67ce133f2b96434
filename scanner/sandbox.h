/* Takes from a scanner process what it does not need, before it sees the first byte of a stranger.
 *
 * Landlock: it may read below the spool directory and write below its own temporary directory, nothing else. seccomp: no sockets, no new programs, no
 * new processes. Neither can be undone. */
#ifndef WEIR_SCANNER_SANDBOX_H
#define WEIR_SCANNER_SANDBOX_H

#include <stdbool.h>
#include "spool/base/status.h"

/* tmp_dir exists. *ret_landlock: whether the kernel had it. ST_IO when seccomp cannot be set: then nothing may be scanned. */
enum status sandbox_enter(const char *spool_dir, const char *tmp_dir, bool *ret_landlock);

#endif
