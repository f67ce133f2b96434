/* weirctl verify: what is known of recipients (B2), and forgetting it. */
#ifndef WEIR_CONTROL_VERIFYCTL_H
#define WEIR_CONTROL_VERIFYCTL_H

#include <stdbool.h>

/* argv: verify show|forget ADDRESS|DOMAIN. The exit code. */
int verify_command(const char *run_dir, bool json, int argc, char **argv);

#endif
