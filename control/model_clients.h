/* The registry of clients in the configuration snapshot (A3): a part behind all others, so that it can be replaced alone, without a look at the configuration file. */
#ifndef WEIR_CONTROL_MODEL_CLIENTS_H
#define WEIR_CONTROL_MODEL_CLIENTS_H

#include "control/schema.h"

#define REGISTRY "registry" /* the name of its history, in clients.directory */

/* What the registry says now, clients.file or the history; the caller frees. No text: there is none yet. */
enum status registry_text(const struct snapshot *s, char **ret, size_t *ret_n);
/* What errors call it. */
const char *registry_name(const struct snapshot *s);
/* Takes the registry's text into a configuration whose other parts are there. */
void registry_merge(struct model *m, struct span text, const char *name);
/* The configuration that is published, with another registry. False: errors were written. The caller frees m->bytes. */
bool registry_replace(struct model *m, const struct snapshot *s, struct span text, FILE *complain);

#endif
