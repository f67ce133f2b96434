/* What weir-control publishes: configurations, and generations of tables, each of them compiled by a process of its own (compile.h), one at a time.
 *
 * Who asks is answered when it is done; what is asked for while one is under way goes together into the next. A configuration goes out when the tables that it speaks
 * of are in use, so that workers never see it with older ones; only at the start does it go out beside bad alias files: the node must come up, with the tables it had.
 *
 * Owner: of every fd that is handed over, closed after the answer; -1: nobody waits. Thread: one. */
#ifndef WEIR_CONTROL_PUBLISH_H
#define WEIR_CONTROL_PUBLISH_H

#include <stdbool.h>
#include <stdio.h>
#include "control/generations.h"

/* config: NULL for all defaults. */
void publish_init(const char *config, const char *run_dir);
/* Reads the configuration and begins. False: it has errors, which were written to errors. *ret_metrics: where metrics are served; the caller frees it. */
bool publish_start(FILE *errors, char **ret_metrics);
/* The generation of the configuration in <run>/snapshot; 0: there is none yet. */
uint64_t publish_generation(void);
/* What to wait for beside time; -1: nothing. */
int publish_fd(void);
/* Every second, and when there is something on the fd. True: another configuration is published since the last time. */
bool publish_turn(void);
/* The configuration of the start could not be published, and no other is there: it makes no sense to go on. */
bool publish_is_hopeless(void);
void publish_stop(void);

/* Reads the configuration file, has its tables compiled, publishes both. by: who orders it. */
void publish_config(int fd, const char *by);
/* Has tables compiled of what files and histories say now. The answer begins with `good`, NULL: the generation; or ends with `bad` behind the errors. */
void publish_tables(int fd, enum publish_tables how, const char *by, const char *good, const char *bad);
/* A history has changed: tables are compiled of it soon, with others that come one upon another. */
void publish_changed(void);
/* Whether such a change waits still. */
bool publish_is_changed(void);
/* Makes an older generation current (C1); what is being compiled meanwhile comes after it. False: errors were written. */
bool publish_rollback(uint64_t generation, FILE *out);

#endif
