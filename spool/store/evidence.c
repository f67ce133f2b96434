#include "spool/store/evidence.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define EVIDENCE_MAGIC 0x31444956454952ull /* "RIEVID1" */
enum { ROWS_MAX = 1 << 20, RULE_NAME = 32, TRIES = 1000 };

struct evidence_file {
	uint64_t magic;
	uint32_t rows, row_size;
	char rule[EVIDENCE_RULES][RULE_NAME]; /* names, as the writer numbers them */
	struct evidence_listener listener[EVIDENCE_LISTENERS];
};

static void path_of(char *path, size_t cap, const char *dir, unsigned n, const char *more)
{
	snprintf(path, cap, "%.4000s/evidence-%u%s", dir, n, more);
}

static size_t bytes_of(uint32_t rows)
{
	return sizeof(struct evidence_file) + (size_t)rows * sizeof(struct evidence);
}

/* ---- reading ---- */

static enum status map_file(int fd, const char *path, struct evidence_table *t)
{
	struct stat st;
	void *p;

	if (fstat(fd, &st) < 0 || st.st_size < (off_t)sizeof(struct evidence_file))
		return trail(ST_CORRUPT, "%s is not evidence about clients", path);
	p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED)
		return trail_errno(errno, "%s", path);
	*t = (struct evidence_table){ .file = p, .bytes = (size_t)st.st_size };
	t->rows = t->file->rows;
	t->row = (struct evidence *)(void *)(t->file + 1);
	if (t->file->magic == EVIDENCE_MAGIC && t->file->row_size == sizeof(struct evidence) && t->rows <= ROWS_MAX && bytes_of(t->rows) == t->bytes)
		return ST_OK;
	evidence_close(t);
	return trail(ST_UNSUPPORTED, "%s was made by another version", path);
}

enum status evidence_map(const char *path, struct evidence_table *ret)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	enum status st;

	*ret = (struct evidence_table){ 0 };
	if (fd < 0)
		return errno == ENOENT ? trail(ST_NOT_FOUND, "%s is not there", path) : trail_errno(errno, "%s", path);
	st = map_file(fd, path, ret);
	close(fd);
	return st;
}

void evidence_close(struct evidence_table *t)
{
	if (t->file)
		munmap(t->file, t->bytes);
	*t = (struct evidence_table){ 0 };
}

/* Hits under the numbers of the program that wrote them, under ours. */
static void renumber(const struct evidence_file *f, struct evidence *e)
{
	uint32_t was[EVIDENCE_RULES];

	memcpy(was, e->hits, sizeof(was));
	memset(e->hits, 0, sizeof(e->hits));
	for (unsigned i = 0; i < EVIDENCE_RULES; i++) {
		enum rule r = was[i] ? rule_find(span_of(f->rule[i], strnlen(f->rule[i], RULE_NAME))) : RULE_NRULE;

		if (r != RULE_NRULE)
			e->hits[r] = was[i];
	}
}

bool evidence_read(const struct evidence_table *t, uint32_t i, struct evidence *ret)
{
	const struct evidence *e = &t->row[i];

	/* a writer that died in the middle leaves an odd number: what is there is taken then */
	for (unsigned tries = 0; tries < TRIES; tries++) {
		uint64_t seq = atomic_load_explicit(&e->seq, memory_order_acquire);

		memcpy(ret, e, sizeof(*ret));
		atomic_thread_fence(memory_order_acquire);
		if (!(seq & 1) && atomic_load_explicit(&e->seq, memory_order_relaxed) == seq)
			break;
	}
	ret->seq = 0;
	ret->helo[EVIDENCE_HELO - 1] = '\0';
	renumber(t->file, ret);
	return ret->first_s != 0;
}

bool evidence_read_listener(const struct evidence_table *t, uint32_t i, struct evidence_listener *ret)
{
	if (i >= EVIDENCE_LISTENERS || !t->file->listener[i].name[0])
		return false;
	memcpy(ret, &t->file->listener[i], sizeof(*ret));
	ret->name[EVIDENCE_NAME - 1] = '\0';
	return true;
}

void evidence_add(struct evidence *sum, const struct evidence *e)
{
	if (!sum->first_s || e->first_s < sum->first_s)
		sum->first_s = e->first_s;
	if (e->last_s >= sum->last_s && e->helo[0])
		memcpy(sum->helo, e->helo, sizeof(sum->helo));
	if (e->last_s > sum->last_s)
		sum->last_s = e->last_s;
	memcpy(sum->ip, e->ip, 16);
	sum->sessions += e->sessions;
	sum->tls_sessions += e->tls_sessions;
	sum->messages += e->messages;
	sum->recipients += e->recipients;
	sum->tls_messages += e->tls_messages;
	sum->senders += e->senders;
	sum->senders_bad += e->senders_bad;
	for (unsigned i = 0; i < EVIDENCE_RULES; i++)
		sum->hits[i] += e->hits[i];
}

/* ---- writing ---- */

static int newest_first(const void *a, const void *b)
{
	const struct evidence *x = a, *y = b;

	return (x->last_s < y->last_s) - (x->last_s > y->last_s);
}

/* All rows of a file, newest first; *ret is NULL when there are none. */
static uint32_t rows_of(const struct evidence_table *from, struct evidence **ret)
{
	uint32_t n = 0;

	*ret = from->rows ? malloc((size_t)from->rows * sizeof(**ret)) : NULL;
	for (uint32_t i = 0; *ret && i < from->rows; i++)
		n += evidence_read(from, i, &(*ret)[n]);
	if (n)
		qsort(*ret, n, sizeof(**ret), newest_first);
	return n;
}

static void fill(struct evidence_table *t, const struct evidence_table *from)
{
	struct evidence *all;
	uint32_t n = rows_of(from, &all);

	t->file->magic = EVIDENCE_MAGIC;
	t->file->rows = t->rows;
	t->file->row_size = sizeof(struct evidence);
	for (unsigned i = 0; i < RULE_NRULE; i++)
		snprintf(t->file->rule[i], RULE_NAME, "%s", rule_row[i].name);
	for (uint32_t i = 0; i < n && i < t->rows; i++)
		memcpy(&t->row[i], &all[i], sizeof(*all));
	for (uint32_t i = 0; from->file && evidence_read_listener(from, i, &t->file->listener[i]); i++)
		;
	free(all);
}

/* A new file with what another had, in the place of path. It stays mapped for writing. */
static enum status make(const char *path, const char *temp, uint32_t rows, const struct evidence_table *from, struct evidence_table *ret)
{
	struct evidence_table t = { .rows = rows, .bytes = bytes_of(rows) };
	int fd = open(temp, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);
	void *p = MAP_FAILED;

	if (fd >= 0 && posix_fallocate(fd, 0, (off_t)t.bytes) == 0) /* a full disk shows here, not as a signal later */
		p = mmap(NULL, t.bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED) {
		enum status st = trail_errno(errno, "%s", temp);

		if (fd >= 0)
			close(fd);
		return st;
	}
	t.file = p;
	t.row = (struct evidence *)(void *)(t.file + 1);
	fill(&t, from);
	if (msync(p, t.bytes, MS_ASYNC) < 0 || rename(temp, path) < 0) {
		enum status st = trail_errno(errno, "%s", path);

		close(fd);
		evidence_close(&t);
		return st;
	}
	close(fd);
	*ret = t;
	return ST_OK;
}

enum status evidence_open(const char *run_dir, const char *saved, unsigned n, uint32_t rows, struct evidence_table *ret)
{
	char path[4200], temp[4200], copy[4200];
	struct evidence_table before;
	enum status st;

	path_of(path, sizeof(path), run_dir, n, "");
	path_of(temp, sizeof(temp), run_dir, n, ".new");
	path_of(copy, sizeof(copy), saved, n, "");
	st = evidence_map(path, &before);
	if (st != ST_OK && *saved)
		st = evidence_map(copy, &before);
	if (st != ST_OK) /* neither is there, or of use: it begins anew */
		before = (struct evidence_table){ 0 };
	st = make(path, temp, rows, &before, ret);
	evidence_close(&before);
	return st;
}

void evidence_begin(struct evidence *e)
{
	atomic_store_explicit(&e->seq, atomic_load_explicit(&e->seq, memory_order_relaxed) + 1, memory_order_relaxed);
	atomic_thread_fence(memory_order_release);
}

void evidence_end(struct evidence *e)
{
	atomic_store_explicit(&e->seq, atomic_load_explicit(&e->seq, memory_order_relaxed) + 1, memory_order_release);
}

struct evidence_listener *evidence_listener(struct evidence_table *t, const char *name)
{
	for (unsigned i = 0; i < EVIDENCE_LISTENERS; i++) {
		struct evidence_listener *l = &t->file->listener[i];

		if (!l->name[0])
			snprintf(l->name, sizeof(l->name), "%s", name);
		if (strncmp(l->name, name, sizeof(l->name) - 1) == 0)
			return l;
	}
	return NULL;
}

enum status evidence_save(const char *from, const char *to)
{
	struct evidence_table old, copy;
	char temp[4300];
	enum status st = evidence_map(from, &old);

	if (st != ST_OK)
		return st;
	snprintf(temp, sizeof(temp), "%.4200s.new", to);
	st = make(to, temp, old.rows, &old, &copy);
	if (st == ST_OK)
		evidence_close(&copy);
	evidence_close(&old);
	return st;
}
