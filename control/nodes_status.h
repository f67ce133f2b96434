/* The nodes' part of weirctl status. */
#ifndef WEIR_CONTROL_NODES_STATUS_H
#define WEIR_CONTROL_NODES_STATUS_H

#include <jansson.h>

/* Prints nothing when there is no more than this node. */
void nodes_print(const char *run_dir);
/* An array; empty when Redis does not answer. */
json_t *nodes_json(const char *run_dir);

#endif
