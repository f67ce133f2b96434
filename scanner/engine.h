/* What looks at a message: a table of engines behind one interface. An engine is loaded once by the parent and shared by its forked workers.
 *
 * Never passes what it could not look at: every trouble is SCAN_ERROR with a reason. */
#ifndef WEIR_SCANNER_ENGINE_H
#define WEIR_SCANNER_ENGINE_H

#include "spool/base/span.h"
#include "spool/base/status.h"
#include "spool/store/scan.h"

/* A message as its pieces. Every offset was checked against the arena before. */
struct scan_input {
	const char *arena;
	const struct scan_piece *piece;
	uint32_t npieces;
	uint64_t len;
	int spool_fd; /* directory, for pieces that are in segments */
};

struct scan_engine {
	const char *name;
	/* Loads signatures. */
	enum status (*load)(const char *signatures, unsigned max_seconds);
	/* name has room for SCAN_NAME_MAX bytes. */
	enum scan_verdict (*scan)(const struct scan_input *in, char *name);
};

extern const struct scan_engine engine_clamav, engine_trivial;

/* Copies len bytes at off of the message into buf; less at its end, -1 when a piece cannot be read. */
long scan_read(const struct scan_input *in, uint64_t off, void *buf, size_t len);

#endif
