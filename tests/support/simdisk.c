#include "tests/support/simdisk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { FILES = 64, NAME = 32 };

struct write {
	struct write *next;
	uint64_t off;
	uint32_t n;
	uint64_t at; /* number of its end: a flush begun later covers it */
	char data[];
};

struct disk_file {
	char name[NAME];
	bool used, named; /* named: its name is durable */
	char *now, *durable;
	uint64_t bytes, durable_bytes, cap;
	struct write *writes; /* ended, not flushed, newest first */
};

struct op {
	struct disk_io io;
	uint64_t number, begun_at;
};

struct sim_image {
	struct disk_file file[FILES];
	struct sim_rules rules;
	uint64_t random, operations, ended, kind_count;
	struct op *op;
	uint32_t nops, cap;
	bool off;
};

struct sim {
	struct disk disk; /* first */
	struct sim_image *im;
	uring_fn *done;
};

uint64_t sim_random(struct sim_image *im)
{
	uint64_t z = (im->random += 0x9e3779b97f4a7c15ull);

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

uint64_t sim_operations(const struct sim_image *im)
{
	return im->operations;
}

bool sim_is_off(const struct sim_image *im)
{
	return im->off;
}

struct sim_image *sim_image_new(uint64_t seed)
{
	struct sim_image *im = calloc(1, sizeof(*im));

	CHECK(im);
	im->random = seed;
	return im;
}

static void forget_writes(struct disk_file *f)
{
	struct write *w;

	while ((w = f->writes)) {
		f->writes = w->next;
		free(w);
	}
}

static void file_free(struct disk_file *f)
{
	forget_writes(f);
	free(f->now);
	free(f->durable);
	*f = (struct disk_file){ 0 };
}

void sim_image_free(struct sim_image *im)
{
	for (unsigned i = 0; i < FILES; i++)
		file_free(&im->file[i]);
	free(im->op);
	free(im);
}

/* ---- bytes ---- */

static void reach(struct disk_file *f, uint64_t bytes)
{
	if (bytes > f->cap) {
		uint64_t cap = f->cap * 2 > bytes ? f->cap * 2 : bytes;

		f->now = realloc(f->now, cap);
		f->durable = realloc(f->durable, cap);
		CHECK(f->now && f->durable);
		memset(f->now + f->cap, 0, cap - f->cap);
		memset(f->durable + f->cap, 0, cap - f->cap);
		f->cap = cap;
	}
}

static void put(struct sim_image *im, struct disk_file *f, const void *p, uint32_t n, uint64_t off)
{
	struct write *w = malloc(sizeof(*w) + n);

	CHECK(w);
	reach(f, off + n);
	memcpy(f->now + off, p, n);
	f->bytes = off + n > f->bytes ? off + n : f->bytes;
	*w = (struct write){ .next = f->writes, .off = off, .n = n, .at = ++im->ended };
	memcpy(w->data, p, n);
	f->writes = w;
}

/* All that ended before `before` is durable, oldest first. */
static void flush(struct disk_file *f, uint64_t before)
{
	struct write *old = NULL, *w, **at = &f->writes;

	while (*at && (*at)->at > before)
		at = &(*at)->next;
	while ((w = *at)) {
		*at = w->next;
		w->next = old;
		old = w;
	}
	while ((w = old)) {
		old = w->next;
		memcpy(f->durable + w->off, w->data, w->n);
		f->durable_bytes = w->off + w->n > f->durable_bytes ? w->off + w->n : f->durable_bytes;
		free(w);
	}
}

/* ---- operations ---- */

/* Counts an operation; true when the power is off. */
static bool counted(struct sim_image *im)
{
	im->operations++;
	if (im->rules.power_off_at && im->operations >= im->rules.power_off_at)
		im->off = true;
	return im->off;
}

static enum sim_fault fault_of(struct sim_image *im, enum disk_kind kind)
{
	const struct sim_rules *r = &im->rules;

	if (!r->fault_at || (r->fault_kind >= 0 && (int)kind != r->fault_kind))
		return SIM_OK;
	im->kind_count++;
	return im->kind_count >= r->fault_at && im->kind_count < r->fault_at + (r->faults ? r->faults : 1) ? r->fault : SIM_OK;
}

static void dir_flush(struct sim_image *im)
{
	for (unsigned i = 0; i < FILES; i++)
		im->file[i].named = im->file[i].used;
}

static int perform(struct sim_image *im, const struct op *op)
{
	const struct disk_io *io = &op->io;
	enum sim_fault fault = fault_of(im, io->kind);
	uint32_t n = io->n;

	if (fault == SIM_EIO || fault == SIM_ENOSPC)
		return fault == SIM_EIO ? -EIO : -ENOSPC;
	if (fault == SIM_SHORT)
		n = n / 2 & ~4095u;
	switch (io->kind) {
	case DISK_READ:
		if (io->off >= io->file->bytes)
			return 0;
		n = io->off + n > io->file->bytes ? (uint32_t)(io->file->bytes - io->off) : n;
		memcpy(io->p, io->file->now + io->off, n);
		return (int)n;
	case DISK_WRITE:
		if (n)
			put(im, io->file, io->p, n, io->off);
		return (int)n;
	case DISK_DATASYNC:
	case DISK_SYNC:
		if (!im->rules.lying_flush)
			flush(io->file, op->begun_at);
		return 0;
	case DISK_SYNC_DIR:
		if (!im->rules.lying_flush)
			dir_flush(im);
		return 0;
	}
	return -EINVAL;
}

static void sim_begin(struct disk *d, const struct disk_io *io)
{
	struct sim_image *im = ((struct sim *)d)->im;

	counted(im);
	if (im->nops == im->cap) {
		im->cap = im->cap ? im->cap * 2 : 64;
		im->op = realloc(im->op, im->cap * sizeof(*im->op));
		CHECK(im->op);
	}
	im->op[im->nops++] = (struct op){ .io = *io, .number = im->operations, .begun_at = im->ended };
}

/* Ends one operation, any of those under way. */
static enum status sim_wait(struct disk *d, uint64_t timeout_ns)
{
	struct sim *sim = (struct sim *)d;
	struct sim_image *im = sim->im;

	(void)timeout_ns;
	for (unsigned k = 1 + (unsigned)(sim_random(im) % 4); k && im->nops && !im->off; k--) {
		uint32_t i = (uint32_t)(sim_random(im) % im->nops);
		struct op op = im->op[i];

		im->op[i] = im->op[--im->nops];
		sim->done(NULL, &(struct uring_event){ .op = op.io.tag.op, .slot = op.io.tag.slot, .gen = op.io.tag.gen, .res = perform(im, &op) });
	}
	return im->off ? trail(ST_IO, "the power is off") : ST_OK;
}

static enum status sim_lock(struct disk *d)
{
	(void)d;
	return ST_OK;
}

static enum status sim_open(struct disk *d, const char *name, bool make, struct disk_file **ret, uint64_t *ret_bytes)
{
	struct sim_image *im = ((struct sim *)d)->im;
	struct disk_file *f, *room = NULL;

	if (im->off)
		return trail(ST_IO, "the power is off");
	for (f = im->file; f < im->file + FILES; f++) {
		if (f->used && strcmp(f->name, name) == 0)
			break;
		if (!f->used && !room)
			room = f;
	}
	if (f == im->file + FILES) {
		if (!make)
			return ST_NOT_FOUND;
		f = room;
		CHECK(f && strlen(name) < NAME);
		strcpy(f->name, name);
		f->used = true;
	}
	*ret = f;
	*ret_bytes = f->bytes;
	return ST_OK;
}

static void sim_remove(struct disk *d, const char *name, struct disk_file *f)
{
	(void)d;
	(void)name;
	file_free(f);
}

static enum status sim_read(struct disk *d, struct disk_file *f, void *p, size_t n, uint64_t off)
{
	struct sim_image *im = ((struct sim *)d)->im;

	if (counted(im) || off + n > f->bytes || fault_of(im, DISK_READ) != SIM_OK)
		return trail(ST_IO, "reading");
	memcpy(p, f->now + off, n);
	return ST_OK;
}

static enum status sim_write(struct disk *d, struct disk_file *f, const void *p, size_t n, uint64_t off)
{
	struct sim_image *im = ((struct sim *)d)->im;

	if (counted(im) || fault_of(im, DISK_WRITE) != SIM_OK)
		return trail(ST_IO, "writing");
	put(im, f, p, (uint32_t)n, off);
	return ST_OK;
}

static enum status sim_sync(struct disk *d, struct disk_file *f)
{
	struct sim_image *im = ((struct sim *)d)->im;

	if (counted(im) || fault_of(im, f ? DISK_SYNC : DISK_SYNC_DIR) != SIM_OK)
		return trail(ST_IO, "flushing");
	if (!im->rules.lying_flush && f)
		flush(f, im->ended);
	else if (!im->rules.lying_flush)
		dir_flush(im);
	return ST_OK;
}

static void sim_lend(struct disk *d, const struct iovec *iov, unsigned n)
{
	(void)d;
	(void)iov;
	(void)n;
}

static void sim_free(struct disk *d)
{
	free(d);
}

static const struct disk_ops sim_ops = { .lock = sim_lock, .open = sim_open, .remove = sim_remove, .begin = sim_begin, .read = sim_read,
	.write = sim_write, .sync = sim_sync, .wait = sim_wait, .lend = sim_lend, .free = sim_free };

struct disk *sim_disk(struct sim_image *im, uring_fn *done, const struct sim_rules *rules)
{
	struct sim *sim = calloc(1, sizeof(*sim));

	CHECK(sim);
	sim->disk = (struct disk){ .ops = &sim_ops, .direct = true };
	sim->im = im;
	sim->done = done;
	im->rules = *rules;
	im->kind_count = 0;
	im->off = false;
	im->nops = 0;
	return &sim->disk;
}

/* ---- the power goes ---- */

/* One write reaches the disk, or not, or in parts. */
static void settle_write(struct sim_image *im, struct disk_file *f, const struct write *w)
{
	uint64_t fate = sim_random(im) % 3;
	uint32_t sector = im->rules.sector ? im->rules.sector : 512;

	for (uint32_t at = 0; at < w->n && fate; at += sector) {
		uint32_t n = w->n - at < sector ? w->n - at : sector;

		if (fate == 1 && sim_random(im) & 1)
			continue;
		memcpy(f->durable + w->off + at, w->data + at, n);
	}
	if (fate && w->off + w->n > f->durable_bytes && sim_random(im) & 1)
		f->durable_bytes = w->off + w->n;
}

static void settle_file(struct sim_image *im, struct disk_file *f)
{
	struct write *list[256], *w;
	unsigned n = 0;

	for (w = f->writes; w; w = w->next) {
		if (n == 256) { /* the oldest of very many: in order */
			settle_write(im, f, w);
			continue;
		}
		list[n++] = w;
	}
	for (; n; n--) { /* in any order */
		unsigned i = (unsigned)(sim_random(im) % n);

		settle_write(im, f, list[i]);
		list[i] = list[n - 1];
	}
	forget_writes(f);
	memset(f->durable + f->durable_bytes, 0, f->cap - f->durable_bytes);
	memcpy(f->now, f->durable, f->cap);
	f->bytes = f->durable_bytes;
	if (!f->named && sim_random(im) & 1)
		file_free(f);
	else
		f->named = true;
}

void sim_power_loss(struct sim_image *im)
{
	for (uint32_t i = 0; i < im->nops; i++) /* some of what was under way got there */
		if (im->op[i].io.kind == DISK_WRITE)
			put(im, im->op[i].io.file, im->op[i].io.p, im->op[i].io.n, im->op[i].io.off);
	im->nops = 0;
	im->off = true;
	for (unsigned i = 0; i < FILES; i++)
		if (im->file[i].used && im->file[i].cap)
			settle_file(im, &im->file[i]);
		else if (im->file[i].used && !im->file[i].named)
			file_free(&im->file[i]);
}
