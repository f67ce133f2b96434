/* weirctl domain: managed mail domains, their histories and what the last fetch said, read from the disk; orders go to weir-control. See weirctl(8). */
#ifndef WEIR_CONTROL_DOMAINCTL_H
#define WEIR_CONTROL_DOMAINCTL_H

#include <stdbool.h>

/* argv[0] is "domain". Gives the exit code; -1: a usage error. */
int domain_command(const char *run_dir, bool as_json, int argc, char **argv);

#endif
