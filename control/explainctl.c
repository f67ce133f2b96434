#include "control/explainctl.h"

#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include "control/ask.h"
#include "control/model.h"
#include "spool/base/log.h"
#include "spool/store/command.h"
#include "spool/store/snapshot.h"

/* DNS, the rate, a destination and DNS again: the worker gives each its own limit. */
enum { WORKERS_MAX = 64, VALUE_MAX = 2048, LIMIT_S = 180 };

struct answer {
	json_t *json; /* NULL: as text */
	char file[VALUE_MAX]; /* the configuration */
	int outcome;
};

/* ---- rows ---- */

static void print_line(const struct answer *a, struct span row)
{
	char line[VALUE_MAX];

	if (*row_value(row, "config_line", line, sizeof(line)))
		printf("  (%s:%s)\n", *a->file ? a->file : "configuration", line);
	else
		puts("  (default)");
}

static void print_client(const struct answer *a, struct span row)
{
	char client[VALUE_MAX], class[VALUE_MAX], user[VALUE_MAX];

	if (*row_value(row, "client", client, sizeof(client)))
		printf("client %s", client);
	else
		printf("any client from outside");
	if (*row_value(row, "user", user, sizeof(user)))
		printf(", user %s", user);
	printf(": class %s", row_value(row, "class", class, sizeof(class)));
	print_line(a, row);
}

static void print_decision(const struct answer *a, struct span row)
{
	char stage[VALUE_MAX], rule[VALUE_MAX], code[VALUE_MAX], mode[VALUE_MAX], does[VALUE_MAX], reply[VALUE_MAX], what[VALUE_MAX];

	printf("%-4s  %-3s  %-20s  mode %-7s  %s", row_value(row, "stage", stage, sizeof(stage)), row_value(row, "rule", rule, sizeof(rule)),
		row_value(row, "code", code, sizeof(code)), row_value(row, "mode", mode, sizeof(mode)), row_value(row, "does", does, sizeof(does)));
	if (*row_value(row, "reply", reply, sizeof(reply)))
		printf(": %s", reply);
	if (*row_value(row, "what", what, sizeof(what)))
		printf("; %s", what);
	print_line(a, row);
}

static void print_end(struct span row, const char *outcome)
{
	char reply[VALUE_MAX], code[VALUE_MAX];

	printf("%s", outcome);
	if (*row_value(row, "reply", reply, sizeof(reply)))
		printf(": %s", reply);
	if (*row_value(row, "code", code, sizeof(code)))
		printf("  (weirctl explain-code %s)", code);
	putchar('\n');
}

static void print_row(const struct answer *a, const char *kind, struct span row)
{
	char stage[VALUE_MAX], reply[VALUE_MAX], outcome[VALUE_MAX];

	if (strcmp(kind, "client") == 0)
		print_client(a, row);
	else if (strcmp(kind, "decision") == 0)
		print_decision(a, row);
	else if (strcmp(kind, "outcome") == 0)
		print_end(row, row_value(row, "outcome", outcome, sizeof(outcome)));
	else
		printf("%-4s  the protocol: %s\n", row_value(row, "stage", stage, sizeof(stage)), row_value(row, "reply", reply, sizeof(reply)));
}

/* As an object; lines with the file that they are of. */
static json_t *row_json(const struct answer *a, struct span row)
{
	json_t *o = json_object();
	char buf[VALUE_MAX], key[32];
	struct span k, v;
	uint64_t n;

	while (row_next(&row, &k, &v, buf, sizeof(buf))) {
		snprintf(key, sizeof(key), "%.*s", SPAN_FMT(k));
		json_object_set_new(o, key, span_u64(v, INT64_MAX, &n) ? json_integer((json_int_t)n) : json_stringn_nocheck(v.p, v.n));
	}
	if (json_object_get(o, "config_line"))
		json_object_set_new(o, "config_file", json_string_nocheck(a->file));
	return o;
}

static void on_row(void *ctx, unsigned worker, struct span row)
{
	struct answer *a = ctx;
	char kind[VALUE_MAX], outcome[VALUE_MAX];

	(void)worker;
	row_value(row, "kind", kind, sizeof(kind));
	if (strcmp(kind, "outcome") == 0) {
		row_value(row, "outcome", outcome, sizeof(outcome));
		a->outcome = strcmp(outcome, "refused") == 0 ? EXPLAIN_REFUSED : strcmp(outcome, "deferred") == 0 ? EXPLAIN_DEFERRED : EXPLAIN_ACCEPTED;
	}
	if (a->json)
		json_array_append_new(a->json, row_json(a, row));
	else
		print_row(a, kind, row);
}

/* ---- the question ---- */

static void find_file(struct answer *a, const char *run_dir)
{
	struct snapshot s;
	char path[4096];

	snprintf(path, sizeof(path), "%s/snapshot", run_dir);
	if (snapshot_open(path, &s) != ST_OK)
		return;
	snprintf(a->file, sizeof(a->file), "%s", snap_cstr(&s, s.h->settings.config_file));
	snapshot_close(&s);
}

static int ask(const char *run_dir, bool as_json, struct span request)
{
	unsigned worker[WORKERS_MAX], n = ask_workers(run_dir, worker, WORKERS_MAX);
	struct answer a = { .json = as_json ? json_array() : NULL, .outcome = EXPLAIN_TROUBLE };
	enum status st = ST_NOT_FOUND;

	find_file(&a, run_dir);
	for (unsigned i = 0; i < n && st == ST_NOT_FOUND; i++)
		st = ask_worker_within(run_dir, worker[i], request, LIMIT_S, on_row, &a);
	if (a.json && st == ST_OK) {
		json_dumpf(a.json, stdout, JSON_INDENT(2));
		putchar('\n');
	}
	json_decref(a.json);
	if (st != ST_OK)
		fprintf(stderr, "weirctl: %s\n", n ? trail_text() : "no dataplane worker runs");
	return st == ST_OK ? a.outcome : EXPLAIN_TROUBLE;
}

struct question {
	const char *client, *from, *to, *helo, *user;
	uint64_t size;
	struct out header;
};

static bool options(int argc, char **argv, struct question *q)
{
	static const struct option known[] = { { "client", required_argument, NULL, 'c' }, { "from", required_argument, NULL, 'f' },
		{ "to", required_argument, NULL, 't' }, { "helo", required_argument, NULL, 'h' }, { "user", required_argument, NULL, 'u' },
		{ "header", required_argument, NULL, 'H' },
		{ "size", required_argument, NULL, 's' }, { 0 } };
	int opt;

	optind = 1;
	while ((opt = getopt_long(argc, argv, "", known, NULL)) != -1)
		switch (opt) {
		case 'c':
			q->client = optarg;
			break;
		case 'f':
			q->from = optarg;
			break;
		case 't':
			q->to = optarg;
			break;
		case 'h':
			q->helo = optarg;
			break;
		case 'u':
			q->user = optarg;
			break;
		case 'H':
			out_str(&q->header, optarg);
			out_str(&q->header, "\n");
			break;
		case 's':
			if (!parse_size(optarg, &q->size) || !q->size)
				return false;
			break;
		default:
			return false;
		}
	if (strcmp(argv[0], "explain") == 0)
		return optind == argc && q->client && q->from && q->to;
	if (optind + 1 != argc || q->from || q->to || q->header.n || q->size)
		return false;
	*(strcmp(argv[0], "check-sender") == 0 ? &q->from : &q->to) = argv[optind];
	return true;
}

static void add(struct logline *request, const char *key, const char *value)
{
	if (value)
		log_str(request, key, value);
}

int explain_command(const char *run_dir, bool as_json, int argc, char **argv)
{
	char header[COMMAND_REQUEST / 2], text[COMMAND_REQUEST];
	struct question q = { .header = out_of(header, sizeof(header)) };
	struct out o = out_of(text, sizeof(text));
	struct logline request;

	if (!options(argc, argv, &q))
		return EXPLAIN_USAGE;
	row_begin(&request);
	log_str(&request, "cmd", "explain");
	add(&request, "client", q.client);
	add(&request, "from", q.from);
	add(&request, "to", q.to);
	add(&request, "helo", q.helo);
	add(&request, "user", q.user);
	if (q.size)
		log_u64(&request, "size", q.size);
	out_add(&o, row_text(&request));
	out_str(&o, "\n");
	out_add(&o, out_span(&q.header));
	if (o.over || q.header.over) {
		fputs("weirctl: that is more than a worker can be asked\n", stderr);
		return EXPLAIN_TROUBLE;
	}
	return ask(run_dir, as_json, out_span(&o));
}
