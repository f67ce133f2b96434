/* The registry of the cluster's nodes in Redis: which tables each uses (C1). Every node compiles for itself; equal tables have an equal digest, whatever their generations are called.
 *
 * hiredis is dataplane/lookup's; this is the exception, because it is no decision about mail: weir-control and weirctl ask with a limit of a tenth of a second, and can do without.
 *
 * Thread: one. */
#ifndef WEIR_CONTROL_NODES_H
#define WEIR_CONTROL_NODES_H

#include "spool/store/snapshot.h"
#include "spool/store/tables.h"

enum { NODE_SILENT_S = 60 };

struct node_row {
	char name[256];
	uint64_t generation, digest;
	uint64_t made_s;  /* when the generation was made */
	uint64_t silent_s; /* since it was last heard of, by Redis' clock */
};

/* Of what the tables say; 0: there are none. */
uint64_t nodes_digest(const struct tables *t);
/* Every second or so: tells of this node, every few seconds. */
void nodes_turn(const char *run_dir, const struct snapshot *s);
typedef void node_fn(void *ctx, const struct node_row *row);
/* All nodes, by no order. ST_IO: Redis does not answer. */
enum status nodes_each(const struct snapshot *s, node_fn *fn, void *ctx);

#endif
