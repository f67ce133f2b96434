/* The compiler's process: weir-control started by weir-control, with --compile.
 *
 * Its standard input is the configuration, a snapshot; what it says on its standard output is in compile.h. It makes a generation of tables of what the snapshot
 * names, makes that current, and notes in the histories what the files say (C9). It can be killed at any moment: what is in use is a whole generation all the time. */
#ifndef WEIR_CONTROL_COMPILER_H
#define WEIR_CONTROL_COMPILER_H

#include "control/generations.h"

/* The exit code: 0 all is done, COMPILER_ERRORS the files have errors and nothing was changed, else it could not. */
enum { COMPILER_ERRORS = 3 };
int compiler_run(const char *run_dir, enum publish_tables how, const char *by);

#endif
