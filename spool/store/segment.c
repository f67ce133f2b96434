/* Segments: files that are written once when they are made, claimed with a new generation, filled with batches, and recycled in the order of their generations
 * (so that a later record about a message can never be lost before the message's own). */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <xxhash.h>
#include "spool/base/counters.h"
#include "spool/store/internal.h"

static enum status seg_open(struct store *s, uint32_t index, int flags, int *ret_fd)
{
	char name[32];
	int fd;

	snprintf(name, sizeof(name), "seg-%08x", index);
	fd = openat(s->dir_fd, name, flags | O_CLOEXEC | (s->direct ? O_DIRECT : 0), 0600);
	if (fd < 0 && s->direct && errno == EINVAL) { /* a file system without it */
		s->direct = false;
		fd = openat(s->dir_fd, name, flags | O_CLOEXEC, 0600);
	}
	if (fd < 0)
		return trail_errno(errno, "%s/%s", s->dir, name);
	*ret_fd = fd;
	return ST_OK;
}

static void fill_next(struct store *s, struct segment *seg)
{
	struct io_uring_sqe *sqe = uring_sqe(s->uring);
	uint64_t left = s->cfg.segment_bytes - seg->fill;

	io_uring_prep_write(sqe, seg->fd, s->zeros, (unsigned)(left < FILL_CHUNK ? left : FILL_CHUNK), seg->fill);
	uring_tag(sqe, URING_STORE, OP_FILL, store_slot(s, (uint32_t)(seg - s->seg)), 0);
}

/* Writes all of it and makes it durable, waiting: at the start only. */
static enum status fill_now(struct store *s, struct segment *seg)
{
	for (uint64_t off = 0; off < s->cfg.segment_bytes;) {
		uint64_t left = s->cfg.segment_bytes - off;
		ssize_t n = pwrite(seg->fd, s->zeros, left < FILL_CHUNK ? left : FILL_CHUNK, (off_t)off);

		if (n <= 0)
			return trail_errno(n < 0 ? errno : ENOSPC, "%s: making a segment", s->dir);
		off += (uint64_t)n;
	}
	if (fsync(seg->fd) < 0 || fsync(s->dir_fd) < 0)
		return trail_errno(errno, "%s: making a segment", s->dir);
	return ST_OK;
}

static void drop_file(struct store *s, struct segment *seg)
{
	char name[32];

	snprintf(name, sizeof(name), "seg-%08x", seg->index);
	unlinkat(s->dir_fd, name, 0);
	close(seg->fd);
	seg->fd = -1;
	s->nsegs--;
}

enum status segment_create(struct store *s, bool background, struct segment **ret)
{
	struct segment *seg = &s->seg[s->nsegs];
	enum status st;

	if (s->nsegs == s->max_segs)
		return ST_FULL;
	*seg = (struct segment){ .fd = -1, .index = s->nsegs, .state = SEG_FILLING };
	st = seg_open(s, seg->index, O_RDWR | O_CREAT | O_TRUNC, &seg->fd);
	if (st != ST_OK)
		return st;
	s->nsegs++;
	if (background) {
		s->filling = true;
		fill_next(s, seg);
		return ST_OK;
	}
	st = fill_now(s, seg);
	if (st != ST_OK) {
		drop_file(s, seg);
		return st;
	}
	seg->state = SEG_FREE;
	if (ret)
		*ret = seg;
	return ST_OK;
}

void seg_header_make(struct seg_header *h, uint32_t partition, uint32_t index, uint64_t generation, uint64_t bytes)
{
	*h = (struct seg_header){ .magic = SEGMENT_MAGIC, .version = FORMAT_VERSION, .partition = partition, .index = index,
		.generation = generation, .bytes = bytes };
	h->checksum = XXH3_64bits(h, offsetof(struct seg_header, checksum));
}

bool seg_header_ok(const void *block, struct seg_header *ret)
{
	memcpy(ret, block, sizeof(*ret));
	return ret->magic == SEGMENT_MAGIC && ret->checksum == XXH3_64bits(ret, offsetof(struct seg_header, checksum));
}

/* Gives a free segment a new generation; it is ready when that is durable. */
static void claim(struct store *s, struct segment *seg)
{
	struct io_uring_sqe *sqe = uring_sqe(s->uring);

	seg->state = SEG_CLAIMING;
	seg->generation = s->next_generation++;
	seg->end = BLOCK;
	seg->suspect = false;
	memset(s->claim_block, 0, BLOCK);
	seg_header_make((struct seg_header *)(void *)s->claim_block, s->cfg.partition, seg->index, seg->generation, s->cfg.segment_bytes);
	io_uring_prep_write(sqe, seg->fd, s->claim_block, BLOCK, 0);
	uring_tag(sqe, URING_STORE, OP_CLAIM, store_slot(s, (uint32_t)(seg - s->seg)), 0);
	s->next = seg;
}

void segment_completion(struct store *s, const struct uring_event *ev)
{
	struct segment *seg = &s->seg[ev->slot & 0x3ffff];
	struct io_uring_sqe *sqe;

	if (ev->res < 0) {
		counter_add(C_SPOOL_IO_ERRORS, 1);
		if (ev->op == OP_FILL || ev->op == OP_FILL_SYNC) {
			drop_file(s, seg); /* no room on the disk: the ring stays as it is */
			s->max_segs = s->nsegs;
			s->filling = false;
		} else {
			fence(s, "claiming a segment", -ev->res);
		}
		return;
	}
	switch ((enum store_op)ev->op) {
	case OP_FILL:
		seg->fill += (uint64_t)ev->res;
		if (seg->fill < s->cfg.segment_bytes) {
			fill_next(s, seg);
			return;
		}
		fsync(s->dir_fd); /* once in the life of a segment */
		sqe = uring_sqe(s->uring);
		io_uring_prep_fsync(sqe, seg->fd, 0);
		uring_tag(sqe, URING_STORE, OP_FILL_SYNC, ev->slot, 0);
		break;
	case OP_FILL_SYNC:
		seg->state = SEG_FREE;
		s->filling = false;
		break;
	case OP_CLAIM:
		sqe = uring_sqe(s->uring);
		io_uring_prep_fsync(sqe, seg->fd, IORING_FSYNC_DATASYNC);
		uring_tag(sqe, URING_STORE, OP_CLAIM_SYNC, ev->slot, 0);
		break;
	case OP_CLAIM_SYNC:
		seg->state = SEG_READY;
		break;
	case OP_WRITE:
	case OP_SYNC:
	case OP_READ:
		break;
	}
}

uint32_t segment_count(const struct store *s, enum seg_state st)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < s->nsegs; i++)
		n += s->seg[i].state == st;
	return n;
}

struct segment *segment_oldest(struct store *s)
{
	struct segment *old = NULL;

	for (uint32_t i = 0; i < s->nsegs; i++)
		if (s->seg[i].state == SEG_FULL && (!old || s->seg[i].generation < old->generation))
			old = &s->seg[i];
	return old;
}

void segment_live(struct store *s, uint32_t index, int change)
{
	CHECK(index < s->nsegs && (change > 0 || s->seg[index].live));
	s->seg[index].live += (uint32_t)change;
}

/* Batches in flight to it have no records of live messages counted yet. */
static bool has_flying(const struct store *s, const struct segment *seg)
{
	const struct batch *b;

	TAILQ_FOREACH(b, &s->flying, entry)
		if (b->seg == seg)
			return true;
	return false;
}

void segment_upkeep(struct store *s)
{
	struct segment *seg;

	while ((seg = segment_oldest(s)) && !seg->live && !has_flying(s, seg)) {
		seg->state = SEG_FREE;
		counter_add(C_SPOOL_RECLAIMED, 1);
	}
	if (s->fenced)
		return;
	if (!s->next) {
		for (uint32_t i = 0; i < s->nsegs && !s->next; i++)
			if (s->seg[i].state == SEG_FREE)
				claim(s, &s->seg[i]);
	}
	if (!s->filling && s->nsegs < s->max_segs && segment_count(s, SEG_FREE) == 0 && segment_create(s, true, NULL) != ST_OK)
		s->max_segs = s->nsegs;
	counter_set(C_SPOOL_SEGMENTS, s->nsegs);
	counter_set(C_SPOOL_SEGMENTS_FREE, segment_count(s, SEG_FREE));
}

struct segment *segment_for(struct store *s, uint32_t n)
{
	if (s->active && s->active->end + n <= s->cfg.segment_bytes && !s->active->suspect)
		return s->active;
	if (!s->next || s->next->state != SEG_READY)
		return NULL;
	if (s->active)
		s->active->state = SEG_FULL;
	s->active = s->next;
	s->active->state = SEG_ACTIVE;
	s->next = NULL;
	return s->active;
}

static enum status make_room_for(struct store *s, uint32_t index)
{
	struct segment *bigger;

	if (index < s->max_segs)
		return ST_OK;
	/* the bound was made smaller: what exists is used all the same */
	bigger = realloc(s->seg, (index + 1) * sizeof(*bigger));
	if (!bigger)
		return ST_NOMEM;
	s->seg = bigger;
	s->max_segs = index + 1;
	return ST_OK;
}

/* Opens what files there are; recovery finds out what they hold. The size of a partition's segments is that of its first ones, whatever the
 * configuration says later. A file that is too short was being made when the power went: it is made anew. */
enum status segment_open_all(struct store *s)
{
	enum status st = ST_OK;
	uint64_t bytes = 0;
	char name[32];

	for (uint32_t i = 0; st == ST_OK; i++) {
		snprintf(name, sizeof(name), "seg-%08x", i);
		if (faccessat(s->dir_fd, name, F_OK, 0) < 0)
			break;
		st = make_room_for(s, i);
		if (st != ST_OK)
			break;
		s->seg[i] = (struct segment){ .fd = -1, .index = i, .state = SEG_FREE };
		s->nsegs = i + 1;
		st = seg_open(s, i, O_RDWR, &s->seg[i].fd);
		if (st == ST_OK) {
			off_t n = lseek(s->seg[i].fd, 0, SEEK_END);

			s->seg[i].fill = n > 0 ? (uint64_t)n : 0;
			bytes = s->seg[i].fill > bytes ? s->seg[i].fill : bytes;
		}
	}
	if (bytes >= 16 * BLOCK && bytes % BLOCK == 0)
		s->cfg.segment_bytes = bytes;
	for (uint32_t i = 0; i < s->nsegs && st == ST_OK; i++)
		if (s->seg[i].fill != s->cfg.segment_bytes)
			st = fill_now(s, &s->seg[i]);
	return st;
}
