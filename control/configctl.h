/* weirctl config: the configuration in use, its keys, checking a file, reloading. */
#ifndef WEIR_CONTROL_CONFIGCTL_H
#define WEIR_CONTROL_CONFIGCTL_H

#include <stdbool.h>

/* What weirctl exits with; below 0: the arguments make no sense. */
int config_command(const char *run_dir, bool as_json, int argc, char **argv);

#endif
