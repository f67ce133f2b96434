/* What every daemon does at its start: signals, the file limit, another user. */
#ifndef WEIR_SPOOL_BASE_DAEMON_H
#define WEIR_SPOOL_BASE_DAEMON_H

#include "spool/base/status.h"

/* SIGTERM and SIGINT call on_stop (without restarting system calls); SIGPIPE is ignored. */
void daemon_signals(void (*on_stop)(int));
/* Raises the limit of open files to the hard limit, and that of locked memory as far as we may. */
void daemon_raise_files(void);
/* Becomes this user with its groups, for good; NULL or "": stays. ST_NOT_FOUND, ST_IO. */
enum status daemon_drop(const char *user);

#endif
