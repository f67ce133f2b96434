/* What became of each managed domain's aliases: <managed.directory>/<domain>/log, one row a change, only ever added to, and copy-N, the aliases as they were then (C9).
 *
 * The last whole row of the log is the truth: it names the copy that is live. A copy is on the disk, flushed, before its row is; so a kill at any moment leaves the state
 * before or the state after, and a row that was not finished never was.
 *
 * weir-control writes, and the compiler that it starts: who adds a row has the log locked. Fails: ST_IO, ST_CORRUPT (a copy is not what its row says), ST_NOT_FOUND. */
#ifndef WEIR_CONTROL_HISTORY_H
#define WEIR_CONTROL_HISTORY_H

#include "spool/base/span.h"
#include "spool/base/status.h"

/* HISTORY_LATER: without waiting for the disk; for what a power failure may take (state), or of which there is much at once (then history_flush). A kill takes neither. */
enum history_when { HISTORY_NOW, HISTORY_LATER };

struct history_row {
	uint64_t n;        /* counts from 1 */
	uint64_t at_s;     /* since the epoch */
	char how[24];      /* file, fetch, accept, set, delete, revert */
	char by[80];       /* who: "name (uid N)", or the process */
	char source[1024]; /* where the aliases came from */
	char diff[600];    /* what changed: "+a ~b -c", as far as it fits */
	uint64_t copy;     /* which copy is live from here on */
	uint64_t hash;     /* XXH3 of its bytes */
	uint64_t entries, added, changed, removed;
	uint64_t passed_over; /* XXH3 of what the source said when an operator reverted; as long as it says that, the copy is live (0: none) */
};

/* The name of a file of a domain; path of 4500 bytes. */
const char *history_path(const char *dir, const char *domain, const char *name, char *path);
/* The row in force. ST_NOT_FOUND: nothing has happened yet. */
enum status history_last(const char *dir, const char *domain, struct history_row *ret);
/* The row with this number. */
enum status history_find(const char *dir, const char *domain, uint64_t n, struct history_row *ret);
typedef void history_fn(void *ctx, const struct history_row *row);
/* Every row, oldest first. */
enum status history_each(const char *dir, const char *domain, history_fn *fn, void *ctx);
/* The copy of a row; the caller frees *ret. */
enum status history_read(const char *dir, const char *domain, const struct history_row *row, char **ret, size_t *ret_n);
/* Adds a row, after a copy of text; fills row's n, at_s, copy and hash. Copies below the newest `keep` go, but for the live one.
 * row->n: which number it must get, ST_AGAIN when that is taken; 0: any. */
enum status history_add(const char *dir, const char *domain, struct history_row *row, struct span text, uint32_t keep, enum history_when when);
/* Waits until all that was written below dir is on the disk. */
enum status history_flush(const char *dir);
uint64_t history_hash(struct span text);
/* Replaces a file as a whole: another name, flush, rename, flush of the directory. */
enum status history_replace(const char *dir, const char *domain, const char *name, struct span bytes, enum history_when when);

#endif
