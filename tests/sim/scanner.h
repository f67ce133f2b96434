/* A scanner inside the worker's process: the protocol of spool/store/scan.h and the engine are the real ones, only the process is not.
 *
 * Fails: CHECKs. A body that was spilled to the (simulated) disk it cannot read: SCAN_ERROR, as from any scanner. */
#ifndef WEIR_TESTS_SIM_SCANNER_H
#define WEIR_TESTS_SIM_SCANNER_H

#include <stdbool.h>

/* Looks for the worker's socket in this directory. */
void scanner_begin(const char *run_dir);
/* Links, or does what was asked. False: there was nothing to do. */
bool scanner_turn(void);

#endif
