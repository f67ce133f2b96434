/* weirctl's view of the compiled tables: show, diff, compile, rollback, and look-ups in both directions.
 *
 * Looking needs nobody: the generations are read from the run directory. Changing is asked of weir-control, their only writer. */
#ifndef WEIR_CONTROL_TABLESCTL_H
#define WEIR_CONTROL_TABLESCTL_H

#include <stdbool.h>

/* weirctl tables show | check | diff [A [B]] | compile | rollback [N]. argv[0] is "tables". Gives the exit code; -1: wrong usage. */
int tables_command(const char *run_dir, bool as_json, int argc, char **argv);
/* weirctl alias ADDR. */
int alias_command(const char *run_dir, bool as_json, const char *text);

#endif
