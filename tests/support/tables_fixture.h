/* Tables for unit tests: a configuration and alias files in a temporary directory, compiled into memory. */
#ifndef WEIR_TESTS_SUPPORT_TABLES_FIXTURE_H
#define WEIR_TESTS_SUPPORT_TABLES_FIXTURE_H

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "control/schema.h"
#include "control/tables.h"
#include "tests/support/unit.h"

struct fixture {
	char dir[64];
	struct model model;
	struct snapshot snap;
	struct tables tables;
	char *bytes; /* of the generation */
	size_t n;
	char *errors;
};

static inline void fixture_file(const struct fixture *x, const char *name, const char *text)
{
	char path[128];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", x->dir, name);
	f = fopen(path, "w");
	assert_non_null(f);
	fputs(text, f);
	assert_int_equal(fclose(f), 0);
}

static inline void fixture_begin(struct fixture *x)
{
	*x = (struct fixture){ .dir = "/tmp/weir-tables-XXXXXX" };
	assert_non_null(mkdtemp(x->dir));
}

/* Files named in the configuration must be there. True: compiled into x->tables. */
static inline bool fixture_compile(struct fixture *x, const char *config)
{
	char path[128];
	struct tables_image image;
	size_t len;
	FILE *errors = open_memstream(&x->errors, &len);
	bool ok;

	fixture_file(x, "weir.yaml", config);
	snprintf(path, sizeof(path), "%s/weir.yaml", x->dir);
	ok = model_read(&x->model, path, x->dir, 1, errors);
	x->snap = (struct snapshot){ .h = (const struct snap_header *)(const void *)x->model.bytes, .bytes = x->model.n };
	if (ok && (ok = tables_compile(&x->snap, 42, errors, NULL, &image))) {
		tables_image_seal(&image, 7, 1);
		x->n = image.h.bytes;
		x->bytes = malloc(x->n);
		memcpy(x->bytes, &image.h, sizeof(image.h));
		for (size_t i = 0, at = sizeof(image.h); i < TABLES_SECTIONS; at += image.section[i++].n)
			memcpy(x->bytes + at, image.section[i].p, image.section[i].n);
		assert_ok(tables_check(x->bytes, x->n, "fixture", &x->tables));
		tables_image_free(&image);
	}
	fclose(errors);
	return ok;
}

/* Forgets what was compiled, keeps the directory. */
static inline void fixture_again(struct fixture *x)
{
	free(x->model.bytes);
	free(x->bytes);
	free(x->errors);
	x->model.bytes = x->bytes = x->errors = NULL;
}

static inline void fixture_end(struct fixture *x)
{
	char command[128];

	fixture_again(x);
	snprintf(command, sizeof(command), "rm -rf %s", x->dir);
	assert_int_equal(system(command), 0);
}

#endif
