/* One scanner process: links to every dataplane worker, takes jobs, gives verdicts. */
#ifndef WEIR_SCANNER_POOL_WORKER_H
#define WEIR_SCANNER_POOL_WORKER_H

#include <signal.h>
#include "scanner/engine.h"

struct pool_config {
	const char *run_dir, *spool_dir;
	const struct scan_engine *engine;
	unsigned max_seconds;
	unsigned instance;
};

/* The signals that a worker is told things by. The parent blocks them around the fork; pool_worker_run unblocks them. */
void pool_worker_signals(sigset_t *ret);

/* Runs until a link breaks, a new dataplane worker appears (SIGUSR1) or SIGTERM; the job at hand is finished first. Gives the process's exit code: 0 in order. */
int pool_worker_run(const struct pool_config *cfg);

#endif
