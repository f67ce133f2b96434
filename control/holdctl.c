#include "control/holdctl.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include "control/ask.h"
#include "spool/base/log.h"

enum { WORKERS_MAX = 64, VALUE_MAX = 512 };

/* One route on hold, of all workers together. */
struct hold {
	char route[256], state[300];
	uint64_t messages, bytes, oldest_s, line;
};

struct holds_seen {
	struct hold *hold;
	size_t n;
	uint64_t room; /* bytes that the spool can still take */
	char dir[VALUE_MAX];
};

static uint64_t number(struct span row, const char *key)
{
	char text[VALUE_MAX];
	uint64_t v = 0;

	span_u64(span_str(row_value(row, key, text, sizeof(text))), UINT64_MAX, &v);
	return v;
}

static struct hold *find(struct holds_seen *s, const char *route)
{
	struct hold *h;

	for (size_t i = 0; i < s->n; i++)
		if (strcmp(s->hold[i].route, route) == 0)
			return &s->hold[i];
	s->hold = realloc(s->hold, (s->n + 1) * sizeof(*h));
	CHECK(s->hold);
	h = &s->hold[s->n++];
	*h = (struct hold){ 0 };
	snprintf(h->route, sizeof(h->route), "%s", route);
	return h;
}

static void on_hold_row(void *ctx, unsigned worker, struct span row)
{
	struct holds_seen *s = ctx;
	char text[VALUE_MAX];
	struct hold *h = find(s, row_value(row, "route", text, sizeof(text)));
	uint64_t oldest = number(row, "oldest_s");

	(void)worker;
	snprintf(h->state, sizeof(h->state), "%s", row_value(row, "state", text, sizeof(text)));
	h->messages += number(row, "messages");
	h->bytes += number(row, "bytes");
	h->oldest_s = oldest > h->oldest_s ? oldest : h->oldest_s;
	h->line = number(row, "config_line");
}

/* What a partition can still take: segments that are free, and those that it may still make. */
static void on_status_row(void *ctx, unsigned worker, struct span row)
{
	struct holds_seen *s = ctx;
	char kind[VALUE_MAX];

	(void)worker;
	if (strcmp(row_value(row, "kind", kind, sizeof(kind)), "spool") != 0)
		return;
	s->room += (number(row, "segments_free") + number(row, "segments_max") - number(row, "segments")) * number(row, "segment_bytes");
	row_value(row, "dir", s->dir, sizeof(s->dir));
}

static void ask(const char *run_dir, const char *cmd, row_fn *fn, struct holds_seen *s)
{
	unsigned worker[WORKERS_MAX], n = ask_workers(run_dir, worker, WORKERS_MAX);
	struct logline request;

	row_begin(&request);
	log_str(&request, "cmd", cmd);
	for (unsigned i = 0; i < n; i++)
		if (ask_worker(run_dir, worker[i], row_text(&request), fn, s) != ST_OK)
			fprintf(stderr, "weirctl: worker %u does not answer: %s\n", worker[i], trail_text());
}

static void look(const char *run_dir, struct holds_seen *s)
{
	struct statvfs fs;
	uint64_t disk;

	*s = (struct holds_seen){ 0 };
	ask(run_dir, "holds", on_hold_row, s);
	if (!s->n)
		return;
	ask(run_dir, "status", on_status_row, s);
	if (*s->dir && statvfs(s->dir, &fs) == 0) {
		disk = (uint64_t)fs.f_bavail * fs.f_frsize;
		s->room = disk < s->room ? disk : s->room;
	}
}

/* By what came since the oldest of it: bytes a day; 0: nothing can be said yet. */
static uint64_t rate(const struct hold *h)
{
	return h->oldest_s ? (uint64_t)((double)h->bytes * 86400.0 / (double)h->oldest_s) : 0;
}

/* The spool is everybody's: all holds together fill it. -1: never, or nothing can be said yet. */
static double full_in_days(const struct holds_seen *s)
{
	double a_day = 0;

	for (size_t i = 0; i < s->n; i++)
		a_day += (double)rate(&s->hold[i]);
	return a_day > 0 ? (double)s->room / a_day : -1;
}

static void print_one(const struct hold *h)
{
	printf("  %s  %s  (configuration line %llu)\n    %llu messages, %.1f MiB", h->route, h->state, (unsigned long long)h->line,
		(unsigned long long)h->messages, (double)h->bytes / 1048576);
	if (rate(h))
		printf("; %.1f MiB a day, by the last %.1f hours", (double)rate(h) / 1048576, (double)h->oldest_s / 3600);
	putchar('\n');
}

static void print_forecast(const struct holds_seen *s)
{
	double days = full_in_days(s);

	printf("  the spool takes %.1f GiB more", (double)s->room / 1073741824);
	if (days >= 0)
		printf(": at the rate of all holds it is full in %.1f days\n", days);
	else
		printf("; nothing has come yet to reckon from\n");
}

static json_t *hold_json(const struct holds_seen *s, const struct hold *h)
{
	return json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:f, s:I}", "route", h->route, "state", h->state, "messages", (json_int_t)h->messages,
		"bytes", (json_int_t)h->bytes, "bytes_a_day", (json_int_t)rate(h), "oldest_s", (json_int_t)h->oldest_s, "room", (json_int_t)s->room,
		"full_in_days", full_in_days(s), "config_line", (json_int_t)h->line);
}

static int show(const char *run_dir, bool as_json, const char *route)
{
	struct holds_seen s;
	json_t *j = as_json ? json_array() : NULL;
	unsigned shown = 0;

	look(run_dir, &s);
	for (size_t i = 0; i < s.n; i++) {
		if (route && strcmp(route, s.hold[i].route) != 0)
			continue;
		shown++;
		if (j)
			json_array_append_new(j, hold_json(&s, &s.hold[i]));
		else
			print_one(&s.hold[i]);
	}
	if (j) {
		json_dumpf(j, stdout, JSON_INDENT(2));
		putchar('\n');
		json_decref(j);
	} else if (shown) {
		print_forecast(&s);
	} else {
		puts(route ? "This route is not on hold." : "No route is on hold.");
	}
	free(s.hold);
	return route && !shown ? 1 : 0;
}

void holds_status(const char *run_dir)
{
	struct holds_seen s;

	look(run_dir, &s);
	if (s.n)
		puts("On hold");
	for (size_t i = 0; i < s.n; i++)
		print_one(&s.hold[i]);
	if (s.n)
		print_forecast(&s);
	free(s.hold);
}

static int release(const char *run_dir, const char *route)
{
	char text[65536] = "", order[400];
	enum status st;

	snprintf(order, sizeof(order), "hold release %.300s\n", route);
	st = ask_control(run_dir, order, text, sizeof(text));
	if (st == ST_OK) {
		fputs(text, stderr);
		printf("The hold of %s is over; what waited is tried within seconds.\n", route);
		return 0;
	}
	if (st == ST_INVALID)
		fprintf(stderr, "%s", text);
	else
		fprintf(stderr, "weirctl: %s\n", trail_text());
	return 1;
}

int hold_command(const char *run_dir, bool as_json, int argc, char **argv)
{
	const char *verb = argc > 1 ? argv[1] : "";

	if (strcmp(verb, "list") == 0 && argc == 2)
		return show(run_dir, as_json, NULL);
	if (strcmp(verb, "show") == 0 && argc == 3)
		return show(run_dir, as_json, argv[2]);
	if (strcmp(verb, "release") == 0 && argc == 3 && !strpbrk(argv[2], " \n"))
		return release(run_dir, argv[2]);
	return -1;
}
