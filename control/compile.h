/* A compilation of tables in a process of its own, so that weir-control answers meanwhile (C1): compiler.h is its other side.
 *
 * The process says, a line each: "progress PHASE DONE OF" (progress.h), "error TEXT", "generation N" when that is in use, and "changes N" when so many domains were
 * noted in the histories, which is the end.
 *
 * Thread: one. Never waits, but for a process that was killed. */
#ifndef WEIR_CONTROL_COMPILE_H
#define WEIR_CONTROL_COMPILE_H

#include "control/generations.h"

/* WRONG: the files have errors. DIED: it could not be done, or the process ended before its time. */
enum compile_event { COMPILE_GOES_ON, COMPILE_MADE, COMPILE_DONE, COMPILE_WRONG, COMPILE_DIED };

/* snapshot: the configuration, a file that is closed here. Only when none runs. */
enum status compile_begin(const char *run_dir, int snapshot, enum publish_tables how, const char *by);
bool compile_runs(void);
/* What to wait for; -1: none runs. */
int compile_fd(void);
/* What has happened; errors of its files, or why it died, go to `errors`. MADE comes once, before DONE; after DONE, WRONG and DIED none runs. */
enum compile_event compile_turn(FILE *errors);
/* After MADE and DONE. */
uint64_t compile_generation(void);
uint64_t compile_changes(void);
/* Ends the one that runs, wherever it is: waits for the disk, when that is what it waits for. */
void compile_kill(void);
/* The same without waiting, before we end ourselves. */
void compile_leave(void);

#endif
