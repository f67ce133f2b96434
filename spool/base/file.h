/* Whole files that people write: read at once, then taken line by line from memory (span_cut). */
#ifndef WEIR_SPOOL_BASE_FILE_H
#define WEIR_SPOOL_BASE_FILE_H

#include <stddef.h>
#include <sys/stat.h>
#include "spool/base/status.h"

/* Reads a regular file of at most max bytes; the caller frees *ret. ret_stat: what it was when it was opened; may be NULL.
 * ST_IO, ST_INVALID, ST_TOO_BIG, ST_NOMEM: the trail says why, without the path. */
enum status file_read(const char *path, size_t max, struct stat *ret_stat, char **ret, size_t *ret_n);

#endif
