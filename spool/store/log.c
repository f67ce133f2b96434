/* The log: records into batches, batches to the disk in the order of their composing, and only then the news of their durability. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include "spool/base/clock.h"
#include "spool/base/counters.h"
#include "spool/base/hash.h"
#include "spool/store/internal.h"

enum { TRIES = 3 };
#define RUN_EVERY_NS (60 * NS_PER_S)

void event_push(struct store *s, struct store_event ev)
{
	if (s->nevents == s->event_cap) {
		uint32_t cap = s->event_cap ? s->event_cap * 2 : 64;
		struct store_event *bigger = malloc(cap * sizeof(*bigger));

		CHECK(bigger);
		for (uint32_t i = 0; i < s->nevents; i++)
			bigger[i] = s->event[(s->event_head + i) % s->event_cap];
		free(s->event);
		s->event = bigger;
		s->event_cap = cap;
		s->event_head = 0;
	}
	s->event[(s->event_head + s->nevents++) % s->event_cap] = ev;
}

bool store_event(struct store *s, struct store_event *ret)
{
	if (!s->nevents)
		return false;
	*ret = s->event[s->event_head];
	s->event_head = (s->event_head + 1) % s->event_cap;
	s->nevents--;
	return true;
}

/* ---- batches ---- */

static struct batch *batch_new(struct store *s, enum stream stream, size_t need)
{
	struct batch *b = s->nspare && need <= s->cfg.staging_bytes - BLOCK ? s->spare[--s->nspare] : NULL;
	size_t cap = need + BLOCK > s->cfg.staging_bytes ? (size_t)pad_block(need + BLOCK) : s->cfg.staging_bytes;

	if (!b) {
		b = calloc(1, sizeof(*b));
		CHECK(b);
		b->staging = aligned_alloc(BLOCK, cap);
		CHECK(b->staging);
		b->cap = cap;
		b->registered = -1;
	}
	b->stream = stream;
	b->number = ++s->next_batch;
	b->used = sizeof(struct batch_header);
	b->notes.n = 0;
	b->records = b->raw_bytes = b->nraw = b->nmsg = b->nunused = b->writes = 0;
	b->tries = 0;
	b->seq = 0;
	b->failed = b->synced = false;
	b->seg = NULL;
	return b;
}

void batch_free(struct batch *b)
{
	free(b->staging);
	free(b->raw);
	free(b->msg);
	free(b->unused);
	free(b->notes.p);
	free(b);
}

static void batch_recycle(struct store *s, struct batch *b)
{
	if (s->nspare < SPARES && b->cap == s->cfg.staging_bytes)
		s->spare[s->nspare++] = b;
	else
		batch_free(b);
}

/* The batch of the stream that takes n more record bytes and raw more raw bytes. There is one open batch: what is composed later is on the disk later, whatever
 * its stream. */
struct batch *batch_for(struct store *s, enum stream stream, size_t n, uint32_t raw)
{
	struct batch *b = s->open;
	uint64_t most = s->cfg.segment_bytes - BLOCK;

	if (b && (b->stream != stream || b->used + n > b->cap || pad_block(b->used + n) + (uint64_t)b->raw_bytes + raw > most / 2)) {
		TAILQ_INSERT_TAIL(&s->waiting, b, entry);
		b = NULL;
	}
	if (!b)
		b = s->open = batch_new(s, stream, n);
	return b;
}

void *record_begin(struct batch *b, size_t n, enum record_type type, uint64_t id)
{
	size_t padded = (n + 7) & ~(size_t)7;
	struct record_header *h = (struct record_header *)(void *)(b->staging + b->used);

	memset(b->staging + b->used + n, 0, padded - n);
	*h = (struct record_header){ .bytes = (uint32_t)padded, .type = (uint16_t)type, .msg_id = id };
	b->used += padded;
	b->records++;
	return h;
}

struct batch_msg *batch_add_msg(struct batch *b)
{
	if (b->nmsg == b->msg_cap) {
		uint32_t cap = b->msg_cap ? b->msg_cap * 2 : 64;
		struct batch_msg *bigger = realloc(b->msg, cap * sizeof(*bigger));

		CHECK(bigger);
		b->msg = bigger;
		b->msg_cap = cap;
	}
	return &b->msg[b->nmsg++];
}

void batch_add_unused(struct batch *b, uint32_t segment, uint64_t bytes)
{
	if (b->nunused == b->unused_cap) {
		uint32_t cap = b->unused_cap ? b->unused_cap * 2 : 64;
		struct piece_use *bigger = realloc(b->unused, cap * sizeof(*bigger));

		CHECK(bigger);
		b->unused = bigger;
		b->unused_cap = cap;
	}
	b->unused[b->nunused++] = (struct piece_use){ segment, (uint32_t)bytes };
}

uint32_t batch_add_raw(struct batch *b, struct piece *p, struct msg *m)
{
	uint32_t rel = b->raw_bytes;

	if (b->nraw == b->raw_cap) {
		uint32_t cap = b->raw_cap ? b->raw_cap * 2 : 16;
		struct raw *bigger = realloc(b->raw, cap * sizeof(*bigger));

		CHECK(bigger);
		b->raw = bigger;
		b->raw_cap = cap;
	}
	b->raw[b->nraw++] = (struct raw){ .piece = p, .msg = m, .rel = rel };
	b->raw_bytes += pad_block(p->len);
	p->queued = true;
	return rel;
}

/* ---- to the disk ---- */

static void submit_write(struct store *s, struct batch *b, void *p, uint32_t n, uint64_t off, int registered)
{
	s->disk->ops->begin(s->disk, &(struct disk_io){ .kind = DISK_WRITE, .file = b->seg->file, .p = p, .n = n, .off = off,
		.registered = registered, .tag = store_tag(s, OP_WRITE, b->slot, b->seq) });
	b->writes++;
	b->unwritten += n;
	counter_add(C_COMMIT_BYTES, n);
}

static void seal_header(struct store *s, struct batch *b, uint32_t rec_area)
{
	struct batch_header *h = (struct batch_header *)(void *)b->staging;

	memset(b->staging + b->used, 0, rec_area - b->used);
	*h = (struct batch_header){ .magic = BATCH_MAGIC, .generation = b->seg->generation, .seq = b->seq, .durable = s->durable_seq,
		.next_number = s->next_number, .bytes = rec_area + b->raw_bytes, .record_bytes = (uint32_t)(b->used - sizeof(*h)),
		.records = b->records, .raw_bytes = b->raw_bytes };
	h->checksum = XXH3_64bits_withSeed(b->staging, b->used, h->generation);
}

static void submit_batch(struct store *s, struct batch *b, struct segment *seg)
{
	uint32_t rec_area = pad_block(b->used);
	uint64_t raw_off;

	b->seg = seg;
	b->off = seg->end;
	if (!b->seq) /* one that is written again keeps its place in the order */
		b->seq = s->next_seq++;
	b->start_ns = clock_mono_ns();
	b->failed = b->synced = false;
	b->unwritten = 0;
	b->slot = (uint32_t)(b->seq % 64);
	CHECK(!s->by_slot[b->slot]);
	s->by_slot[b->slot] = b;
	seg->end += rec_area + b->raw_bytes;
	s->logged_bytes += rec_area + b->raw_bytes;
	seal_header(s, b, rec_area);
	submit_write(s, b, b->staging, rec_area, b->off, b->registered);
	raw_off = b->off + rec_area;
	for (uint32_t i = 0; i < b->nraw; i++) {
		struct piece *p = b->raw[i].piece;
		uint32_t n = pad_block(p->len);
		char *at = arena_at(s->arena, p->ext.off);

		memset(at + p->len, 0, n - p->len);
		submit_write(s, b, at, n, raw_off + b->raw[i].rel, s->disk->registered ? 0 : -1);
		p->segment = seg->index;
		p->generation = seg->generation;
		p->off = raw_off + b->raw[i].rel;
	}
	TAILQ_INSERT_TAIL(&s->flying, b, entry);
	s->nflying++;
	counter_add(C_COMMITS, 1);
	counter_add(C_COMMIT_RECORDS, b->records);
}

void store_commit(struct store *s)
{
	segment_upkeep(s);
	compact_turn(s);
	checkpoint_turn(s);
	ledger_turn(s);
	while (!s->fenced && s->nflying < BATCHES_IN_FLIGHT) {
		struct batch *b = TAILQ_FIRST(&s->waiting);
		struct segment *seg;

		if (!b && (!s->open || !s->open->records))
			break;
		if (!b) {
			if (clock_mono_ns() - s->run_told_ns >= RUN_EVERY_NS && s->open->stream == STREAM_HOT) {
				s->run_told_ns = clock_mono_ns();
				log_run(s);
			}
			b = s->open;
			s->open = NULL;
			TAILQ_INSERT_TAIL(&s->waiting, b, entry);
			b = TAILQ_FIRST(&s->waiting);
		}
		seg = segment_for(s, b->stream, pad_block(b->used) + b->raw_bytes);
		if (!seg) {
			segment_upkeep(s);
			break; /* goes on when a segment is ready */
		}
		TAILQ_REMOVE(&s->waiting, b, entry);
		submit_batch(s, b, seg);
	}
}

/* ---- back from the disk ---- */

/* Its index entry points at the new record from now on. */
static void entry_place(struct store *s, const struct batch *b, const struct batch_msg *bm, uint32_t slot)
{
	struct entry *e = index_at(s->index, slot);

	if (e->flags & ENTRY_IN_LOG)
		entry_live(s, e, -1);
	e->segment = b->seg->index;
	e->off = (uint32_t)b->off + bm->rel;
	e->head = bm->head;
	e->hash = bm->hash;
	e->raw_start = (uint32_t)b->off + pad_block(b->used);
	e->flags |= ENTRY_IN_LOG;
	if (!bm->msg) {
		if ((e->flags & ENTRY_MOVING) && !(e->flags & ENTRY_WAKING) && !e->msg)
			deltas_free(e); /* they are in the new record */
		e->flags = (uint8_t)((e->flags & ~(ENTRY_MOVING | ENTRY_COPYING)) | ENTRY_MOVED);
	}
	entry_live(s, e, 1);
}

static void msg_durable(struct store *s, struct batch *b, struct batch_msg *bm)
{
	struct msg *m = bm->msg;
	uint32_t slot = m ? m->slot : index_find(s->index, bm->id);

	if (slot != SLOT_NONE)
		entry_place(s, b, bm, slot);
	for (uint32_t i = 0; i < bm->nold; i++)
		piece_free(s, bm->old[i]);
	free(bm->old);
	if (!m)
		return;
	m->nbatch--;
	if (slot == SLOT_NONE) {
		msg_let_go(s, m);
		return;
	}
	event_push(s, (struct store_event){ .type = STORE_DURABLE, .msg = &m->pub });
	msg_maybe_evict(m);
}

static void raw_durable(struct store *s, const struct raw *r)
{
	struct piece *p = r->piece;

	p->queued = false;
	p->on_disk = true;
	segment_live(s, p->segment, 1, p->len);
	if (p->orphan) {
		piece_free(s, p);
	} else if (!p->kept && store_pressed(s)) {
		extent_release(s->arena, p->ext); /* a spilled piece under pressure */
		p->ext.cap = 0;
	} else {
		s->reclaimable = true;
	}
}

static void put_waiting(struct store *s)
{
	struct msg *m, *next;

	for (m = TAILQ_FIRST(&s->waiting_put); m; m = next) {
		next = TAILQ_NEXT(m, waiting);
		if (pieces_queued(m))
			continue;
		TAILQ_REMOVE(&s->waiting_put, m, waiting);
		m->waits_for_pieces = false;
		log_message(s, m, SPAN_NONE);
	}
}

static void batch_durable(struct store *s, struct batch *b)
{
	s->durable_seq = b->seq;
	s->durable_batch = b->number;
	counter_add(C_COMMIT_NS, clock_mono_ns() - b->start_ns);
	for (uint32_t i = 0; i < b->nraw; i++)
		raw_durable(s, &b->raw[i]);
	for (uint32_t i = 0; i < b->nmsg; i++)
		msg_durable(s, b, &b->msg[i]);
	for (uint32_t i = 0; i < b->nunused; i++)
		segment_live(s, b->unused[i].segment, -1, b->unused[i].len);
	ledger_take(s, b);
	if (b->nraw)
		put_waiting(s);
	if (s->room_wanted) {
		s->room_wanted = false;
		event_push(s, (struct store_event){ .type = STORE_ROOM });
	}
}

/* Durability is told in the order of the batches. */
static void retire(struct store *s)
{
	struct batch *b;

	while ((b = TAILQ_FIRST(&s->flying)) && b->synced) {
		TAILQ_REMOVE(&s->flying, b, entry);
		s->nflying--;
		s->by_slot[b->slot] = NULL;
		batch_durable(s, b);
		b->nmsg = b->nraw = 0;
		batch_recycle(s, b);
	}
}

static void fail_batch(struct store *s, struct batch *b)
{
	for (uint32_t i = 0; i < b->nmsg; i++) {
		struct msg *m = b->msg[i].msg;

		if (!m)
			continue;
		m->nbatch--;
		b->msg[i].msg = NULL;
		if (m->slot != SLOT_NONE)
			event_push(s, (struct store_event){ .type = STORE_FAILED, .msg = &m->pub, .reason = s->fence_reason });
		else if (!m->nbatch)
			msg_free(s, m);
	}
}

/* A flush failed, or writes did time and again: nothing more is written or trusted here until a restart has read it back. */
void fence(struct store *s, const char *what, int err)
{
	struct batch *b;
	struct msg *m;

	counter_add(C_SPOOL_IO_ERRORS, 1);
	if (s->fenced)
		return;
	s->fenced = true;
	if (trail_errno(err, "%s: %s", s->cfg.dir, what) != ST_OK)
		snprintf(s->fence_text, sizeof(s->fence_text), "%s", trail_text());
	s->fence_reason = s->fence_text;
	counter_add(C_SPOOL_FENCED, 1);
	event_push(s, (struct store_event){ .type = STORE_FENCED, .reason = s->fence_reason });
	TAILQ_FOREACH(b, &s->flying, entry)
		fail_batch(s, b);
	TAILQ_FOREACH(b, &s->waiting, entry)
		fail_batch(s, b);
	if (s->open)
		fail_batch(s, s->open);
	while ((m = TAILQ_FIRST(&s->waiting_put))) {
		TAILQ_REMOVE(&s->waiting_put, m, waiting);
		m->waits_for_pieces = false;
		event_push(s, (struct store_event){ .type = STORE_FAILED, .msg = &m->pub, .reason = s->fence_reason });
	}
}

/* A write failed: its segment takes no more, and the batch goes to another one, as do those behind it, so that the order stays. */
static void rewrite(struct store *s)
{
	struct batch *b;

	while ((b = TAILQ_LAST(&s->flying, batch_list))) {
		bool failed = b->failed;

		TAILQ_REMOVE(&s->flying, b, entry);
		s->nflying--;
		s->by_slot[b->slot] = NULL;
		TAILQ_INSERT_HEAD(&s->waiting, b, entry);
		if (!failed)
			continue;
		b->seg->suspect = true;
		if (++b->tries >= TRIES)
			fence(s, "writing a batch", EIO);
	}
}

/* Nothing of any batch is with the kernel any more: what must be written again may be touched. */
static bool all_idle(const struct store *s)
{
	const struct batch *b;

	TAILQ_FOREACH(b, &s->flying, entry)
		if (b->writes)
			return false;
	return true;
}

static bool any_failed(const struct store *s)
{
	const struct batch *b;

	TAILQ_FOREACH(b, &s->flying, entry)
		if (b->failed)
			return true;
	return false;
}

void log_completion(struct store *s, const struct uring_event *ev)
{
	struct batch *b = s->by_slot[ev->slot & 63];

	if (!b || (b->seq & 0xffffff) != ev->gen)
		return;
	b->writes--;
	if (s->fenced)
		return;
	if (ev->op == OP_SYNC) {
		if (ev->res < 0) {
			fence(s, "flushing a batch", -ev->res);
			return;
		}
		b->synced = true;
		if (!any_failed(s)) {
			retire(s);
			return;
		}
	} else {
		b->unwritten -= ev->res > 0 ? (uint32_t)ev->res : 0;
		if (ev->res < 0 || (!b->writes && b->unwritten)) { /* a short write counts as failed: it is written again as a whole, elsewhere */
			counter_add(C_SPOOL_IO_ERRORS, 1);
			b->failed = true;
		}
	}
	if (any_failed(s)) {
		if (all_idle(s)) {
			retire(s);
			rewrite(s);
		}
		return;
	}
	if (b->writes)
		return;
	b->writes = 1;
	s->disk->ops->begin(s->disk, &(struct disk_io){ .kind = DISK_DATASYNC, .file = b->seg->file,
		.tag = store_tag(s, OP_SYNC, b->slot, b->seq) });
}

bool store_busy(const struct store *s)
{
	return !s->fenced && (s->nflying || !TAILQ_EMPTY(&s->waiting) || (s->open && s->open->records));
}
