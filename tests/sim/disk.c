#include "tests/sim/disk.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { FILES = 64, NAME = 40, BLOCK = 4096, OPS = 1024 };
#define ROOM (64ull << 20) /* of addresses a file; memory only where something was written */

struct disk_file {
	char name[NAME];
	char *p; /* NULL: unused */
	uint64_t bytes;
};

struct memory {
	struct disk disk; /* first */
	disk_ended_fn *ended;
	uint64_t random;
	struct disk_file file[FILES];
	struct disk_io op[OPS];
	unsigned nops;
};

static struct memory *of(struct disk *d)
{
	return (struct memory *)(void *)d;
}

static bool is_zero(const char *p, size_t n)
{
	return !n || (!p[0] && memcmp(p, p + 1, n - 1) == 0);
}

/* Zeros behind the end are there already. */
static void put(struct disk_file *f, const char *p, size_t n, uint64_t off)
{
	CHECK(off + n <= ROOM);
	for (size_t i = 0, len; i < n; i += len) {
		len = n - i < BLOCK ? n - i : BLOCK;
		if (off + i < f->bytes || !is_zero(p + i, len))
			memcpy(f->p + off + i, p + i, len);
	}
	f->bytes = off + n > f->bytes ? off + n : f->bytes;
}

static size_t take(const struct disk_file *f, void *p, size_t n, uint64_t off)
{
	if (off >= f->bytes)
		return 0;
	n = off + n > f->bytes ? (size_t)(f->bytes - off) : n;
	memcpy(p, f->p + off, n);
	return n;
}

static enum status do_lock(struct disk *d)
{
	(void)d;
	return ST_OK;
}

static enum status do_open(struct disk *d, const char *name, bool make, struct disk_file **ret, uint64_t *ret_bytes)
{
	struct disk_file *f, *room = NULL;

	for (f = of(d)->file; f < of(d)->file + FILES; f++) {
		if (f->p && strcmp(f->name, name) == 0)
			break;
		room = !f->p && !room ? f : room;
	}
	if (f == of(d)->file + FILES) {
		if (!make)
			return ST_NOT_FOUND;
		CHECK(room && strlen(name) < NAME);
		f = room;
		strcpy(f->name, name);
		f->p = mmap(NULL, ROOM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		CHECK(f->p != MAP_FAILED);
		madvise(f->p, ROOM, MADV_NOHUGEPAGE);
	}
	*ret = f;
	*ret_bytes = f->bytes;
	return ST_OK;
}

static void do_remove(struct disk *d, const char *name, struct disk_file *f)
{
	(void)d;
	(void)name;
	munmap(f->p, ROOM);
	*f = (struct disk_file){ 0 };
}

static void do_begin(struct disk *d, const struct disk_io *io)
{
	CHECK(of(d)->nops < OPS);
	of(d)->op[of(d)->nops++] = *io;
}

static enum status do_read(struct disk *d, struct disk_file *f, void *p, size_t n, uint64_t off)
{
	(void)d;
	return take(f, p, n, off) == n ? ST_OK : trail(ST_IO, "reading");
}

static enum status do_write(struct disk *d, struct disk_file *f, const void *p, size_t n, uint64_t off)
{
	(void)d;
	put(f, p, n, off);
	return ST_OK;
}

static enum status do_sync(struct disk *d, struct disk_file *f)
{
	(void)d;
	(void)f;
	return ST_OK;
}

static int perform(const struct disk_io *io)
{
	if (io->kind == DISK_READ)
		return (int)take(io->file, io->p, io->n, io->off);
	if (io->kind != DISK_WRITE)
		return 0;
	put(io->file, io->p, io->n, io->off);
	return (int)io->n;
}

bool disk_turn(struct disk *d)
{
	struct memory *m = of(d);
	struct disk_io io;
	unsigned i;

	if (!m->nops)
		return false;
	m->random = m->random * 6364136223846793005ull + 1442695040888963407ull;
	i = (unsigned)((m->random >> 33) % m->nops);
	io = m->op[i];
	m->op[i] = m->op[--m->nops];
	m->ended(&io.tag, perform(&io));
	return true;
}

static enum status do_wait(struct disk *d, uint64_t timeout_ns)
{
	(void)timeout_ns;
	disk_turn(d);
	return ST_OK;
}

static void do_lend(struct disk *d, const struct iovec *iov, unsigned n)
{
	(void)d;
	(void)iov;
	(void)n;
}

static void do_free(struct disk *d)
{
	for (unsigned i = 0; i < FILES; i++)
		if (of(d)->file[i].p)
			munmap(of(d)->file[i].p, ROOM);
	free(d);
}

static const struct disk_ops ops = { .lock = do_lock, .open = do_open, .remove = do_remove, .begin = do_begin, .read = do_read, .write = do_write,
	.sync = do_sync, .wait = do_wait, .lend = do_lend, .free = do_free };

struct disk *disk_new(uint64_t seed, disk_ended_fn *ended)
{
	struct memory *m = calloc(1, sizeof(*m));

	CHECK(m);
	m->disk.ops = &ops;
	m->ended = ended;
	m->random = seed;
	return &m->disk;
}
