/* The log: records into batches, batches to the disk, and only then the news of their durability. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <xxhash.h>
#include "spool/base/clock.h"
#include "spool/base/counters.h"
#include "spool/store/internal.h"

enum { TRIES = 3 };

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

static struct batch *batch_new(struct store *s, size_t need)
{
	struct batch *b = s->nspare && need <= STAGING - BLOCK ? s->spare[--s->nspare] : NULL;
	size_t cap = need + BLOCK > STAGING ? (size_t)pad_block(need + BLOCK) : STAGING;

	if (!b) {
		b = calloc(1, sizeof(*b));
		CHECK(b);
		b->staging = aligned_alloc(BLOCK, cap);
		CHECK(b->staging);
		b->cap = cap;
		b->registered = -1;
	}
	b->used = sizeof(struct batch_header);
	b->records = b->raw_bytes = b->nraw = b->nmsg = b->writes = 0;
	b->tries = 0;
	b->failed = b->synced = b->syncing = false;
	b->seg = NULL;
	return b;
}

void batch_free(struct batch *b)
{
	free(b->staging);
	free(b->raw);
	free(b->msg);
	free(b);
}

static void batch_recycle(struct store *s, struct batch *b)
{
	if (s->nspare < sizeof(s->spare) / sizeof(s->spare[0]) && b->cap == STAGING)
		s->spare[s->nspare++] = b;
	else
		batch_free(b);
}

/* The batch that takes n more record bytes and raw more raw bytes. */
static struct batch *batch_for(struct store *s, size_t n, uint32_t raw)
{
	struct batch *b = s->open;
	uint64_t most = s->cfg.segment_bytes - BLOCK;

	if (b && (b->used + n > b->cap || pad_block(b->used + n) + (uint64_t)b->raw_bytes + raw > most / 2)) {
		TAILQ_INSERT_TAIL(&s->waiting, b, entry);
		b = NULL;
	}
	if (!b)
		b = s->open = batch_new(s, n);
	return b;
}

static void *record_begin(struct batch *b, size_t n, enum record_type type, uint64_t id)
{
	size_t padded = (n + 7) & ~(size_t)7;
	struct record_header *h = (struct record_header *)(void *)(b->staging + b->used);

	memset(b->staging + b->used + n, 0, padded - n);
	*h = (struct record_header){ .bytes = (uint32_t)padded, .type = (uint16_t)type, .msg_id = id };
	b->used += padded;
	b->records++;
	return h;
}

static void batch_add_msg(struct batch *b, struct batch_msg bm)
{
	if (b->nmsg == b->msg_cap) {
		uint32_t cap = b->msg_cap ? b->msg_cap * 2 : 64;
		struct batch_msg *bigger = realloc(b->msg, cap * sizeof(*bigger));

		CHECK(bigger);
		b->msg = bigger;
		b->msg_cap = cap;
	}
	b->msg[b->nmsg++] = bm;
	bm.msg->nbatch++;
}

static uint32_t batch_add_raw(struct batch *b, struct piece *p, struct msg *m)
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

/* ---- records ---- */

static size_t states_bytes(const struct store_msg *m)
{
	size_t n = 4;

	for (uint32_t i = 0; i < m->env.nrcpt; i++)
		n += 1 + 2 + 8 + 2 + 3 + 4 + (m->rcpt[i].last ? (size_t)m->rcpt[i].last->text_len : 0);
	return n;
}

static void write_states(const struct store_msg *m, struct out *o)
{
	out_le32(o, (uint32_t)(states_bytes(m) - 4));
	for (uint32_t i = 0; i < m->env.nrcpt; i++) {
		const struct store_rcpt_state *r = &m->rcpt[i];

		out_char(o, (char)r->state);
		out_le16(o, r->attempts);
		out_le64(o, r->next_wall_ns);
		out_le16(o, r->last ? r->last->code : 0);
		out_add(o, span_of(r->last ? r->last->enhanced : (const uint8_t[3]){ 0 }, 3));
		out_field(o, r->last ? reply_text(r->last) : SPAN_NONE);
	}
}

static void write_pieces(struct batch *b, struct msg *m, struct out *o)
{
	for (uint32_t i = 0; i < m->npieces; i++) {
		struct piece *p = m->piece[i];
		struct piece_ref ref = { .segment = p->segment, .len = p->len, .generation = p->generation, .off = p->off, .hash = p->hash };

		if (!p->on_disk) {
			ref.segment = PIECE_HERE;
			ref.generation = 0;
			ref.off = batch_add_raw(b, p, m);
		}
		out_add(o, span_of(&ref, sizeof(ref)));
	}
}

/* A small body goes into the record; its bytes are in the arena. */
static void write_inline(struct store *s, struct msg *m, struct out *o)
{
	for (uint32_t i = 0; i < m->npieces; i++)
		out_add(o, span_of(arena_at(s->arena, m->piece[i]->ext.off), m->piece[i]->len));
}

bool pieces_queued(const struct msg *m)
{
	for (uint32_t i = 0; i < m->npieces; i++)
		if (m->piece[i]->queued)
			return true;
	return false;
}

void log_message(struct store *s, struct msg *m, bool moved, struct piece **old, uint32_t nold)
{
	struct store_msg *pub = &m->pub;
	bool is_inline = pub->body_len <= INLINE_MAX;
	size_t env = envelope_size(&pub->env);
	size_t n = sizeof(struct message_record) + env + (moved ? states_bytes(pub) : 0) + 4 + pub->hold_reason.n +
		(is_inline ? (size_t)pub->body_len : m->npieces * sizeof(struct piece_ref));
	uint32_t raw = 0;
	struct message_record *r;
	struct batch *b;
	struct batch_msg bm = { .msg = m, .first = !moved, .moved = moved, .old = old, .nold = nold };
	struct out o;
	size_t at;

	CHECK(!pieces_queued(m));
	for (uint32_t i = 0; i < m->npieces && !is_inline; i++)
		raw += m->piece[i]->on_disk ? 0 : pad_block(m->piece[i]->len);
	b = batch_for(s, n + 8, raw);
	at = b->used;
	r = record_begin(b, n, REC_MESSAGE, pub->id);
	r->body_len = pub->body_len;
	r->env_bytes = (uint32_t)env;
	r->npieces = is_inline ? 0 : m->npieces;
	r->state = pub->state;
	r->flags = (uint8_t)((pub->dot_lines ? MESSAGE_DOT_LINES : 0) | (pub->ends_crlf ? MESSAGE_ENDS_CRLF : 0) |
		(moved ? MESSAGE_MOVED : 0));
	memset(r->zero, 0, sizeof(r->zero));
	o = out_of(b->staging + at + sizeof(*r), n - sizeof(*r));
	envelope_write(&pub->env, &o);
	if (moved)
		write_states(pub, &o);
	out_field(&o, pub->hold_reason);
	if (is_inline) {
		bm.inline_rel = (uint32_t)(at + sizeof(*r) + o.n);
		write_inline(s, m, &o);
		r->body_hash = m->inline_hash = XXH3_64bits(b->staging + bm.inline_rel, (size_t)pub->body_len);
	} else {
		r->body_hash = 0;
		write_pieces(b, m, &o);
	}
	CHECK(!o.over);
	batch_add_msg(b, bm);
}

void log_outcome(struct msg *m, uint32_t i)
{
	const struct store_rcpt_state *r = &m->pub.rcpt[i];
	struct span text = r->last ? reply_text(r->last) : SPAN_NONE;
	struct batch *b = batch_for(m->pub.store, sizeof(struct outcome_record) + text.n + 8, 0);
	size_t at = b->used;
	struct outcome_record *rec = record_begin(b, sizeof(*rec) + text.n, REC_OUTCOME, m->pub.id);

	rec->next_wall_ns = r->next_wall_ns;
	rec->rcpt = i;
	rec->attempts = r->attempts;
	rec->code = r->last ? r->last->code : 0;
	rec->state = r->state;
	memcpy(rec->enhanced, r->last ? r->last->enhanced : (const uint8_t[3]){ 0 }, 3);
	rec->text_len = (uint32_t)text.n;
	if (text.n)
		memcpy(b->staging + at + sizeof(*rec), text.p, text.n);
}

void log_state(struct msg *m)
{
	struct span reason = m->pub.hold_reason;
	struct batch *b = batch_for(m->pub.store, sizeof(struct state_record) + reason.n + 8, 0);
	size_t at = b->used;
	struct state_record *rec = record_begin(b, sizeof(*rec) + reason.n, REC_STATE, m->pub.id);

	rec->state = m->pub.state;
	rec->reason_len = (uint32_t)reason.n;
	if (reason.n)
		memcpy(b->staging + at + sizeof(*rec), reason.p, reason.n);
}

void log_done(struct msg *m)
{
	struct batch *b = batch_for(m->pub.store, sizeof(struct record_header), 0);

	record_begin(b, sizeof(struct record_header), REC_DONE, m->pub.id);
}

void log_chunk(struct store *s, struct piece *p)
{
	size_t n = sizeof(struct record_header) + sizeof(struct piece_ref);
	struct batch *b = batch_for(s, n, pad_block(p->len));
	size_t at = b->used;
	struct piece_ref ref = { .segment = PIECE_HERE, .len = p->len, .hash = p->hash };

	record_begin(b, n, REC_CHUNK, 0);
	ref.off = batch_add_raw(b, p, NULL);
	memcpy(b->staging + at + sizeof(struct record_header), &ref, sizeof(ref));
}

/* ---- to the disk ---- */

static void submit_write(struct store *s, struct batch *b, const void *p, uint32_t n, uint64_t off, int registered)
{
	struct io_uring_sqe *sqe = uring_sqe(s->uring);

	if (registered >= 0)
		io_uring_prep_write_fixed(sqe, b->seg->fd, p, n, off, registered);
	else
		io_uring_prep_write(sqe, b->seg->fd, p, n, off);
	uring_tag(sqe, URING_STORE, OP_WRITE, store_slot(s, b->slot), (uint32_t)(b->seq & 0xffffff));
	b->writes++;
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
	b->seq = s->next_seq++;
	b->start_ns = clock_mono_ns();
	b->failed = false;
	b->slot = (uint32_t)(b->seq % 64);
	CHECK(!s->by_slot[b->slot]);
	s->by_slot[b->slot] = b;
	seg->end += rec_area + b->raw_bytes;
	seal_header(s, b, rec_area);
	submit_write(s, b, b->staging, rec_area, b->off, b->registered);
	raw_off = b->off + rec_area;
	for (uint32_t i = 0; i < b->nraw; i++) {
		struct piece *p = b->raw[i].piece;
		uint32_t n = pad_block(p->len);
		char *at = arena_at(s->arena, p->ext.off);

		memset(at + p->len, 0, n - p->len);
		submit_write(s, b, at, n, raw_off + b->raw[i].rel, s->fixed ? 0 : -1);
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
	while (!s->fenced && s->nflying < BATCHES_IN_FLIGHT) {
		struct batch *b = TAILQ_FIRST(&s->waiting);
		struct segment *seg;

		if (!b && (!s->open || !s->open->records))
			break;
		if (!b) {
			b = s->open;
			s->open = NULL;
			TAILQ_INSERT_TAIL(&s->waiting, b, entry);
		}
		seg = segment_for(s, pad_block(b->used) + b->raw_bytes);
		if (!seg) {
			segment_upkeep(s);
			break; /* goes on when a segment is ready */
		}
		TAILQ_REMOVE(&s->waiting, b, entry);
		submit_batch(s, b, seg);
	}
}

/* ---- back from the disk ---- */

static void msg_durable(struct store *s, struct batch *b, struct batch_msg *bm)
{
	struct msg *m = bm->msg;

	m->nbatch--;
	for (uint32_t i = 0; i < bm->nold; i++)
		piece_free(s, bm->old[i]);
	free(bm->old);
	if (m->forgotten) {
		if (!m->nbatch)
			msg_release(s, m);
		return;
	}
	if (bm->moved && m->segment != UINT32_MAX)
		segment_live(s, m->segment, -1);
	m->segment = b->seg->index;
	segment_live(s, m->segment, 1);
	m->inline_off = bm->inline_rel ? b->off + bm->inline_rel : 0;
	m->in_log = true;
	m->moving = false;
	if (bm->first)
		event_push(s, (struct store_event){ .type = STORE_DURABLE, .msg = &m->pub });
	msg_maybe_evict(m);
}

static void batch_durable(struct store *s, struct batch *b)
{
	s->durable_seq = b->seq;
	counter_add(C_COMMIT_NS, clock_mono_ns() - b->start_ns);
	for (uint32_t i = 0; i < b->nraw; i++) {
		struct piece *p = b->raw[i].piece;

		p->queued = false;
		p->on_disk = true;
		segment_live(s, p->segment, 1);
		if (p->orphan) {
			piece_free(s, p);
		} else if (!b->raw[i].msg && arena_used(s->arena) > arena_bytes(s->arena) / 2) {
			extent_release(s->arena, p->ext); /* a spilled piece under pressure */
			p->ext.cap = 0;
		}
	}
	for (uint32_t i = 0; i < b->nmsg; i++)
		msg_durable(s, b, &b->msg[i]);
	for (uint32_t i = 0; i < s->nslots && s->nwaiting_put; i++)
		if (s->msgs[i] && s->msgs[i]->waits_for_pieces && !pieces_queued(s->msgs[i])) {
			s->msgs[i]->waits_for_pieces = false;
			s->nwaiting_put--;
			log_message(s, s->msgs[i], false, NULL, 0);
		}
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
		batch_recycle(s, b);
	}
}

static void fail_batch(struct store *s, struct batch *b)
{
	for (uint32_t i = 0; i < b->nmsg; i++) {
		b->msg[i].msg->nbatch--;
		if (b->msg[i].first && !b->msg[i].msg->forgotten)
			event_push(s, (struct store_event){ .type = STORE_FAILED, .msg = &b->msg[i].msg->pub, .reason = s->fence_reason });
	}
}

/* A flush failed, or writes did time and again: nothing more is written or trusted here until a restart has read it back. */
void fence(struct store *s, const char *what, int err)
{
	struct batch *b;

	counter_add(C_SPOOL_IO_ERRORS, 1);
	if (s->fenced)
		return;
	s->fenced = true;
	if (trail_errno(err, "%s: %s", s->dir, what) != ST_OK)
		snprintf(s->fence_text, sizeof(s->fence_text), "%s", trail_text());
	s->fence_reason = s->fence_text;
	counter_set(C_SPOOL_FENCED, 1);
	event_push(s, (struct store_event){ .type = STORE_FENCED, .reason = s->fence_reason });
	TAILQ_FOREACH(b, &s->flying, entry)
		fail_batch(s, b);
	TAILQ_FOREACH(b, &s->waiting, entry)
		fail_batch(s, b);
	if (s->open)
		fail_batch(s, s->open);
}

/* A failed write: the segment takes no more, the batch goes to another one. */
static void rewrite(struct store *s, struct batch *b)
{
	b->seg->suspect = true;
	s->by_slot[b->slot] = NULL;
	TAILQ_REMOVE(&s->flying, b, entry);
	s->nflying--;
	if (++b->tries >= TRIES) {
		TAILQ_INSERT_HEAD(&s->waiting, b, entry);
		fence(s, "writing a batch", EIO);
		return;
	}
	TAILQ_INSERT_HEAD(&s->waiting, b, entry);
}

void log_completion(struct store *s, const struct uring_event *ev)
{
	struct batch *b = s->by_slot[ev->slot & 63];
	struct io_uring_sqe *sqe;

	if (!b || (b->seq & 0xffffff) != ev->gen || s->fenced)
		return;
	if (ev->op == OP_SYNC) {
		if (ev->res < 0) {
			fence(s, "flushing a batch", -ev->res);
			return;
		}
		b->synced = true;
		retire(s);
		return;
	}
	if (ev->res < 0 || ev->res % BLOCK) { /* a short write counts as failed: it is written again as a whole, elsewhere */
		counter_add(C_SPOOL_IO_ERRORS, 1);
		b->failed = true;
	}
	if (--b->writes)
		return;
	if (b->failed) {
		rewrite(s, b);
		return;
	}
	sqe = uring_sqe(s->uring);
	io_uring_prep_fsync(sqe, b->seg->fd, IORING_FSYNC_DATASYNC);
	uring_tag(sqe, URING_STORE, OP_SYNC, store_slot(s, b->slot), (uint32_t)(b->seq & 0xffffff));
	b->syncing = true;
}

bool store_busy(const struct store *s)
{
	return !s->fenced && (s->nflying || !TAILQ_EMPTY(&s->waiting) || (s->open && s->open->records));
}
