/* weirctl queue: what waits, and what operators do with it. */
#ifndef WEIR_CONTROL_QUEUECTL_H
#define WEIR_CONTROL_QUEUECTL_H

#include <stdbool.h>

/* The exit code; negative: it was not used as it should be. */
int queue_command(const char *run_dir, bool as_json, int argc, char **argv);

#endif
