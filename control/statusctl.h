/* weirctl status: how the node is. */
#ifndef WEIR_CONTROL_STATUSCTL_H
#define WEIR_CONTROL_STATUSCTL_H

#include <stdbool.h>

/* The exit code: 1 when a process is down or a partition has stopped. */
int status_command(const char *run_dir, bool as_json);

#endif
