/* weirctl rules, and the same in /metrics: how often each rule found something, by the client's class and by what was done about it. */
#ifndef WEIR_CONTROL_RULESCTL_H
#define WEIR_CONTROL_RULESCTL_H

#include <stdbool.h>
#include <stdio.h>

/* code: as for explain-code; NULL: all rules. Gives the exit code. */
int rules_command(const char *run_dir, bool as_json, const char *code);
/* All workers together, as their pages outlive them. */
void rules_metrics(const char *stats_dir, FILE *f);

#endif
