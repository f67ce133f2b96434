/* The worker's command socket: what operators ask and order, see spool/store/command.h.
 *
 * Owner: the worker. A command about messages that are parked takes until the disk has given them; its answer goes out as the asker takes it. */
#ifndef WEIR_DATAPLANE_COMMAND_H
#define WEIR_DATAPLANE_COMMAND_H

#include "dataplane/worker.h"

enum status command_new(struct worker *w, struct command **ret);
void command_free(struct command *c);
/* Walks over the queue go on. True: there is more to do at once. */
bool command_turn(struct worker *w);
/* Once a second. */
void command_tick(struct worker *w);
/* A message is awake again: for an order of an operator, or to go on. */
void command_woken(struct worker *w, struct store_msg *m);
/* The look that a command asked for; m is NULL when there is nothing to see. */
void command_peeked(struct worker *w, const struct store_msg *m, uint64_t cookie);
void command_unreadable(struct worker *w, uint64_t id);

#endif
