#include "tests/crash/disk_over.h"

#include <stdlib.h>

static struct disk *below(struct disk *d)
{
	return ((struct disk_over *)d)->below;
}

static void told(struct disk *d, enum disk_kind kind, bool over)
{
	struct disk_over *o = (struct disk_over *)d;

	if (o->waits)
		o->waits(o, kind, over);
}

/* What below found out about its files. */
static void copy_facts(struct disk *d)
{
	d->direct = below(d)->direct;
	d->registered = below(d)->registered;
}

static enum status over_lock(struct disk *d)
{
	return below(d)->ops->lock(below(d));
}

static enum status over_open(struct disk *d, const char *name, bool make, struct disk_file **ret, uint64_t *ret_bytes)
{
	enum status st = below(d)->ops->open(below(d), name, make, ret, ret_bytes);

	copy_facts(d);
	return st;
}

static void over_remove(struct disk *d, const char *name, struct disk_file *f)
{
	below(d)->ops->remove(below(d), name, f);
}

static void over_begin(struct disk *d, const struct disk_io *io)
{
	struct disk_over *o = (struct disk_over *)d;

	o->begin(o, io);
}

static enum status over_read(struct disk *d, struct disk_file *f, void *p, size_t n, uint64_t off)
{
	enum status st;

	told(d, DISK_READ, false);
	st = below(d)->ops->read(below(d), f, p, n, off);
	told(d, DISK_READ, true);
	return st;
}

static enum status over_write(struct disk *d, struct disk_file *f, const void *p, size_t n, uint64_t off)
{
	enum status st;

	told(d, DISK_WRITE, false);
	st = below(d)->ops->write(below(d), f, p, n, off);
	told(d, DISK_WRITE, true);
	return st;
}

static enum status over_sync(struct disk *d, struct disk_file *f)
{
	enum status st;

	told(d, DISK_SYNC, false);
	st = below(d)->ops->sync(below(d), f);
	told(d, DISK_SYNC, true);
	return st;
}

static enum status over_wait(struct disk *d, uint64_t timeout_ns)
{
	return below(d)->ops->wait(below(d), timeout_ns);
}

static void over_lend(struct disk *d, const struct iovec *iov, unsigned n)
{
	below(d)->ops->lend(below(d), iov, n);
	copy_facts(d);
}

static void over_free(struct disk *d)
{
	below(d)->ops->free(below(d));
	free(d);
}

static uint64_t over_room(struct disk *d)
{
	return below(d)->ops->room(below(d));
}

static const struct disk_ops over_ops = { .lock = over_lock, .open = over_open, .remove = over_remove, .begin = over_begin,
	.read = over_read, .write = over_write, .sync = over_sync, .wait = over_wait, .lend = over_lend, .room = over_room, .free = over_free };

enum status disk_over_new(struct disk *below_, void (*begin)(struct disk_over *, const struct disk_io *),
	void (*waits)(struct disk_over *, enum disk_kind, bool), struct disk **ret)
{
	struct disk_over *o = calloc(1, sizeof(*o));

	if (!o)
		return ST_NOMEM;
	*o = (struct disk_over){ .disk = { .ops = &over_ops, .direct = below_->direct }, .below = below_, .begin = begin, .waits = waits };
	*ret = &o->disk;
	return ST_OK;
}
