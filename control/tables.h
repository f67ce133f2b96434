/* The table compiler: managed mail domains and their alias files become one generation (spool/store/tables.h).
 *
 * It reads the files that a configuration snapshot names, and the live copies of the domains that have no file (sources.h), and finds all their errors in one run, each with file and line. It writes nothing: generations.h does. */
#ifndef WEIR_CONTROL_TABLES_H
#define WEIR_CONTROL_TABLES_H

#include <stdio.h>
#include "control/progress.h"
#include "spool/store/tables.h"

enum { TABLES_SECTIONS = 7 };

/* A generation in the making: a header that is complete but for generation, made_wall_ns and checksum, and the sections in the order of the file. */
struct tables_image {
	struct tables_header h;
	struct {
		void *p;
		size_t n; /* bytes, a multiple of 8 */
	} section[TABLES_SECTIONS];
	unsigned errors;
};

/* False: errors were written to complain, and there is no image. seed: of the hashes, the live generation's when there is one. p may be NULL. */
bool tables_compile(const struct snapshot *s, uint64_t seed, FILE *complain, struct progress *p, struct tables_image *ret);
void tables_image_free(struct tables_image *image);
/* Gives the image its generation and checksum. */
void tables_image_seal(struct tables_image *image, uint64_t generation, uint64_t made_wall_ns);

#endif
