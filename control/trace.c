/* weirctl trace: a message's story from the ledger, the queue and, where they are given, log files. */
#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "control/ask.h"
#include "control/trace_internal.h"
#include "control/when.h"
#include "spool/base/clock.h"
#include "spool/mail/address.h"
#include "spool/store/store.h"

enum { LOGS_MAX = 16, WORKERS_MAX = 64 };

static void on_damage(void *ctx, const char *text)
{
	(void)ctx;
	fprintf(stderr, "weirctl: the ledger is damaged: %s\n", text);
}

/* ---- log files ---- */

static bool line_wanted(struct trace *t, const char *line)
{
	const char *id = strstr(line, " id=");
	uint64_t number;

	if (!id)
		return t->address.n && strcasestr(line, t->address.p);
	id += 4;
	if (msg_id_parse(span_of(id, strcspn(id, " \n")), &number) != ST_OK)
		return false;
	return trace_message(t, number) || number == t->id || (t->address.n && strcasestr(line, t->address.p));
}

static enum status print_log(struct trace *t, const char *path)
{
	FILE *f = strcmp(path, "-") == 0 ? stdin : fopen(path, "r");
	char *line = NULL;
	size_t cap = 0;
	ssize_t n;

	if (!f)
		return trail_errno(errno, "%s", path);
	while ((n = getline(&line, &cap, f)) > 0) {
		uint64_t at;
		char when[64];

		/* "ts=2026-11-21T05:00:00.123456Z ..." */
		snprintf(when, sizeof(when), "%.19s", n > 22 && strncmp(line, "ts=", 3) == 0 ? line + 3 : "");
		if (when_parse(when, &at) && at + NS_PER_S > t->since_ns && line_wanted(t, line))
			printf("  log: %s", line);
	}
	free(line);
	if (f != stdin)
		fclose(f);
	return ST_OK;
}

/* ---- the queue ---- */

static void print_queued(void *ctx, unsigned worker, struct span row)
{
	struct span k, v;
	char buf[2048];

	(void)ctx, (void)worker;
	printf("  now: ");
	while (row_next(&row, &k, &v, buf, sizeof(buf)))
		printf("%.*s=\"%.*s\" ", SPAN_FMT(k), SPAN_FMT(v));
	putchar('\n');
}

static void queue_json(void *ctx, unsigned worker, struct span row)
{
	(void)worker;
	json_array_append_new(ctx, json_stringn_nocheck(row.p, row.n));
}

static void ask_queue(const char *run_dir, uint64_t id, row_fn *fn, void *ctx)
{
	unsigned worker[WORKERS_MAX], n = ask_workers(run_dir, worker, WORKERS_MAX);
	char text[MSG_ID_TEXT + 1];
	struct logline request;

	msg_id_text(id, text);
	row_begin(&request);
	log_str(&request, "cmd", "queue.show");
	log_str(&request, "id", text);
	for (unsigned i = 0; i < n; i++)
		if (ask_worker(run_dir, worker[i], row_text(&request), fn, ctx) == ST_OK)
			return;
}

/* ---- what is shown ---- */

static void print_events(const struct trace *t, uint64_t id)
{
	for (size_t i = 0; i < t->nevents; i++)
		if (t->event[i].id == id)
			printf("  %s\n", t->event[i].text);
}

static void print_trace(struct trace *t, const char *run_dir)
{
	for (unsigned i = 0; i < t->nmessages; i++) {
		char id[MSG_ID_TEXT + 1];

		msg_id_text(t->message[i].id, id);
		printf("%s\n", id);
		print_events(t, t->message[i].id);
		ask_queue(run_dir, t->message[i].id, print_queued, NULL);
	}
	for (size_t i = 0; i < t->nevents; i++)
		if (!t->event[i].id) {
			puts("refused before there was a message");
			print_events(t, 0);
			break;
		}
	if (t->more)
		printf("(more than %d messages: the first are shown; --since makes it fewer)\n", MESSAGES_MAX);
}

static json_t *events_json(const struct trace *t, uint64_t id)
{
	json_t *list = json_array();

	for (size_t i = 0; i < t->nevents; i++) {
		struct span row = span_str(t->event[i].text), k, v;
		char buf[2048], key[64];
		json_t *o;

		if (t->event[i].id != id)
			continue;
		o = json_object();
		while (row_next(&row, &k, &v, buf, sizeof(buf))) {
			snprintf(key, sizeof(key), "%.*s", SPAN_FMT(k));
			json_object_set_new(o, key, json_stringn_nocheck(v.p, v.n));
		}
		json_array_append_new(list, o);
	}
	return list;
}

static void print_json(struct trace *t, const char *run_dir)
{
	json_t *o, *list = json_array();

	for (unsigned i = 0; i < t->nmessages; i++) {
		char id[MSG_ID_TEXT + 1];
		json_t *now = json_array();

		msg_id_text(t->message[i].id, id);
		ask_queue(run_dir, t->message[i].id, queue_json, now);
		json_array_append_new(list, json_pack("{s:s, s:o, s:o}", "id", id, "events", events_json(t, t->message[i].id), "queue", now));
	}
	o = json_pack("{s:o, s:o}", "messages", list, "rejected", events_json(t, 0));
	json_dumpf(o, stdout, JSON_INDENT(2));
	putchar('\n');
	json_decref(o);
}

/* ---- the command ---- */

static int usage(void)
{
	fputs("usage: weirctl trace ID|ADDRESS|MESSAGE-ID [--since TIME] [--log FILE ...] [--spool DIR] [--json]\n", stderr);
	return 2;
}

static void what_is_asked(struct trace *t, const char *text)
{
	if (!strchr(text, '@') && msg_id_parse(span_str(text), &t->id) == ST_OK)
		return;
	t->id = 0;
	t->address = span_str(text);
	t->is_ip = ip_parse(t->address, t->ip) == ST_OK;
}

static void on_lacking(void *ctx, const struct ledger_row *row)
{
	trace_row(ctx, row, true);
}

static void on_row(void *ctx, const struct ledger_row *row, bool repaired)
{
	trace_row(ctx, row, repaired);
}

/* What the ledger's files have; and what they lack while no worker runs. */
static enum status collect(struct trace *t, struct ledgers *l)
{
	enum status st = ledgers_read(l, false, &(struct ledger_sink){ .ctx = t, .row = on_row, .damage = on_damage });

	return st == ST_OK ? ledgers_queue(l, &(struct queue_sink){ .ctx = t, .lacking = on_lacking }) : st;
}

int cmd_trace(const char *run_dir, bool as_json, int argc, char **argv)
{
	static const struct option options[] = { { "since", 1, NULL, 's' }, { "log", 1, NULL, 'l' }, { "spool", 1, NULL, 'd' }, { 0 } };
	const char *log[LOGS_MAX], *spool = NULL;
	struct trace *t = calloc(1, sizeof(*t));
	struct ledgers l = { 0 };
	unsigned nlogs = 0;
	enum status st;
	int c, rc = 0;

	CHECK(t);
	optind = 1;
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 's' ? !when_parse(optarg, &t->since_ns) : c == '?' || (c == 'l' && nlogs == LOGS_MAX)) {
			free(t);
			return usage();
		}
		if (c == 'l')
			log[nlogs++] = optarg;
		if (c == 'd')
			spool = optarg;
	}
	if (optind + 1 != argc) {
		free(t);
		return usage();
	}
	what_is_asked(t, argv[optind]);
	st = ledgers_open(&l, run_dir, spool, t->since_ns);
	if (st == ST_OK)
		st = collect(t, &l);
	if (st == ST_OK && as_json)
		print_json(t, run_dir);
	else if (st == ST_OK)
		print_trace(t, run_dir);
	for (unsigned i = 0; i < nlogs && st == ST_OK && !as_json; i++)
		st = print_log(t, log[i]);
	if (st != ST_OK) {
		fprintf(stderr, "weirctl: %s\n", trail_text());
		rc = 1;
	} else if (!t->nevents) {
		fprintf(stderr, "weirctl: the ledger has nothing about %s\n", argv[optind]);
		rc = 1;
	}
	ledgers_close(&l);
	trace_free(t);
	return rc;
}
