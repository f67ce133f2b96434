#include "control/nodes_status.h"

#include <stdio.h>
#include <stdlib.h>
#include "control/nodes.h"
#include "control/when.h"
#include "spool/base/clock.h"

enum { NODES_MAX = 256 };

struct rows {
	struct node_row row[NODES_MAX];
	unsigned n;
};

static void keep(void *ctx, const struct node_row *row)
{
	struct rows *r = ctx;

	if (r->n < NODES_MAX)
		r->row[r->n++] = *row;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct node_row *)a)->name, ((const struct node_row *)b)->name);
}

static struct rows *read_rows(const char *run_dir)
{
	struct rows *r = calloc(1, sizeof(*r));
	char path[4200];
	struct snapshot s;

	CHECK(r);
	snprintf(path, sizeof(path), "%s/snapshot", run_dir);
	if (snapshot_open(path, &s) != ST_OK)
		return r;
	if (nodes_each(&s, keep, r) == ST_OK)
		qsort(r->row, r->n, sizeof(r->row[0]), by_name);
	snapshot_close(&s);
	return r;
}

void nodes_print(const char *run_dir)
{
	struct rows *r = read_rows(run_dir);
	const struct node_row *first = NULL; /* of those that speak */
	unsigned others = 0;

	if (r->n > 1)
		printf("Nodes\n");
	for (unsigned i = 0; r->n > 1 && i < r->n; i++) {
		const struct node_row *row = &r->row[i];

		printf("  %-20s tables %016llx, generation %llu of %s", row->name, (unsigned long long)row->digest, (unsigned long long)row->generation,
			when_text(row->made_s * NS_PER_S));
		if (row->silent_s > NODE_SILENT_S)
			printf("  SILENT for %llu s", (unsigned long long)row->silent_s);
		putchar('\n');
		if (row->silent_s > NODE_SILENT_S)
			continue;
		first = first ? first : row;
		others += row->digest != first->digest;
	}
	if (others)
		printf("  ! the tables of these nodes are not the same\n");
	free(r);
}

json_t *nodes_json(const char *run_dir)
{
	struct rows *r = read_rows(run_dir);
	json_t *list = json_array();

	for (unsigned i = 0; i < r->n; i++) {
		char digest[20];

		snprintf(digest, sizeof(digest), "%016llx", (unsigned long long)r->row[i].digest);
		json_array_append_new(list, json_pack("{s:s, s:s, s:I, s:I, s:I}", "node", r->row[i].name, "tables", digest, "generation",
			(json_int_t)r->row[i].generation, "made", (json_int_t)r->row[i].made_s, "silent_s", (json_int_t)r->row[i].silent_s));
	}
	free(r);
	return list;
}
