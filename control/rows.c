#include "control/rows.h"

#include <stdlib.h>
#include "control/ask.h"

enum { WORKERS_MAX = 64 };

static json_t *row_json(struct span row, int worker)
{
	json_t *o = json_object();
	struct span k, v;
	char buf[2048], key[64];

	if (worker >= 0)
		json_object_set_new(o, "worker", json_integer(worker));
	while (row_next(&row, &k, &v, buf, sizeof(buf))) {
		uint64_t n;

		snprintf(key, sizeof(key), "%.*s", SPAN_FMT(k));
		if (span_u64(v, INT64_MAX, &n) && (v.n == 1 || v.p[0] != '0') && strcmp(key, "id") != 0)
			json_object_set_new(o, key, json_integer((json_int_t)n));
		else
			json_object_set_new(o, key, json_stringn_nocheck(v.p, v.n));
	}
	return o;
}

static void on_row(void *ctx, unsigned worker, struct span row)
{
	struct rows *r = ctx;

	if (r->as_json)
		json_array_append_new(r->json, row_json(row, (int)worker));
	else
		r->print(row, r->n);
	r->n++;
}

bool rows_order(const char *run_dir, bool as_json, const char *word, struct logline *row)
{
	char request[16384], text[65536];
	enum status st;

	if (row->o.over) {
		fprintf(stderr, "weirctl: that is too long for one command\n");
		return false;
	}
	snprintf(request, sizeof(request), "%s %.*s\n", word, SPAN_FMT(row_text(row)));
	st = ask_control(run_dir, request, text, sizeof(text));
	if (st != ST_OK && st != ST_INVALID) {
		trail_failed();
		return false;
	}
	if (as_json)
		dump_json(json_pack("{s:b, s:s}", "ok", st == ST_OK, "text", text));
	else
		fputs(text, st == ST_OK ? stdout : stderr);
	return st == ST_OK;
}

int trail_failed(void)
{
	fprintf(stderr, "weirctl: %s\n", trail_text());
	return 1;
}

void dump_json(json_t *j)
{
	json_dumpf(j, stdout, JSON_INDENT(2));
	putchar('\n');
	json_decref(j);
}

int rows_ask(const char *run_dir, struct logline *request, struct rows *r, bool first_found)
{
	unsigned worker[WORKERS_MAX], n = ask_workers(run_dir, worker, WORKERS_MAX);
	int answered = 0;

	if (r->as_json)
		r->json = json_array();
	for (unsigned i = 0; i < n; i++)
		if (ask_worker(run_dir, worker[i], row_text(request), on_row, r) == ST_OK) {
			answered++;
			if (first_found)
				break;
		}
	if (r->as_json)
		dump_json(r->json);
	if (!n && trail(ST_NOT_FOUND, "no dataplane worker runs in %s", run_dir) != ST_OK)
		return 0;
	return answered;
}

void rows_print(struct span row, unsigned n)
{
	struct span k, v;
	char buf[1024];

	(void)n;
	printf("  ");
	while (row_next(&row, &k, &v, buf, sizeof(buf)))
		printf("%.*s=%.*s ", SPAN_FMT(k), SPAN_FMT(v));
	putchar('\n');
}
