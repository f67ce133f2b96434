/* The ledger's files, read while they are written or not. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "spool/base/clock.h"
#include "spool/store/ledger.h"

enum { FILES_MAX = 1000 };
/* A row is in the file of the day of its writing, which is never before its message's arrival, but for what a restart may set the clock back. */
#define MARGIN_NS (3600 * NS_PER_S)

struct file {
	uint32_t day;
	uint64_t at; /* what is before it was read */
};

struct ledger_reader {
	char dir[4096];
	uint32_t partition;
	uint64_t since_ns;
	struct file file[FILES_MAX];
	uint32_t nfiles;
	uint64_t number;    /* of the last frame; 0: none yet */
	uint64_t tail;
	uint64_t begins_ns; /* first row about this time; 0: the rows go back to since_ns */
	bool anchored, misses, patient;
	char page[LEDGER_PAGE];
};

static int by_day(const void *a, const void *b)
{
	const struct file *x = a, *y = b;

	return x->day < y->day ? -1 : x->day > y->day;
}

/* The files there are now, from the last one before since_ns on; those that are known keep their place. */
static enum status list(struct ledger_reader *r)
{
	uint32_t since = r->since_ns > MARGIN_NS ? (uint32_t)((r->since_ns - MARGIN_NS) / LEDGER_DAY_NS) : 0, day, first = 0;
	struct file found[FILES_MAX];
	struct dirent *e;
	uint32_t n = 0;
	DIR *d = opendir(r->dir);

	if (!d)
		return errno == ENOENT ? trail(ST_NOT_FOUND, "%s", r->dir) : trail_errno(errno, "%s", r->dir);
	while ((e = readdir(d)))
		if (n < FILES_MAX && ledger_name_day(e->d_name, &day))
			found[n++] = (struct file){ .day = day };
	closedir(d);
	if (!n)
		return trail(ST_NOT_FOUND, "there is no ledger in %s", r->dir);
	qsort(found, n, sizeof(found[0]), by_day);
	while (first + 1 < n && found[first + 1].day <= since)
		first++;
	for (uint32_t i = first; i < n; i++) {
		if (r->nfiles && found[i].day <= r->file[r->nfiles - 1].day)
			continue;
		r->anchored = r->anchored || found[i].day < since;
		r->file[r->nfiles++] = found[i];
	}
	return ST_OK;
}

enum status ledger_read_new(const char *dir, uint32_t partition, uint64_t since_ns, struct ledger_reader **ret)
{
	struct ledger_reader *r = calloc(1, sizeof(*r));
	enum status st;

	if (!r)
		return ST_NOMEM;
	snprintf(r->dir, sizeof(r->dir), "%s", dir);
	r->partition = partition;
	r->since_ns = since_ns;
	st = list(r);
	if (st != ST_OK) {
		free(r);
		return st;
	}
	*ret = r;
	return ST_OK;
}

void ledger_read_free(struct ledger_reader *r)
{
	free(r);
}

uint64_t ledger_read_number(const struct ledger_reader *r)
{
	return r->number;
}

uint64_t ledger_read_tail(const struct ledger_reader *r)
{
	return r->tail;
}

bool ledger_read_whole(const struct ledger_reader *r, char *text, size_t cap)
{
	time_t t = (time_t)(r->begins_ns / NS_PER_S);
	struct tm tm;
	char when[32];

	if (!r->misses && r->number)
		return true;
	gmtime_r(&t, &tm);
	strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%SZ", &tm);
	if (r->begins_ns)
		snprintf(text, cap, "partition %u: the ledger begins at %s, later than what is asked for", r->partition, when);
	else
		snprintf(text, cap, "partition %u: the ledger is empty", r->partition);
	return false;
}

/* ---- frames ---- */

static void damage(const struct ledger_reader *r, const struct ledger_sink *sink, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

static void damage(const struct ledger_reader *r, const struct ledger_sink *sink, const char *fmt, ...)
{
	char text[300];
	int n = snprintf(text, sizeof(text), "partition %u: ", r->partition);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text + n, sizeof(text) - (size_t)n, fmt, ap);
	va_end(ap);
	sink->damage(sink->ctx, text);
}

/* Whether the first row that is read is the first that matters. A partition that was new when its ledger began had nothing before. */
static void note_begin(struct ledger_reader *r, const struct ledger_row *row)
{
	if (row->at_ns <= r->since_ns || (row->type == LEDGER_BEGIN && !row->size))
		return;
	r->misses = true;
	r->begins_ns = row->at_ns;
}

static void rows(struct ledger_reader *r, const struct ledger_frame *f, const char *p, const struct ledger_sink *sink)
{
	struct span rest = span_of(p + sizeof(*f), f->record_bytes);
	bool first = !r->number && !r->anchored;
	struct ledger_row row;

	while (rest.n && ledger_row_read(&rest, &row)) {
		if (first)
			note_begin(r, &row);
		first = false;
		if (row.type == LEDGER_GAP)
			damage(r, sink, "gap: batches %llu to %llu of the log were not written down", (unsigned long long)row.size,
				(unsigned long long)row.to);
		else
			sink->row(sink->ctx, &row, f->flags & LEDGER_REPAIRED);
	}
	if (rest.n)
		damage(r, sink, "frame %llu has a row that cannot be read", (unsigned long long)f->number);
}

static void frame(struct ledger_reader *r, const struct ledger_frame *f, const char *p, const struct ledger_sink *sink)
{
	uint64_t expected = r->number + 1;

	if (r->number && f->number > expected)
		damage(r, sink, "frames %llu to %llu are missing", (unsigned long long)expected, (unsigned long long)f->number - 1);
	else if (r->number && f->number < expected)
		damage(r, sink, "frame %llu stands behind frame %llu", (unsigned long long)f->number, (unsigned long long)r->number);
	rows(r, f, p, sink);
	r->number = f->number;
}

static bool all_zero(const char *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (p[i])
			return false;
	return true;
}

/* Reads frames of a page from `at` on. Gives where the next one would stand: n when the page is full. Bytes that are no frame end it, unless one follows. */
static size_t frames(struct ledger_reader *r, size_t at, size_t n, const char *name, uint64_t off, bool newest, const struct ledger_sink *sink)
{
	while (at < n) {
		struct ledger_frame f;
		uint32_t bytes = ledger_frame_valid(r->page + at, n - at, r->partition, &f);
		size_t bad = at;

		for (; !bytes && at + 8 < n; bytes = ledger_frame_valid(r->page + at, n - at, r->partition, &f))
			at += 8;
		if (!bytes || (bad < at && r->patient && newest))
			return bad;
		if (bad < at)
			damage(r, sink, "%s: %zu bytes at %llu are not what was written", name, at - bad, (unsigned long long)(off + bad));
		frame(r, &f, r->page + at, sink);
		at += bytes;
	}
	return at;
}

static enum status read_file(struct ledger_reader *r, struct file *file, bool newest, const struct ledger_sink *sink)
{
	char path[4200], name[LEDGER_NAME];
	enum status st = ST_OK;
	int fd;

	ledger_name(file->day, name);
	snprintf(path, sizeof(path), "%s/%s", r->dir, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? ST_OK : trail_errno(errno, "%s", path); /* it was old enough to be removed meanwhile */
	for (;;) {
		uint64_t page = file->at / LEDGER_PAGE * LEDGER_PAGE;
		ssize_t n = pread(fd, r->page, LEDGER_PAGE, (off_t)page);
		size_t from = (size_t)(file->at - page), end;
		bool last;

		if (n < 0)
			st = trail_errno(errno, "%s", path);
		if (n <= 0)
			break;
		end = frames(r, from, (size_t)n, name, page, newest, sink);
		last = n < LEDGER_PAGE || lseek(fd, 0, SEEK_END) == (off_t)(page + LEDGER_PAGE);
		r->tail = end < (size_t)n && !all_zero(r->page + end, (size_t)n - end) ? (size_t)n - end : 0;
		file->at = page + end;
		if ((last || (r->tail && r->patient)) && newest)
			break; /* goes on here, next time */
		if (r->tail)
			damage(r, sink, "%s: %llu bytes at %llu are not what was written", name, (unsigned long long)r->tail,
				(unsigned long long)file->at);
		r->tail = 0;
		file->at = page + LEDGER_PAGE;
		if (last)
			break;
	}
	close(fd);
	return st;
}

enum status ledger_read(struct ledger_reader *r, bool patient, const struct ledger_sink *sink)
{
	enum status st = list(r);

	r->patient = patient;
	for (uint32_t i = 0; i < r->nfiles && st == ST_OK; i++)
		st = read_file(r, &r->file[i], i + 1 == r->nfiles, sink);
	return st;
}
