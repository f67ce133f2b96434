#include "control/verifyctl.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include "control/ask.h"
#include "spool/base/log.h"

enum { WORKERS_MAX = 64, VALUE_MAX = 1200 };

struct shown {
	json_t *json; /* NULL: as text */
	bool redis;   /* what Redis has was said by a worker already */
};

static void print_row(unsigned worker, bool redis, struct span row)
{
	char what[VALUE_MAX], known[VALUE_MAX], age[VALUE_MAX], vain[VALUE_MAX], reply[VALUE_MAX];

	if (redis)
		printf("redis     ");
	else
		printf("worker %-2u ", worker);
	if (*row_value(row, "what", what, sizeof(what)))
		printf(" %s:", what);
	printf(" %s", row_value(row, "known", known, sizeof(known)));
	if (*row_value(row, "age_s", age, sizeof(age)))
		printf(", for %s s", age);
	if (*row_value(row, "asked_in_vain_s", vain, sizeof(vain)))
		printf(", asked in vain %s s ago", vain);
	if (*row_value(row, "reply", reply, sizeof(reply)))
		printf(": %s", reply);
	putchar('\n');
}

static void on_row(void *ctx, unsigned worker, struct span row)
{
	struct shown *s = ctx;
	char where[VALUE_MAX], buf[VALUE_MAX];
	bool redis = strcmp(row_value(row, "where", where, sizeof(where)), "redis") == 0;
	struct span k, v;
	json_t *o;

	if (redis && s->redis)
		return;
	if (!s->json) {
		print_row(worker, redis, row);
		return;
	}
	o = json_object();
	if (!redis)
		json_object_set_new(o, "worker", json_integer(worker));
	while (row_next(&row, &k, &v, buf, sizeof(buf))) {
		char key[32];
		uint64_t n;

		snprintf(key, sizeof(key), "%.*s", SPAN_FMT(k));
		json_object_set_new(o, key, span_u64(v, INT64_MAX, &n) ? json_integer((json_int_t)n) : json_stringn_nocheck(v.p, v.n));
	}
	json_array_append_new(s->json, o);
}

int verify_command(const char *run_dir, bool json, int argc, char **argv)
{
	struct shown s = { .json = json ? json_array() : NULL };
	unsigned worker[WORKERS_MAX], n, answered = 0;
	struct logline request;

	if (argc != 3 || (strcmp(argv[1], "show") != 0 && strcmp(argv[1], "forget") != 0)) {
		json_decref(s.json);
		fputs("usage: weirctl verify show|forget ADDRESS|DOMAIN\n", stderr);
		return 2;
	}
	n = ask_workers(run_dir, worker, WORKERS_MAX);
	row_begin(&request);
	log_str(&request, "cmd", strcmp(argv[1], "show") == 0 ? "verify.show" : "verify.forget");
	log_str(&request, "what", argv[2]);
	for (unsigned i = 0; i < n; i++) {
		answered += ask_worker(run_dir, worker[i], row_text(&request), on_row, &s) == ST_OK;
		s.redis = answered > 0;
	}
	if (json) {
		json_dumpf(s.json, stdout, JSON_INDENT(2));
		putchar('\n');
		json_decref(s.json);
	}
	if (!answered)
		fprintf(stderr, "weirctl: %s\n", n ? trail_text() : "no dataplane worker runs here");
	return answered ? 0 : 1;
}
