/* An engine for measurements: touches every byte, finds only the EICAR test string, and loads nothing. */
#include <stdio.h>
#include <stdlib.h>
#include "scanner/engine.h"

/* In two halves, so that this program is not found by other scanners. */
static const char eicar_a[] = "X5O!P%@AP[4\\PZX54(P^)7CC)7}$";
static const char eicar_b[] = "EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*";
static char eicar[sizeof(eicar_a) + sizeof(eicar_b)];

static enum status load(const char *signatures, unsigned max_seconds)
{
	(void)signatures;
	(void)max_seconds;
	snprintf(eicar, sizeof(eicar), "%s%s", eicar_a, eicar_b);
	return ST_OK;
}

static enum scan_verdict scan(const struct scan_input *in, char *name)
{
	static char window[64 * 1024 + 128];
	size_t keep = 0, total, n = strlen(eicar);
	uint64_t off = 0;

	if (in->npieces == 1 && in->piece[0].partition == SCAN_PIECE_ARENA) {
		if (memmem(in->arena + in->piece[0].off, in->piece[0].len, eicar, n))
			goto found;
		return SCAN_CLEAN;
	}
	while (off < in->len) {
		long got = scan_read(in, off, window + keep, 64 * 1024);

		if (got <= 0) {
			snprintf(name, SCAN_NAME_MAX, "unreadable");
			return SCAN_ERROR;
		}
		if (memmem(window, keep + (size_t)got, eicar, n))
			goto found;
		off += (uint64_t)got;
		total = keep + (size_t)got;
		keep = total < n - 1 ? total : n - 1; /* a string may stand across two windows */
		memmove(window, window + total - keep, keep);
	}
	return SCAN_CLEAN;
found:
	snprintf(name, SCAN_NAME_MAX, "Eicar-Test-Signature");
	return SCAN_INFECTED;
}

const struct scan_engine engine_trivial = { "trivial", load, scan };
