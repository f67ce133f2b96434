/* weirctl explain, check-sender, check-rcpt (A11): what would become of a message, as a worker says it with the code that decides for real mail. */
#ifndef WEIR_CONTROL_EXPLAINCTL_H
#define WEIR_CONTROL_EXPLAINCTL_H

#include <stdbool.h>

enum { EXPLAIN_ACCEPTED, EXPLAIN_REFUSED, EXPLAIN_DEFERRED, EXPLAIN_TROUBLE, EXPLAIN_USAGE };

/* argv[0] is the command. EXPLAIN_ACCEPTED, _REFUSED and _DEFERRED (not decided, or only for now) are what weirctl exits with; _TROUBLE: no worker said anything, said on stderr. */
int explain_command(const char *run_dir, bool as_json, int argc, char **argv);

#endif
