/* The process's one io_uring, shared by network, disk, DNS, Redis and wakeups of a worker.
 *
 * user_data is decoded here and nowhere else: class (which module), op (the module's own), slot and
 * generation (which of its objects; a late completion of a closed object dies by comparison).
 * Exception to "one vendor library, one folder": liburing lives here, in spool/store and dataplane/net.
 *
 * Thread: the one that made it (SINGLE_ISSUER). Nothing here waits but uring_wait. */
#ifndef WEIR_SPOOL_BASE_URING_H
#define WEIR_SPOOL_BASE_URING_H

#include <liburing.h>
#include <stdbool.h>
#include <stdint.h>
#include "spool/base/status.h"

enum uring_class {
	URING_NONE,   /* completions that nobody waits for */
	URING_NET,
	URING_STORE,
	URING_DNS,
	URING_REDIS,
	URING_SCAN,   /* links to scanner processes */
	URING_PASSWORDS, /* the helper thread for passwords has something */
	URING_DOVECOT, /* authentication socket */
	URING_CTL,    /* command socket, signals */
	URING_STS,    /* link to weir-control, for MTA-STS policies */
	URING_NCLASS,
};

struct uring_event {
	uint8_t op;
	uint32_t slot; /* 24 bits */
	uint32_t gen;  /* 24 bits */
	int res;       /* >= 0, or -errno */
	uint32_t flags; /* IORING_CQE_F_* */
};

typedef void uring_fn(void *ctx, const struct uring_event *ev);

struct uring {
	struct io_uring ring;
	struct {
		uring_fn *fn;
		void *ctx;
	} handler[URING_NCLASS];
	bool defer_taskrun; /* what the kernel gave; shown in status */
	bool lost;          /* the kernel dropped a completion: somebody would wait for ever */
};

/* Sets up with SINGLE_ISSUER|DEFER_TASKRUN|COOP_TASKRUN, or with less on an older kernel. */
enum status uring_init(struct uring *u, unsigned entries);
void uring_done(struct uring *u);
/* One module takes one class. Set before its first operation. */
void uring_handle(struct uring *u, enum uring_class c, uring_fn *fn, void *ctx);
/* A submission entry with its user_data set; submits what is queued when the queue is full, so it never
 * fails. Prepare it at once: io_uring_prep_*() clears user_data, so call uring_tag after it. */
struct io_uring_sqe *uring_sqe(struct uring *u);
void uring_tag(struct io_uring_sqe *sqe, enum uring_class c, uint8_t op, uint32_t slot, uint32_t gen);
/* Submits, waits until a completion is there or timeout_ns is over (0: does not wait), and hands every
 * completion to its class's handler. ST_IO is the end: a completion may be lost, and only a new start knows what is so. */
enum status uring_wait(struct uring *u, uint64_t timeout_ns);

#endif
