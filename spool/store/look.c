#include "spool/store/look.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include "spool/store/ledger_internal.h"

/* ---- a disk that is only read ---- */

struct disk_file {
	struct disk_file *next;
	int fd; /* -1: it is not there, and would have been made */
};

struct look_disk {
	struct disk disk; /* first */
	const char *dir;
	struct disk_file *files;
};

static enum status look_open(struct disk *d, const char *name, bool make, struct disk_file **ret, uint64_t *ret_bytes)
{
	struct look_disk *l = (struct look_disk *)d;
	struct disk_file *f = malloc(sizeof(*f));
	char path[4200];
	struct stat st = { 0 };

	if (!f)
		return ST_NOMEM;
	snprintf(path, sizeof(path), "%s/%s", l->dir, name);
	f->fd = open(path, O_RDONLY | O_CLOEXEC);
	if ((f->fd < 0 && (errno != ENOENT || !make)) || (f->fd >= 0 && fstat(f->fd, &st) < 0)) {
		free(f);
		return errno == ENOENT ? ST_NOT_FOUND : trail_errno(errno, "%s", path);
	}
	f->next = l->files;
	l->files = f;
	*ret = f;
	*ret_bytes = (uint64_t)st.st_size;
	return ST_OK;
}

static enum status look_read(struct disk *d, struct disk_file *f, void *p, size_t n, uint64_t off)
{
	size_t done = 0;
	ssize_t got;

	while (f->fd >= 0 && done < n && (got = pread(f->fd, (char *)p + done, n - done, (off_t)(off + done))) > 0)
		done += (size_t)got;
	return done == n ? ST_OK : trail(ST_IO, "reading %s", ((struct look_disk *)d)->dir);
}

static enum status look_write(struct disk *d, struct disk_file *f, const void *p, size_t n, uint64_t off)
{
	(void)d, (void)f, (void)p, (void)n, (void)off;
	return ST_OK;
}

static enum status look_sync(struct disk *d, struct disk_file *f)
{
	(void)d, (void)f;
	return ST_OK;
}

static void look_free(struct disk *d)
{
	struct look_disk *l = (struct look_disk *)d;
	struct disk_file *f;

	while ((f = l->files)) {
		l->files = f->next;
		if (f->fd >= 0)
			close(f->fd);
		free(f);
	}
}

static const struct disk_ops look_ops = { .open = look_open, .read = look_read, .write = look_write, .sync = look_sync, .free = look_free };

/* ---- the partition ---- */

static enum status recover_in_memory(struct store *s)
{
	enum status st;

	s->max_segs = RESERVE_SEGMENTS;
	s->next_generation = s->next_seq = 1;
	s->seg = calloc(s->max_segs, sizeof(*s->seg));
	if (!s->seg || index_new(&s->index) != ST_OK)
		return ST_NOMEM;
	if ((st = segment_open_all(s)) != ST_OK || (st = checkpoint_open(s)) != ST_OK || (st = ledger_open(s, true)) != ST_OK)
		return st;
	return recover(s);
}

static void tell(struct store *s, const struct look_sink *sink)
{
	struct span rest = s->ledger ? span_of(s->ledger->pending.p, s->ledger->pending.n) : SPAN_NONE;
	struct store_row row;
	struct ledger_row lacking;
	size_t pos = 0;

	while (rest.n && ledger_row_read(&rest, &lacking))
		sink->lacking(sink->ctx, &lacking);
	while (store_next(s, &pos, &row))
		sink->message(sink->ctx, &row);
}

enum status store_look(const char *dir, uint32_t partition, const struct look_sink *sink)
{
	struct look_disk disk = { .disk = { .ops = &look_ops }, .dir = dir };
	struct store *s = calloc(1, sizeof(*s));
	enum status st = ST_NOMEM;

	if (!s)
		return st;
	s->disk = &disk.disk;
	s->cfg = (struct store_config){ .dir = dir, .partition = partition, .segment_bytes = 16 * BLOCK, .ledger_keep_ns = LEDGER_DAY_NS };
	TAILQ_INIT(&s->waiting);
	TAILQ_INIT(&s->bodies);
	TAILQ_INIT(&s->flying);
	TAILQ_INIT(&s->waiting_put);
	st = recover_in_memory(s);
	if (st == ST_OK)
		tell(s, sink);
	if (s->checkpoint)
		checkpoint_free(s);
	ledger_free(s);
	if (s->open) /* the run that recovery would begin */
		batch_free(s->open);
	index_free(s->index);
	look_free(&disk.disk);
	free(s->seg);
	free(s);
	return st;
}
