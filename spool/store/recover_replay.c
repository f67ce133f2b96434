/* The log, read batch by batch from both streams in the order of their composing: which batches count. */
#include "spool/store/recover.h"

#include <stdlib.h>
#include "spool/base/counters.h"
#include "spool/base/log.h"

/* ---- the streams ---- */

static int by_generation(const void *a, const void *b)
{
	const struct segment *const *x = a, *const *y = b;

	return (*x)->generation < (*y)->generation ? -1 : (*x)->generation > (*y)->generation;
}

enum status replay_new(struct recovery *rc)
{
	struct store *s = rc->s;

	for (unsigned k = 0; k < NSTREAMS; k++) {
		struct cursor *c = &rc->cursor[k];

		c->seg = calloc(s->nsegs + 1, sizeof(struct segment *));
		c->buf = big_alloc(s->cfg.segment_bytes);
		if (!c->seg || !c->buf)
			return ST_NOMEM;
		for (uint32_t i = 0; i < s->nsegs; i++)
			if (s->seg[i].generation && s->seg[i].stream == k && s->seg[i].generation >= rc->from.generation[k])
				c->seg[c->nsegs++] = &s->seg[i];
		qsort(c->seg, c->nsegs, sizeof(struct segment *), by_generation);
	}
	return ST_OK;
}

/* Finds the next batch of the stream. */
static enum status advance(struct recovery *rc, struct cursor *c)
{
	struct store *s = rc->s;
	uint64_t bytes = s->cfg.segment_bytes;
	enum status st;

	if (c->b.bytes)
		c->off += c->b.bytes;
	c->b.bytes = 0;
	for (; c->at < c->nsegs; c->at++, c->loaded = false) {
		struct segment *seg = c->seg[c->at];

		if (!c->loaded) {
			c->off = seg->generation == rc->from.generation[seg->stream] && rc->from.off[seg->stream] ?
				rc->from.off[seg->stream] : BLOCK;
			st = s->disk->ops->sync(s->disk, seg->file); /* what is read now must also be there after the next power loss */
			if (st == ST_OK && c->off < bytes)
				st = s->disk->ops->read(s->disk, seg->file, c->buf + c->off, bytes - c->off, c->off);
			if (st != ST_OK)
				return st;
			c->loaded = true;
			c->buf_from = c->off;
			c->hole = false;
			if (c->off > BLOCK) {
				c->last = seg;
				c->end = c->off;
			}
		}
		for (; c->off < bytes; c->off += BLOCK) {
			if (batch_valid(c->buf + c->off, bytes - c->off, seg->generation, &c->b)) {
				c->last = seg;
				c->end = c->off + c->b.bytes;
				return ST_OK;
			}
			c->hole = true; /* the end, a torn batch, or damage: what comes later tells which */
		}
	}
	c->b.bytes = 0;
	return ST_OK;
}

/* ---- which batches count ---- */

static enum status apply_batch(struct recovery *rc, const char *bytes, const struct batch_header *b, const struct segment *seg, uint64_t off)
{
	rc->seg = seg;
	rc->off = off;
	if (b->next_number > rc->s->next_number)
		rc->s->next_number = b->next_number;
	return batch_records(bytes, b, apply_record, rc);
}

static enum status hold(struct recovery *rc, const struct cursor *c)
{
	size_t n = sizeof(c->b) + c->b.record_bytes;
	struct held *h = malloc(sizeof(*h) + n);

	if (!h)
		return ST_NOMEM;
	*h = (struct held){ .b = c->b, .seg = c->seg[c->at], .off = c->off };
	memcpy(h->bytes, c->buf + c->off, n);
	*rc->held_end = h;
	rc->held_end = &h->next;
	return ST_OK;
}

/* The batches that were held count, or are void. */
static enum status release_held(struct recovery *rc, bool count)
{
	enum status st = ST_OK;
	struct held *h;

	while ((h = rc->held)) {
		rc->held = h->next;
		if (count && st == ST_OK)
			st = apply_batch(rc, h->bytes, &h->b, h->seg, h->off);
		free(h);
	}
	rc->held_end = &rc->held;
	rc->gap = 0;
	return st;
}

/* Batches from rc->gap on are missing that were durable: said, and the segment is kept as it is. */
static void damaged(struct recovery *rc)
{
	struct cursor *c = rc->now;
	struct segment *seg = c->hole || !c->at ? c->seg[c->at] : c->seg[c->at - 1];

	seg->quarantined = true;
	rc->s->damaged++;
	counter_add(C_SPOOL_DAMAGED, 1);
	log_msg(LOG_LVL_ERROR, "spool-damaged", "%s: batches from %llu on were durable and cannot be read; segment %u is kept aside",
		rc->s->cfg.dir, (unsigned long long)rc->gap, seg->index);
}

/* The batch begins a run of the writer: what is missing below it was torn, and the run before told nobody of anything behind that. */
static bool begins_run(const struct cursor *c)
{
	const struct run_record *r = (const struct run_record *)(const void *)(c->buf + c->off + sizeof(c->b));

	return c->b.record_bytes >= sizeof(*r) && r->h.type == REC_RUN && r->first_seq == c->b.seq;
}

/* In the order of composing. Behind a missing batch nothing counts, unless a later one says that it was durable: then there is damage. */
static enum status on_batch(struct recovery *rc, struct cursor *c)
{
	enum status st = ST_OK;

	rc->now = c;
	if (begins_run(c))
		st = release_held(rc, false);
	else if (rc->last_seq && !rc->gap && !rc->newest_lost && c->b.seq > rc->last_seq + 1)
		rc->gap = rc->last_seq + 1;
	rc->last_seq = c->b.seq > rc->last_seq ? c->b.seq : rc->last_seq;
	rc->max_durable = c->b.durable > rc->max_durable ? c->b.durable : rc->max_durable;
	rc->s->logged_bytes += c->b.bytes;
	if (rc->gap && rc->max_durable >= rc->gap) {
		damaged(rc);
		st = release_held(rc, true);
	}
	if (st != ST_OK)
		return st;
	return rc->gap ? hold(rc, c) : apply_batch(rc, c->buf + c->off, &c->b, c->seg[c->at], c->off);
}

enum status replay(struct recovery *rc)
{
	struct cursor *hot = &rc->cursor[STREAM_HOT], *cold = &rc->cursor[STREAM_COLD];
	enum status st = advance(rc, hot);

	if (st == ST_OK)
		st = advance(rc, cold);
	while (st == ST_OK && (hot->b.bytes || cold->b.bytes)) {
		struct cursor *c = !hot->b.bytes || (cold->b.bytes && cold->b.seq < hot->b.seq) ? cold : hot;

		if (c->b.seq >= rc->from.seq)
			st = on_batch(rc, c);
		c->hole = false;
		if (st == ST_OK)
			st = advance(rc, c);
	}
	if (release_held(rc, false) != ST_OK || st != ST_OK)
		return st;
	return ST_OK;
}

void replay_resume(struct recovery *rc)
{
	for (unsigned k = 0; k < NSTREAMS; k++) {
		struct cursor *c = &rc->cursor[k];
		struct segment *newest = c->nsegs ? c->seg[c->nsegs - 1] : NULL;

		if (c->last && !c->last->quarantined && c->end < rc->s->cfg.segment_bytes) {
			c->last->state = SEG_ACTIVE;
			c->last->end = c->end;
			rc->s->active[k] = c->last;
		}
		if (newest && newest != c->last && !newest->quarantined) { /* claimed, and not written to yet */
			newest->state = SEG_READY;
			newest->end = BLOCK;
			rc->s->next[k] = newest;
		}
	}
}

void replay_free(struct recovery *rc)
{
	for (unsigned k = 0; k < NSTREAMS; k++) {
		free(rc->cursor[k].seg);
		free(rc->cursor[k].buf);
	}
}
