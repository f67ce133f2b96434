/* Segments: files that are written once when they are made, claimed with a new generation, filled with batches, and recycled when nothing in them is wanted any
 * more and a checkpoint has made their records needless. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include "spool/base/counters.h"
#include "spool/store/internal.h"

static void seg_name(uint32_t index, char ret[32])
{
	snprintf(ret, 32, "seg-%08x", index);
}

static uint32_t number(const struct store *s, const struct segment *seg)
{
	return (uint32_t)(seg - s->seg);
}

static void begin(struct store *s, struct segment *seg, enum disk_kind kind, enum store_op op, void *p, uint32_t n, uint64_t off)
{
	s->disk->ops->begin(s->disk, &(struct disk_io){ .kind = kind, .file = seg->file, .p = p, .n = n, .off = off, .registered = -1,
		.tag = store_tag(s, op, number(s, seg), 0) });
}

static void fill_next(struct store *s, struct segment *seg)
{
	uint64_t left = s->cfg.segment_bytes - seg->fill;

	begin(s, seg, DISK_WRITE, OP_FILL, s->zeros, (uint32_t)(left < FILL_CHUNK ? left : FILL_CHUNK), seg->fill);
}

/* Writes all of it and makes it durable, waiting: at the start only. */
static enum status fill_now(struct store *s, struct segment *seg)
{
	enum status st = ST_OK;

	for (uint64_t off = 0; off < s->cfg.segment_bytes && st == ST_OK; off += FILL_CHUNK) {
		uint64_t left = s->cfg.segment_bytes - off;

		st = s->disk->ops->write(s->disk, seg->file, s->zeros, left < FILL_CHUNK ? left : FILL_CHUNK, off);
	}
	if (st == ST_OK)
		st = s->disk->ops->sync(s->disk, seg->file);
	return st == ST_OK ? s->disk->ops->sync(s->disk, NULL) : st;
}

static void drop_file(struct store *s, struct segment *seg)
{
	char name[32];

	seg_name(seg->index, name);
	s->disk->ops->remove(s->disk, name, seg->file);
	seg->file = NULL;
	s->nsegs--;
}

/* The file, empty of meaning. */
static enum status make(struct store *s, struct segment **ret)
{
	struct segment *seg = &s->seg[s->nsegs];
	uint64_t bytes;
	char name[32];
	enum status st;

	if (s->nsegs == s->max_segs)
		return ST_FULL;
	*seg = (struct segment){ .index = s->nsegs, .state = SEG_FILLING };
	seg_name(seg->index, name);
	st = s->disk->ops->open(s->disk, name, true, &seg->file, &bytes);
	if (st == ST_OK) {
		s->nsegs++;
		*ret = seg;
	}
	return st;
}

enum status segment_create(struct store *s)
{
	struct segment *seg;
	enum status st = make(s, &seg);

	if (st != ST_OK)
		return st;
	st = fill_now(s, seg);
	if (st == ST_OK)
		seg->state = SEG_FREE;
	else
		drop_file(s, seg);
	return st;
}

/* Gives a free segment a new generation; it is ready when that is durable. */
static void claim(struct store *s, struct segment *seg, enum stream stream)
{
	char *block = s->claim_block[stream];
	struct seg_header h = { .partition = s->cfg.partition, .index = seg->index, .generation = s->next_generation++,
		.bytes = s->cfg.segment_bytes, .stream = stream, .checkpoint = checkpoint_number(s) };

	seg->state = SEG_CLAIMING;
	seg->stream = (uint8_t)stream;
	seg->generation = h.generation;
	seg->end = BLOCK;
	seg->suspect = false;
	seg_header_make(&h);
	memset(block, 0, BLOCK);
	memcpy(block, &h, sizeof(h));
	s->next[stream] = seg;
	begin(s, seg, DISK_WRITE, OP_CLAIM, block, BLOCK, 0);
}

static void filled(struct store *s, struct segment *seg, int res)
{
	seg->fill += (uint64_t)res;
	if (seg->fill < s->cfg.segment_bytes)
		fill_next(s, seg);
	else
		begin(s, seg, DISK_SYNC, OP_FILL_DIR, NULL, 0, 0);
}

void segment_completion(struct store *s, const struct uring_event *ev)
{
	struct segment *seg = &s->seg[ev->slot & 0x3ffff];

	if (ev->res < 0 || (ev->op == OP_FILL && ev->res % BLOCK) || (ev->op == OP_CLAIM && ev->res != BLOCK)) {
		int err = ev->res < 0 ? -ev->res : EIO;

		counter_add(C_SPOOL_IO_ERRORS, 1);
		if (ev->op == OP_CLAIM || ev->op == OP_CLAIM_SYNC) {
			fence(s, "claiming a segment", err);
			return;
		}
		drop_file(s, seg); /* no room on the disk: the ring stays as it is */
		s->max_segs = s->nsegs;
		s->filling = false;
		return;
	}
	if (ev->op == OP_FILL) {
		filled(s, seg, ev->res);
	} else if (ev->op == OP_FILL_DIR) {
		begin(s, seg, DISK_SYNC_DIR, OP_FILL_SYNC, NULL, 0, 0);
	} else if (ev->op == OP_FILL_SYNC) {
		seg->state = SEG_FREE;
		s->filling = false;
	} else if (ev->op == OP_CLAIM) {
		begin(s, seg, DISK_DATASYNC, OP_CLAIM_SYNC, NULL, 0, 0);
	} else {
		seg->state = SEG_READY;
	}
}

uint32_t segment_count(const struct store *s, enum seg_state st)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < s->nsegs; i++)
		n += s->seg[i].state == st;
	return n;
}

uint32_t segments_left(const struct store *s)
{
	return s->max_segs - s->nsegs + segment_count(s, SEG_FREE);
}

void segment_live(struct store *s, uint32_t index, int change, uint64_t bytes)
{
	struct segment *seg = &s->seg[index];

	CHECK(index < s->nsegs && (change > 0 || (seg->live && seg->live_bytes >= bytes)));
	seg->live += (uint32_t)change;
	seg->live_bytes += change > 0 ? bytes : -bytes;
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

static void recycle(struct store *s)
{
	if (checkpoint_running(s))
		return; /* what it has written so far may point anywhere */
	for (uint32_t i = 0; i < s->nsegs; i++) {
		struct segment *seg = &s->seg[i];

		if (seg->state != SEG_FULL || seg->live || seg->reads || seg->quarantined ||
			seg->generation >= checkpoint_needs(s, seg->stream) || has_flying(s, seg))
			continue;
		seg->state = SEG_FREE;
		counter_add(C_SPOOL_RECLAIMED, 1);
	}
}

static void prepare(struct store *s, enum stream stream)
{
	for (uint32_t i = 0; i < s->nsegs && !s->next[stream]; i++)
		if (s->seg[i].state == SEG_FREE)
			claim(s, &s->seg[i], stream);
}

bool segment_cold_ready(struct store *s)
{
	const struct segment *a = s->active[STREAM_COLD];

	if (a && !a->suspect && a->end + s->cfg.staging_bytes <= s->cfg.segment_bytes)
		return true;
	prepare(s, STREAM_COLD);
	return s->next[STREAM_COLD] && s->next[STREAM_COLD]->state == SEG_READY;
}

void segment_upkeep(struct store *s)
{
	struct segment *seg;

	recycle(s);
	if (s->fenced)
		return;
	prepare(s, STREAM_HOT);
	if (segments_left(s) <= RESERVE_SEGMENTS)
		segment_cold_ready(s); /* before outcomes take the last one */
	if (!s->filling && s->nsegs < s->max_segs && segment_count(s, SEG_FREE) < 2) {
		if (make(s, &seg) == ST_OK) {
			s->filling = true;
			fill_next(s, seg);
		} else {
			s->max_segs = s->nsegs;
		}
	}
	counter_set(C_SPOOL_SEGMENTS, s->nsegs);
	counter_set(C_SPOOL_SEGMENTS_FREE, segment_count(s, SEG_FREE));
}

struct segment *segment_for(struct store *s, enum stream stream, uint32_t n)
{
	struct segment *active = s->active[stream];

	if (active && active->end + n <= s->cfg.segment_bytes && !active->suspect)
		return active;
	prepare(s, stream);
	if (!s->next[stream] || s->next[stream]->state != SEG_READY)
		return NULL;
	if (active)
		active->state = SEG_FULL;
	s->active[stream] = s->next[stream];
	s->active[stream]->state = SEG_ACTIVE;
	s->next[stream] = NULL;
	return s->active[stream];
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
		struct disk_file *file;
		uint64_t n;

		seg_name(i, name);
		st = s->disk->ops->open(s->disk, name, false, &file, &n);
		if (st == ST_OK)
			st = make_room_for(s, i);
		if (st != ST_OK)
			break;
		s->seg[i] = (struct segment){ .file = file, .index = i, .state = SEG_FREE, .fill = n };
		s->nsegs = i + 1;
		bytes = n > bytes ? n : bytes;
	}
	if (st == ST_NOT_FOUND)
		st = ST_OK;
	if (bytes >= 16 * BLOCK && bytes % BLOCK == 0)
		s->cfg.segment_bytes = bytes;
	for (uint32_t i = 0; i < s->nsegs && st == ST_OK; i++)
		if (s->seg[i].fill != s->cfg.segment_bytes)
			st = fill_now(s, &s->seg[i]);
	return st;
}
