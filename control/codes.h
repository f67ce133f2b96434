/* weirctl explain-code: what a refusal means, and what helps (rule A12). The table is spool/mail/rules.def. */
#ifndef WEIR_CONTROL_CODES_H
#define WEIR_CONTROL_CODES_H

#include <stdbool.h>

/* code: a rule's name, its row, an enhanced code; NULL: one line for each rule. Modes are those of the configuration in use, or the defaults while there is none. Gives the exit code. */
int codes_command(const char *run_dir, bool as_json, const char *code);

#endif
