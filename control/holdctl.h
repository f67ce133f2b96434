/* weirctl hold: routes on hold, what waits for them, and when the spool would be full (F2). */
#ifndef WEIR_CONTROL_HOLDCTL_H
#define WEIR_CONTROL_HOLDCTL_H

#include <stdbool.h>

/* The exit code; -1: usage. */
int hold_command(const char *run_dir, bool as_json, int argc, char **argv);
/* A section of weirctl status; nothing when no route is on hold. */
void holds_status(const char *run_dir);

#endif
