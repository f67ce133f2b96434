/* weirctl clients: who may relay, and what each client was seen to do (A3), read from snapshot and evidence; orders go to weir-control. See weirctl(8). */
#ifndef WEIR_CONTROL_CLIENTSCTL_H
#define WEIR_CONTROL_CLIENTSCTL_H

#include <stdbool.h>

/* argv[0] is "clients". Gives the exit code; -1: a usage error. */
int clients_command(const char *run_dir, bool as_json, int argc, char **argv);
/* For weirctl status: what has expired, or will soon. */
void clients_print_status(const char *run_dir);

#endif
