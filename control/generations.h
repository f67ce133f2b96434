/* The generations of compiled tables in <run>/tables: made, switched, pruned, rolled back.
 *
 * A generation is written under another name, flushed, renamed, and its directory flushed; then `current`, a symbolic link, is replaced the same way. At every moment `current` is a whole, flushed
 * generation or does not exist yet. Who writes has the lock: weir-control, or the compiler that it has started. */
#ifndef WEIR_CONTROL_GENERATIONS_H
#define WEIR_CONTROL_GENERATIONS_H

#include "control/tables.h"

/* Numbers of the generations that are there, ascending; the caller frees *ret. */
size_t generations_list(const char *run_dir, uint64_t **ret);
/* path of 4200 bytes. */
const char *generations_path(const char *run_dir, uint64_t generation, char *path);
/* Seals the image with the next number and puts it on the disk, not yet current. */
enum status generations_write(const char *run_dir, struct tables_image *image);
/* Makes it current after checking it as its readers will. */
enum status generations_switch(const char *run_dir, uint64_t generation);
/* Removes all but the newest `keep`, never the current one. */
void generations_prune(const char *run_dir, uint32_t keep);
/* After a rollback the tables stay pinned until somebody compiles by command: a restart or reload does not undo it. */
bool generations_pinned(const char *run_dir);
enum status generations_pin(const char *run_dir, bool on);

enum publish_tables {
	TABLES_AT_START,   /* errors leave the live tables in use; pinned ones stay */
	TABLES_BY_COMMAND, /* the same, and it ends the pin */
};
/* Compiles what the snapshot says, and when that differs from the live tables makes it current. *ret_generation: the one in use afterwards.
 * False: errors were written, nothing changed. */
bool tables_publish(const struct snapshot *s, const char *run_dir, enum publish_tables how, FILE *errors, struct progress *p, uint64_t *ret_generation);
/* One writer at a time: waits until no other process has it; gives a descriptor that keeps it until it is closed. Negative: it cannot be had. */
int generations_lock(const char *run_dir);
/* Makes an older generation current and pins it; generation 0: the newest below the current one. Takes the lock. */
enum status tables_rollback(const char *run_dir, uint64_t generation, uint64_t *ret_generation);

#endif
