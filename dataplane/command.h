/* The worker's command socket: what operators ask and order, see spool/store/command.h.
 *
 * Owner: the worker. A command is carried out within the turn in which it came; its answer goes out as the asker takes it. */
#ifndef WEIR_DATAPLANE_COMMAND_H
#define WEIR_DATAPLANE_COMMAND_H

#include "dataplane/worker.h"

enum status command_new(struct worker *w, struct command **ret);
void command_free(struct command *c);

#endif
