/* How a dataplane worker and a scanner process talk: one link per pair, made on a Unix socket.
 *
 * The worker listens on <run>/scan-<worker> (SOCK_SEQPACKET). A scanner connects and gets one packet: struct scan_hello with the descriptors
 * in enum scan_fd order: the arena (sealed: can only be mapped read-only), the link memory (struct scan_link: two rings; sealed, so that nobody
 * can cut it), and the worker's spool directory (O_PATH) for pieces that are only in the log. Then a packet on the socket, whatever it says, is a
 * wakeup of a side that said that it sleeps; its end is how each side learns of the other's death.
 *
 * A job is a lease: what it names stays where it is until its result has come or its scanner's process has ended, also when nobody waits for the verdict any
 * more. A new process makes a new link with new memory, so that nothing a dead one wrote counts.
 *
 * The worker trusts nothing that comes from a scanner: text is sanitised, and a result that is not the answer to a job of its link, or a verdict that there
 * is not, ends the scanner's process; so does a lease without end. The scanner checks every offset against the arena's size. */
#ifndef WEIR_SPOOL_STORE_SCAN_H
#define WEIR_SPOOL_STORE_SCAN_H

#include <assert.h>
#include <stdatomic.h>
#include <stdint.h>
#include "spool/base/ring.h"

enum { SCAN_VERSION = 3, SCAN_RING = 256, SCAN_NAME_MAX = 64 };
#define SCAN_MAGIC 0x4e41435352494557ull /* "WEIRSCAN" */

enum scan_fd { SCAN_FD_ARENA, SCAN_FD_LINK, SCAN_FD_SPOOL, SCAN_NFDS };

struct scan_hello {
	uint64_t magic;
	uint32_t version;
	uint32_t worker;
	uint64_t arena_bytes;
	uint64_t link_bytes;
};

/* A piece of a body. */
enum { SCAN_PIECE_ARENA = 0xffffffffu };
struct scan_piece {
	uint64_t off;       /* in the arena, or in the segment file */
	uint32_t len;
	uint32_t partition; /* SCAN_PIECE_ARENA, or: <spool>/p<partition>/seg-<segment> as "%u", "%08x" */
	uint32_t segment;
	uint32_t pad;
};
static_assert(sizeof(struct scan_piece) == 24);

/* The list of pieces: full pages, and the last. */
enum { SCAN_PAGE_PIECES = 170, SCAN_PIECES_MAX = 65536 };
struct scan_page {
	struct scan_piece piece[SCAN_PAGE_PIECES];
	uint64_t next_off;  /* arena offset of the next page; 0 in the last */
	uint64_t pad;
};
static_assert(sizeof(struct scan_page) == 4096);

struct scan_job {
	uint64_t job;       /* the worker's number of it; given back in the verdict. Never 0 */
	uint64_t msg_id;    /* for logs */
	uint64_t len;       /* of the whole body */
	uint64_t list_off;  /* arena offset of the first struct scan_page */
	uint32_t npieces;
	uint32_t flags;
	uint64_t pad[3];
};
static_assert(sizeof(struct scan_job) == 64);

enum scan_verdict {
	SCAN_CLEAN = 1,
	SCAN_INFECTED = 2, /* name says with what */
	SCAN_ERROR = 3,    /* could not be scanned: name says why (limit, engine error, unreadable) */
};

struct scan_result {
	uint64_t job;
	uint32_t verdict;
	uint32_t micros;   /* time it took */
	uint64_t pad[2];
	char name[SCAN_NAME_MAX]; /* NUL-terminated by who wrote it; not trusted to be */
};
static_assert(sizeof(struct scan_result) == 96);

/* The link memory: zeroed by the worker, then jobs ring, then results ring. */
struct scan_link {
	_Alignas(64) _Atomic uint64_t working; /* job that the scanner is on; 0: none. So a death can be blamed on a message */
	_Alignas(64) _Atomic uint32_t engine_ready;
};

static inline size_t scan_jobs_off(void)
{
	return 4096;
}
static inline size_t scan_results_off(void)
{
	return scan_jobs_off() + ((ring_bytes(SCAN_RING, sizeof(struct scan_job)) + 4095) & ~(size_t)4095);
}
static inline size_t scan_link_bytes(void)
{
	return scan_results_off() + ((ring_bytes(SCAN_RING, sizeof(struct scan_result)) + 4095) & ~(size_t)4095);
}

#endif
