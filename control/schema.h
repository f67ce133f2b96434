/* The configuration: the schema as one table, and the only parser and checker.
 *
 * A key is one row: name, type, range, default, when a change takes effect, and its prose; from it come parser, checker, weirctl config explain and the manual page.
 * All errors of a file are found in one run, each with file, line and what would be right. */
#ifndef WEIR_CONTROL_SCHEMA_H
#define WEIR_CONTROL_SCHEMA_H

#include <stdio.h>
#include "spool/store/snapshot.h"

enum schema_type { T_STRING, T_U32, T_SIZE, T_DURATION, T_RATE, T_ENUM, T_BOOL, T_TABLE };
enum schema_reload { RELOAD_LIVE, RELOAD_RESTART };

struct schema_row {
	const char *key;
	enum schema_type type;
	size_t off;             /* of its member in struct snap_settings */
	const char *def;        /* as it would be written */
	uint64_t min, max;      /* T_U32; T_SIZE and T_DURATION in bytes and nanoseconds; max 0: none */
	const char *const *words; /* T_ENUM */
	enum schema_reload reload;
	const char *prose;
};

extern const struct schema_row schema[];
extern const size_t schema_rows;

enum { SCHEMA_ROWS_MAX = 256 };

/* A configuration that was read: the snapshot file's bytes in the making. */
struct model {
	char *bytes;
	size_t n, cap;
	unsigned errors;
	FILE *complain;         /* where errors go, one a line */
	const char *file;
	struct snap_route *routes; /* of mail domains, until they are merged */
	size_t nroutes;
	struct snap_mail_domain *moved; /* addresses that have moved, until they are merged */
	size_t nmoved;
	uint32_t row_line[SCHEMA_ROWS_MAX]; /* where the file has a key; 0: it does not */
};

/* Reads a file (NULL: all defaults) into a snapshot with this generation. False: errors were written to complain. The caller frees m->bytes. */
bool model_read(struct model *m, const char *file, const char *run_dir, uint64_t generation, FILE *complain);
/* The text of a key's value in a snapshot. */
void schema_value(const struct snapshot *s, const struct schema_row *row, struct out *o);
const struct schema_row *schema_find(struct span key);
/* Writes a snapshot to <run>/snapshot: temporary file, fsync, rename. */
enum status model_publish(struct model *m, const char *run_dir);

#endif
