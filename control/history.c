#include "control/history.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>
#include "spool/base/clock.h"
#include "spool/base/file.h"
#include "spool/base/log.h"

enum { LOG_MAX = 1 << 30, COPY_MAX = 256 << 20, ROW_MAX = 8192 };

/* ---- files ---- */

uint64_t history_hash(struct span text)
{
	return XXH3_64bits(text.p, text.n);
}

const char *history_path(const char *dir, const char *domain, const char *name, char *path)
{
	int n = snprintf(path, 4500, "%.4000s/%s%s%s", dir, domain, *name ? "/" : "", name);

	CHECK(n > 0 && n < 4500); /* domains and names are short */
	return path;
}

static const char *copy_path(const char *dir, const char *domain, uint64_t copy, char *path)
{
	char name[40];

	snprintf(name, sizeof(name), "copy-%llu", (unsigned long long)copy);
	return history_path(dir, domain, name, path);
}

static enum status sync_dir(const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	bool ok = fd >= 0 && fsync(fd) == 0;
	enum status st = ok ? ST_OK : trail_errno(errno, "%s", path);

	if (fd >= 0)
		close(fd);
	return st;
}

enum status history_flush(const char *dir)
{
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	bool ok = fd >= 0 && syncfs(fd) == 0;
	enum status st = ok ? ST_OK : trail_errno(errno, "%s", dir);

	if (fd >= 0)
		close(fd);
	return st;
}

/* The directory is there. */
static enum status make_dirs(const char *dir, const char *domain, enum history_when when)
{
	char path[4500];

	if (mkdir(dir, 0750) < 0 && errno != EEXIST)
		return trail_errno(errno, "%s", dir);
	if (mkdir(history_path(dir, domain, "", path), 0750) == 0)
		return when == HISTORY_NOW ? sync_dir(dir) : ST_OK;
	return errno == EEXIST ? ST_OK : trail_errno(errno, "%s", path);
}

static bool write_all(int fd, struct span s)
{
	while (s.n) {
		ssize_t done = write(fd, s.p, s.n);

		if (done <= 0)
			return false;
		s = span_skip(s, (size_t)done);
	}
	return true;
}

enum status history_replace(const char *dir, const char *domain, const char *name, struct span bytes, enum history_when when)
{
	char path[4500], temp[4510];
	enum status st = make_dirs(dir, domain, when);
	int fd;
	bool ok;

	if (st != ST_OK)
		return st;
	snprintf(temp, sizeof(temp), "%s.new", history_path(dir, domain, name, path));
	fd = open(temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);
	if (fd < 0)
		return trail_errno(errno, "%s", temp);
	ok = write_all(fd, bytes) && (when == HISTORY_LATER || fsync(fd) == 0);
	close(fd);
	if (!ok || rename(temp, path) < 0)
		return trail_errno(errno, "%s", temp);
	return when == HISTORY_NOW ? sync_dir(history_path(dir, domain, "", path)) : ST_OK;
}

/* ---- rows ---- */

static void put_text(char *to, size_t cap, struct span v)
{
	snprintf(to, cap, "%.*s", SPAN_FMT(v));
}

static bool read_number(struct span k, struct span v, struct history_row *r)
{
	const struct {
		const char *key;
		uint64_t *to;
	} number[] = { { "n", &r->n }, { "at_s", &r->at_s }, { "copy", &r->copy }, { "hash", &r->hash }, { "entries", &r->entries },
		{ "added", &r->added }, { "changed", &r->changed }, { "removed", &r->removed }, { "passed_over", &r->passed_over } };

	for (size_t i = 0; i < sizeof(number) / sizeof(number[0]); i++)
		if (span_eq(k, span_str(number[i].key)))
			return span_u64(v, UINT64_MAX, number[i].to);
	return true;
}

static bool read_row(struct span line, struct history_row *r)
{
	struct span k, v;
	char buf[2048];

	*r = (struct history_row){ 0 };
	while (row_next(&line, &k, &v, buf, sizeof(buf))) {
		if (span_eq(k, SPAN("how")))
			put_text(r->how, sizeof(r->how), v);
		else if (span_eq(k, SPAN("by")))
			put_text(r->by, sizeof(r->by), v);
		else if (span_eq(k, SPAN("source")))
			put_text(r->source, sizeof(r->source), v);
		else if (span_eq(k, SPAN("diff")))
			put_text(r->diff, sizeof(r->diff), v);
		else if (!read_number(k, v, r))
			return false;
	}
	return r->n && r->copy;
}

static void write_row(const struct history_row *r, struct out *o)
{
	struct logline row;

	row_begin(&row);
	log_u64(&row, "n", r->n);
	log_u64(&row, "at_s", r->at_s);
	log_str(&row, "how", r->how);
	log_str(&row, "by", r->by);
	log_u64(&row, "copy", r->copy);
	log_u64(&row, "hash", r->hash);
	log_u64(&row, "entries", r->entries);
	log_u64(&row, "added", r->added);
	log_u64(&row, "changed", r->changed);
	log_u64(&row, "removed", r->removed);
	if (r->passed_over)
		log_u64(&row, "passed_over", r->passed_over);
	log_str(&row, "source", r->source);
	log_str(&row, "diff", r->diff); /* last: what does not fit is left out */
	out_add(o, row_text(&row));
	out_char(o, '\n');
}

enum status history_each(const char *dir, const char *domain, history_fn *fn, void *ctx)
{
	char path[4500], *bytes;
	struct history_row row;
	struct span rest;
	enum status st;
	size_t n;

	if (access(history_path(dir, domain, "log", path), F_OK) < 0 && errno == ENOENT)
		return trail(ST_NOT_FOUND, "%s has no history", domain);
	st = file_read(path, LOG_MAX, NULL, &bytes, &n);
	if (st != ST_OK)
		return st;
	rest = span_of(bytes, n);
	while (memchr(rest.p, '\n', rest.n)) { /* what is behind the last line end was not finished */
		struct span line = span_cut(&rest, '\n');

		if (!read_row(line, &row)) {
			st = trail(ST_CORRUPT, "%s: a row is not understood", path);
			break;
		}
		fn(ctx, &row);
		if (!rest.p)
			break;
	}
	free(bytes);
	return st;
}

/* Reads the end of the log, which has its last rows: the first of them may be cut. */
static enum status read_tail(const char *dir, const char *domain, char *buf, struct span *ret, off_t *ret_end)
{
	char path[4500];
	int fd = open(history_path(dir, domain, "log", path), O_RDONLY | O_CLOEXEC);
	const char *last;
	struct stat st;
	ssize_t n;
	off_t from;

	if (fd < 0)
		return errno == ENOENT ? trail(ST_NOT_FOUND, "%s has no history", domain) : trail_errno(errno, "%s", path);
	if (fstat(fd, &st) < 0 || (from = st.st_size > ROW_MAX ? st.st_size - ROW_MAX : 0, (n = pread(fd, buf, ROW_MAX, from)) < 0)) {
		close(fd);
		return trail_errno(errno, "%s", path);
	}
	close(fd);
	last = n ? memrchr(buf, '\n', (size_t)n) : NULL;
	*ret = span_of(buf, last ? (size_t)(last - buf) : 0);
	*ret_end = last ? from + (last - buf) + 1 : 0;
	return ST_OK;
}

/* ret_end: the length of the log without what was not finished. */
static enum status last_row(const char *dir, const char *domain, struct history_row *ret, off_t *ret_end)
{
	char buf[ROW_MAX];
	struct span all = SPAN_NONE;
	const char *before;
	enum status st = read_tail(dir, domain, buf, &all, ret_end);

	if (st != ST_OK)
		return st;
	if (!all.n)
		return trail(ST_NOT_FOUND, "%s has no history", domain);
	before = memrchr(all.p, '\n', all.n);
	if (before)
		all = span_skip(all, (size_t)(before - all.p) + 1);
	return read_row(all, ret) ? ST_OK : trail(ST_CORRUPT, "%s/%s/log: the last row is not understood", dir, domain);
}

enum status history_last(const char *dir, const char *domain, struct history_row *ret)
{
	off_t end;

	return last_row(dir, domain, ret, &end);
}

struct find {
	uint64_t n;
	bool found;
	struct history_row *ret;
};

static void find_row(void *ctx, const struct history_row *row)
{
	struct find *f = ctx;

	if (row->n == f->n) {
		*f->ret = *row;
		f->found = true;
	}
}

enum status history_find(const char *dir, const char *domain, uint64_t n, struct history_row *ret)
{
	struct find f = { .n = n, .ret = ret };
	enum status st = history_each(dir, domain, find_row, &f);

	if (st == ST_OK && !f.found)
		return trail(ST_NOT_FOUND, "the history of %s has no change %llu", domain, (unsigned long long)n);
	return st;
}

enum status history_read(const char *dir, const char *domain, const struct history_row *row, char **ret, size_t *ret_n)
{
	char path[4500];
	enum status st = file_read(copy_path(dir, domain, row->copy, path), COPY_MAX, NULL, ret, ret_n);

	if (st != ST_OK)
		return st;
	if (history_hash(span_of(*ret, *ret_n)) == row->hash)
		return ST_OK;
	free(*ret);
	return trail(ST_CORRUPT, "%s is not what was written", path);
}

/* ---- changes ---- */

/* Opens the log for one more row: the lock is kept until it is closed. */
static enum status open_log(const char *dir, const char *domain, enum history_when when, int *ret)
{
	char path[4500];
	enum status st = make_dirs(dir, domain, when);

	if (st != ST_OK)
		return st;
	*ret = open(history_path(dir, domain, "log", path), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
	if (*ret >= 0 && flock(*ret, LOCK_EX) == 0)
		return ST_OK;
	st = trail_errno(errno, "%s", path);
	if (*ret >= 0)
		close(*ret);
	return st;
}

/* A row that a kill cut off goes before the next one is written. */
static enum status append(const char *dir, const char *domain, int fd, off_t end, struct span line, enum history_when when)
{
	char path[4500];
	struct stat st;
	bool ok = fstat(fd, &st) == 0 && (st.st_size <= end || ftruncate(fd, end) == 0) && write_all(fd, line) &&
		(when == HISTORY_LATER || fsync(fd) == 0);
	int err = errno;

	if (!ok && ftruncate(fd, end) < 0)
		err = errno; /* what is left of the row has no line end: it does not count */
	if (!ok)
		return trail_errno(err, "%s/%s/log", dir, domain);
	return when == HISTORY_NOW ? sync_dir(history_path(dir, domain, "", path)) : ST_OK;
}

static enum status add_row(const char *dir, const char *domain, int fd, struct history_row *row, struct span text, uint32_t keep, enum history_when when)
{
	char name[40], path[4500], line[ROW_MAX];
	struct out o = out_of(line, sizeof(line));
	struct history_row last = { 0 };
	off_t end = 0;
	enum status st = last_row(dir, domain, &last, &end);

	if (st != ST_OK && st != ST_NOT_FOUND)
		return st;
	if (row->n && row->n != last.n + 1)
		return trail(ST_AGAIN, "%s has been changed meanwhile", domain);
	row->n = row->copy = last.n + 1;
	row->at_s = clock_wall_ns() / NS_PER_S;
	row->hash = history_hash(text);
	snprintf(name, sizeof(name), "copy-%llu", (unsigned long long)row->copy);
	st = history_replace(dir, domain, name, text, when);
	if (st != ST_OK)
		return st;
	write_row(row, &o);
	if (o.over)
		return trail(ST_TOO_BIG, "a row of the history of %s is too long", domain);
	st = append(dir, domain, fd, end, out_span(&o), when);
	for (uint64_t i = row->n > keep ? row->n - keep : 0; st == ST_OK && i > 0; i--)
		if (unlink(copy_path(dir, domain, i, path)) < 0)
			break; /* those below went before */
	return st;
}

enum status history_add(const char *dir, const char *domain, struct history_row *row, struct span text, uint32_t keep, enum history_when when)
{
	enum status st;
	int fd;

	st = open_log(dir, domain, when, &fd);
	if (st != ST_OK)
		return st;
	st = add_row(dir, domain, fd, row, text, keep, when);
	close(fd);
	return st;
}
