#include "control/tls_reports.h"

#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "spool/base/clock.h"
#include "spool/base/log.h"
#include "spool/store/snapshot.h"

enum { DAYS_KEPT = 60, DAYS_MAX = 100, EVERY_S = 5 };

/* A day of which there are counts. */
struct day {
	char name[16];  /* "20261121" */
	uint64_t bytes; /* of its counts, all workers; when they grow the report is made anew */
};

static struct day known[DAYS_MAX];
static unsigned nknown;

/* ---- one row of the counts (dataplane/tls_report.h) ---- */

struct count_row {
	char n[24], type[32], domain[300], mx[300], result[64], reason[200], from[64], to[64], policy[2048];
};

static void read_row(struct span row, struct count_row *r)
{
	const struct {
		const char *key;
		char *to;
		size_t cap;
	} member[] = { { "n", r->n, sizeof(r->n) }, { "type", r->type, sizeof(r->type) }, { "domain", r->domain, sizeof(r->domain) },
		{ "mx", r->mx, sizeof(r->mx) }, { "result", r->result, sizeof(r->result) }, { "reason", r->reason, sizeof(r->reason) },
		{ "from", r->from, sizeof(r->from) }, { "to", r->to, sizeof(r->to) }, { "policy", r->policy, sizeof(r->policy) } };
	struct span k, v;
	char buf[2048];

	memset(r, 0, sizeof(*r));
	while (row_next(&row, &k, &v, buf, sizeof(buf)))
		for (size_t i = 0; i < sizeof(member) / sizeof(member[0]); i++)
			if (span_eq(k, span_str(member[i].key)) && v.n < member[i].cap)
				memcpy(member[i].to, v.p, v.n);
}

/* ---- one report ---- */

/* The policy object (RFC 8460 4.4) of a row; made at its first. */
static json_t *policy_of(json_t *all, const char *type, const char *domain, struct span lines)
{
	char key[2300];
	json_t *p, *strings, *mx;

	snprintf(key, sizeof(key), "%s %s %.*s", type, domain, SPAN_FMT(lines));
	p = json_object_get(all, key);
	if (p)
		return p;
	strings = json_array();
	mx = json_array();
	while (lines.n) {
		struct span line = span_cut(&lines, '\n');

		if (line.n)
			json_array_append_new(strings, json_stringn(line.p, line.n));
		if (line.n > 4 && memcmp(line.p, "mx: ", 4) == 0)
			json_array_append_new(mx, json_stringn(line.p + 4, line.n - 4));
	}
	p = json_pack("{s:{s:s, s:s}, s:{s:i, s:i}}", "policy", "policy-type", type, "policy-domain", domain, "summary",
		"total-successful-session-count", 0, "total-failure-session-count", 0);
	if (p && json_array_size(strings))
		json_object_set(json_object_get(p, "policy"), "policy-string", strings);
	if (p && json_array_size(mx))
		json_object_set(json_object_get(p, "policy"), "mx-host", mx);
	json_decref(strings);
	json_decref(mx);
	return json_object_set_new(all, key, p) == 0 ? p : NULL;
}

static void add_to(json_t *o, const char *key, uint64_t n)
{
	json_object_set_new(o, key, json_integer(json_integer_value(json_object_get(o, key)) + (json_int_t)n));
}

static void set_text(json_t *o, const char *key, const char *value)
{
	if (*value)
		json_object_set_new(o, key, json_string(value));
}

/* Equal details are one, with their sum. */
static void add_failure(json_t *policy, const struct count_row *r, uint64_t n)
{
	json_t *list = json_object_get(policy, "failure-details"), *d = json_pack("{s:s}", "result-type", r->result), *have;
	size_t i;

	set_text(d, "sending-mta-ip", r->from);
	set_text(d, "receiving-mx-hostname", r->mx);
	set_text(d, "receiving-ip", r->to);
	set_text(d, "failure-reason-code", r->reason);
	if (!list)
		json_object_set_new(policy, "failure-details", list = json_array());
	json_array_foreach(list, i, have) {
		json_t *count = json_incref(json_object_get(have, "failed-session-count"));
		bool same;

		json_object_del(have, "failed-session-count");
		same = json_equal(have, d);
		json_object_set_new(have, "failed-session-count", json_integer(json_integer_value(count) + (same ? (json_int_t)n : 0)));
		json_decref(count);
		if (same) {
			json_decref(d);
			return;
		}
	}
	json_object_set_new(d, "failed-session-count", json_integer((json_int_t)n));
	json_array_append_new(list, d);
}

static void add_row(json_t *all, struct span row)
{
	struct count_row r;
	uint64_t n;
	json_t *p;

	read_row(row, &r);
	if (!*r.type || !*r.domain || !*r.result || !span_u64(span_str(r.n), 1ull << 40, &n))
		return;
	p = policy_of(all, r.type, r.domain, span_str(r.policy));
	if (!p)
		return; /* not UTF-8 */
	if (strcmp(r.result, "success") == 0) {
		add_to(json_object_get(p, "summary"), "total-successful-session-count", n);
		return;
	}
	add_to(json_object_get(p, "summary"), "total-failure-session-count", n);
	add_failure(p, &r, n);
}

static void add_file(json_t *all, const char *path)
{
	FILE *f = fopen(path, "re");
	char *line = NULL;
	size_t cap = 0;
	ssize_t n;

	while (f && (n = getline(&line, &cap, f)) > 0)
		if (line[n - 1] == '\n') /* one without is being written */
			add_row(all, span_of(line, (size_t)n - 1));
	free(line);
	if (f)
		fclose(f);
}

static json_t *head(const char *run_dir, const char *day)
{
	char path[4200], start[32], end[32], id[300];
	struct snapshot s;
	json_t *o;

	snprintf(path, sizeof(path), "%s/snapshot", run_dir);
	if (snapshot_open(path, &s) != ST_OK)
		return NULL;
	snprintf(start, sizeof(start), "%.4s-%.2s-%.2sT00:00:00Z", day, day + 4, day + 6);
	snprintf(end, sizeof(end), "%.4s-%.2s-%.2sT23:59:59Z", day, day + 4, day + 6);
	snprintf(id, sizeof(id), "%s@%.255s", day, snap_cstr(&s, s.h->settings.hostname));
	o = json_pack("{s:s, s:{s:s, s:s}, s:s, s:s, s:[]}", "organization-name", snap_cstr(&s, s.h->settings.hostname), "date-range",
		"start-datetime", start, "end-datetime", end, "contact-info", snap_cstr(&s, s.h->settings.postmaster), "report-id", id,
		"policies");
	snapshot_close(&s);
	return o;
}

static void write_report(const char *dir, const char *day, json_t *report)
{
	char path[4400], temp[4400];

	snprintf(path, sizeof(path), "%s/report-%s.json", dir, day);
	snprintf(temp, sizeof(temp), "%s/report-%s.new", dir, day);
	if (json_dump_file(report, temp, JSON_INDENT(2)) != 0 || rename(temp, path) < 0)
		log_msg(LOG_LVL_WARN, "tls-report", "%s: %s", path, strerror(errno));
}

/* ---- days ---- */

typedef void file_fn(void *ctx, const char *path, const char *day);

/* Every file "PREFIX-DAY..." of the directory. */
static void each_file(const char *dir, const char *prefix, file_fn *fn, void *ctx)
{
	DIR *d = opendir(dir);
	struct dirent *e;
	size_t n = strlen(prefix);

	while (d && (e = readdir(d))) {
		char path[4600], day[9];

		if (strncmp(e->d_name, prefix, n) != 0 || strspn(e->d_name + n, "0123456789") != 8)
			continue;
		snprintf(day, sizeof(day), "%.8s", e->d_name + n);
		snprintf(path, sizeof(path), "%s/%s", dir, e->d_name);
		fn(ctx, path, day);
	}
	if (d)
		closedir(d);
}

struct days {
	struct day day[DAYS_MAX];
	unsigned n;
};

static void sum_up(void *ctx, const char *path, const char *name)
{
	struct days *all = ctx;
	struct stat st;
	unsigned i = 0;

	while (i < all->n && strcmp(all->day[i].name, name) != 0)
		i++;
	if (i == DAYS_MAX || stat(path, &st) < 0)
		return;
	if (i == all->n) {
		all->n++;
		all->day[i] = (struct day){ 0 };
		snprintf(all->day[i].name, sizeof(all->day[i].name), "%s", name);
	}
	all->day[i].bytes += (uint64_t)st.st_size;
}

struct making {
	const char *day;
	json_t *all;
};

static void add_if_of_day(void *ctx, const char *path, const char *day)
{
	struct making *m = ctx;

	if (strcmp(day, m->day) == 0)
		add_file(m->all, path);
}

static void make_report(const char *run_dir, const char *dir, const char *day)
{
	struct making m = { .day = day, .all = json_object() };
	json_t *report = head(run_dir, day), *p;
	const char *key;

	if (report) {
		each_file(dir, "counts-", add_if_of_day, &m);
		json_object_foreach(m.all, key, p)
			json_array_append(json_object_get(report, "policies"), p);
		write_report(dir, day, report);
	}
	json_decref(m.all);
	json_decref(report);
}

static bool grew(const struct day *d)
{
	for (unsigned i = 0; i < nknown; i++)
		if (strcmp(known[i].name, d->name) == 0)
			return known[i].bytes != d->bytes;
	return true;
}

static void remove_old(void *ctx, const char *path, const char *day)
{
	if (strcmp(day, ctx) < 0)
		unlink(path);
}

void tls_reports_turn(const char *run_dir)
{
	static uint64_t next_ns;
	struct days all = { .n = 0 };
	char dir[4200], oldest[16];
	time_t then = (time_t)(clock_wall_ns() / NS_PER_S) - DAYS_KEPT * 86400;
	struct tm tm;

	if (clock_mono_ns() < next_ns)
		return;
	next_ns = clock_mono_ns() + EVERY_S * NS_PER_S;
	snprintf(dir, sizeof(dir), "%s/tls-reports", run_dir);
	gmtime_r(&then, &tm);
	strftime(oldest, sizeof(oldest), "%Y%m%d", &tm);
	each_file(dir, "counts-", remove_old, oldest);
	each_file(dir, "report-", remove_old, oldest);
	each_file(dir, "counts-", sum_up, &all);
	for (unsigned i = 0; i < all.n; i++)
		if (grew(&all.day[i]))
			make_report(run_dir, dir, all.day[i].name);
	memcpy(known, all.day, sizeof(known));
	nknown = all.n;
}
