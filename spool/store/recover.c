/* The only way to start: the newest checkpoint, then every batch behind it in the order of their composing. */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include "spool/base/clock.h"
#include "spool/base/counters.h"
#include "spool/base/hash.h"
#include "spool/base/log.h"
#include "spool/store/internal.h"
#include "spool/store/ledger.h"

/* One stream's segments, read one after the other. */
struct cursor {
	struct segment **seg; /* in the order of their generations */
	uint32_t nsegs, at;
	char *buf;            /* the segment in memory */
	bool loaded;
	uint64_t off;
	bool hole;            /* blocks that are no batch stand before off */
	struct segment *last; /* that has the newest batch, */
	uint64_t end;         /* which ends here */
	struct batch_header b; /* the batch at off; b.bytes is 0 when there is none any more */
};

/* A batch behind missing ones: whether it counts is not known yet. */
struct held {
	struct held *next;
	struct batch_header b;
	const struct segment *seg;
	uint64_t off;
	char bytes[];
};

enum { ARRIVALS = 1024 }; /* a power of two */

struct recovery {
	struct store *s;
	struct checkpoint_header from;
	struct cursor cursor[NSTREAMS], *now;
	uint64_t last_seq, max_durable;
	uint64_t steady_ns;
	uint64_t gap;         /* the first missing batch that nothing is known of; 0: none */
	struct held *held, **held_end;
	const struct segment *seg; /* of the batch that is being applied, */
	uint64_t off;         /* and its place there */
	uint64_t *tail;       /* ids of messages with pieces whose batch may have been torn; then of those whose was */
	uint64_t *tail_seq;
	size_t ntail, tail_cap, ntorn;
	bool newest_lost;     /* the newest checkpoint cannot be read */
	struct arrival {
		uint64_t id, ns;
	} arrival[ARRIVALS];  /* of messages whose outcomes the ledger lacks: an envelope of many recipients is not read for each of them */
};

/* ---- applying ---- */

/* What the body of a message record uses, checked against the segments that there are. */
static bool note_uses(struct recovery *rc, struct entry *e, const struct record_facts *f)
{
	struct store *s = rc->s;
	uint32_t n = (uint32_t)(f->refs.n / sizeof(struct piece_ref));

	free(e->uses);
	e->uses = NULL;
	if (!n)
		return true;
	e->uses = malloc(sizeof(*e->uses) + n * sizeof(e->uses->use[0]));
	if (!e->uses)
		return false;
	e->uses->n = n;
	for (uint32_t i = 0; i < n; i++) {
		struct piece_ref ref;

		memcpy(&ref, f->refs.p + i * sizeof(ref), sizeof(ref));
		if (ref.segment == PIECE_HERE)
			ref.segment = e->segment;
		else if (ref.segment >= s->nsegs || s->seg[ref.segment].generation != ref.generation)
			e->flags |= ENTRY_DAMAGED; /* unless a later record says that it moved or is done */
		e->uses->use[i] = (struct piece_use){ ref.segment, ref.len };
	}
	return true;
}

/* ---- what the ledger lacks ---- */

/* The head of e's message record: in the segment in memory, else read into *ret_buf, which is to be freed. NULL: it is not there any more. */
static const struct message_record *record_of(struct recovery *rc, const struct entry *e, char **ret_buf)
{
	struct store *s = rc->s;
	const struct cursor *c = rc->now;
	uint32_t from = e->off & ~(uint32_t)(BLOCK - 1), n = pad_block(e->off - from + e->head);
	const char *record;

	*ret_buf = NULL;
	if (e->off + (uint64_t)e->head > s->cfg.segment_bytes || e->head < sizeof(struct message_record))
		return NULL;
	if (c->loaded && c->seg[c->at]->index == e->segment) {
		record = c->buf + e->off;
	} else {
		*ret_buf = aligned_alloc(BLOCK, n);
		if (!*ret_buf || s->disk->ops->read(s->disk, s->seg[e->segment].file, *ret_buf, n, from) != ST_OK)
			return NULL;
		record = *ret_buf + (e->off - from);
	}
	return record_hash(record, e->head) == e->hash ? (const struct message_record *)(const void *)record : NULL;
}

/* Its envelope, as far as it can still be read: else only what the index knows, and arrived_ns is 0. */
static void envelope_of(struct recovery *rc, const struct entry *e, struct pool *p, struct envelope *ret)
{
	char *buf;
	const struct message_record *r = record_of(rc, e, &buf);
	struct record_facts f;
	struct span stored;

	pool_init(p, 64 * 1024 * 1024);
	*ret = (struct envelope){ 0 };
	stored = r && record_facts(r, e->head, &f) ? pool_span(p, f.env) : SPAN_NONE;
	if (!stored.p || envelope_read(stored, p, ret) != ST_OK) {
		*ret = (struct envelope){ .nrcpt = e->nrcpt };
		ret->rcpt = pool_alloc(p, e->nrcpt * sizeof(*ret->rcpt));
		if (!ret->rcpt)
			ret->nrcpt = 0;
	}
	free(buf);
}

static void repair_accepted(struct recovery *rc, const struct entry *e, struct span reason)
{
	struct envelope env;
	struct pool p;

	envelope_of(rc, e, &p, &env);
	ledger_repair_accepted(rc->s, e->id, e->state, &env, e->body_len, reason);
	pool_reset(&p);
}

static uint64_t arrival_of(struct recovery *rc, const struct entry *e)
{
	struct arrival *a = &rc->arrival[e->id & (ARRIVALS - 1)];
	struct envelope env;
	struct pool p;

	if (a->id != e->id) {
		envelope_of(rc, e, &p, &env);
		*a = (struct arrival){ e->id, env.arrived_ns };
		pool_reset(&p);
	}
	return a->ns;
}

static void repair_row(struct recovery *rc, const struct entry *e, struct ledger_row *row)
{
	row->id = e->id;
	row->arrived_ns = arrival_of(rc, e);
	ledger_repair(rc->s, row);
}

static void repair_outcome(struct recovery *rc, const struct entry *e, const struct outcome_record *r)
{
	struct ledger_row row = { .type = LEDGER_FATE, .state = r->state, .rcpt = r->rcpt, .attempts = r->attempts & ATTEMPTS_MAX, .code = r->code };
	struct span text = span_of(r + 1, r->text_len <= r->h.bytes - sizeof(*r) ? r->text_len : 0);

	if (e->state == MSG_PENDING)
		return;
	memcpy(row.enhanced, r->enhanced, 3);
	row.text = text.n ? span_cut(&text, '\n') : SPAN_NONE;
	repair_row(rc, e, &row);
}

static void repair_state(struct recovery *rc, const struct entry *e, uint8_t was, struct span reason)
{
	if (was == MSG_PENDING)
		repair_accepted(rc, e, reason);
	else
		repair_row(rc, e, &(struct ledger_row){ .type = LEDGER_STATE, .state = e->state, .text = reason });
}

/* Done with open recipients: an operator deleted what could not be read. */
static void repair_done(struct recovery *rc, const struct entry *e)
{
	if (e->state != MSG_PENDING && e->open)
		repair_row(rc, e, &(struct ledger_row){ .type = LEDGER_FATE, .state = RCPT_DELETED, .rcpt = LEDGER_RCPT_ALL,
			.text = SPAN("deleted, unreadable") });
}

static enum status note_tail(struct recovery *rc, uint64_t id, uint64_t seq)
{
	if (rc->ntail == rc->tail_cap) {
		size_t cap = rc->tail_cap ? rc->tail_cap * 2 : 256;
		uint64_t *ids = realloc(rc->tail, cap * sizeof(*ids)), *seqs;

		if (!ids)
			return ST_NOMEM;
		rc->tail = ids;
		seqs = realloc(rc->tail_seq, cap * sizeof(*seqs));
		if (!seqs)
			return ST_NOMEM;
		rc->tail_seq = seqs;
		rc->tail_cap = cap;
	}
	rc->tail[rc->ntail] = id;
	rc->tail_seq[rc->ntail++] = seq;
	return ST_OK;
}

static enum status on_message(struct recovery *rc, const struct batch_header *b, const struct message_record *r, size_t rel)
{
	struct store *s = rc->s;
	uint64_t id = r->h.msg_id, number = id & 0xffffffffffffffull;
	uint32_t slot = index_find(s->index, id);
	struct record_facts f;
	struct entry *e;

	if (!record_facts(r, r->h.bytes, &f))
		return trail(ST_CORRUPT, "a message record is impossible");
	if (slot == SLOT_NONE && index_add(s->index, id, &slot) != ST_OK)
		return ST_NOMEM;
	e = index_at(s->index, slot);
	deltas_free(e);
	e->flags = (uint8_t)(ENTRY_USED | ENTRY_IN_LOG | (r->flags & MESSAGE_MOVED ? ENTRY_MOVED : 0));
	e->body_len = r->body_len;
	e->segment = rc->seg->index;
	e->off = (uint32_t)(rc->off + rel);
	e->head = f.head;
	e->hash = record_hash(r, f.head);
	e->raw_start = (uint32_t)rc->off + pad_block((uint64_t)b->record_bytes + sizeof(*b));
	e->nrcpt = f.nrcpt;
	e->open = f.open;
	e->state = r->state <= MSG_HELD ? r->state : MSG_HELD;
	e->due_ns = f.due_ns; /* spool time until settle() */
	if (!note_uses(rc, e, &f))
		return ST_NOMEM;
	if (number >= s->next_number)
		s->next_number = number + 1;
	if (e->state != MSG_PENDING && !(r->flags & MESSAGE_MOVED) && ledger_lacks(s, b->seq))
		repair_accepted(rc, e, f.reason);
	return e->uses ? note_tail(rc, id, b->seq) : ST_OK;
}

static bool was_open(const struct entry *e, uint32_t rcpt)
{
	const struct delta *d = e->deltas;
	bool open = true;

	if (!d)
		return true; /* or it is in the record's own states, and then r says the same or a later record does */
	do {
		const struct outcome_record *o = (const struct outcome_record *)(const void *)&(d = d->next)->h;

		if (o->h.type == REC_OUTCOME && o->rcpt == rcpt)
			open = o->state == RCPT_QUEUED;
	} while (d != e->deltas);
	return open;
}

static enum status on_outcome(struct recovery *rc, const struct batch_header *b, struct entry *e, const struct outcome_record *r)
{
	bool was, is = r->state == RCPT_QUEUED;

	if (r->h.bytes < sizeof(*r) || r->rcpt >= e->nrcpt || r->state > RCPT_DROPPED)
		return ST_OK;
	if (ledger_lacks(rc->s, b->seq))
		repair_outcome(rc, e, r);
	was = was_open(e, r->rcpt);
	if (was && !is && e->open)
		e->open--;
	else if (!was && is) /* older than what the checkpoint says; the final one comes again */
		e->open++;
	if (r->state == RCPT_QUEUED && (e->nrcpt == 1 || r->next_ns < e->due_ns))
		e->due_ns = r->next_ns; /* too early for some recipient of many is put right when it is woken */
	return delta_add(e, &r->h);
}

static enum status on_state(struct recovery *rc, const struct batch_header *b, struct entry *e, const struct state_record *r)
{
	uint8_t was = e->state;

	if (r->h.bytes < sizeof(*r) || r->reason_len > r->h.bytes - sizeof(*r) || r->state > MSG_HELD)
		return ST_OK;
	e->state = (uint8_t)r->state;
	if (ledger_lacks(rc->s, b->seq))
		repair_state(rc, e, was, span_of(r + 1, r->reason_len));
	return r->reason_len ? delta_add(e, &r->h) : ST_OK;
}

static enum status apply(void *ctx, const struct batch_header *b, const struct record_header *h, size_t rel)
{
	struct recovery *rc = ctx;
	uint32_t slot;

	switch (h->type) {
	case REC_MESSAGE:
		return on_message(rc, b, (const struct message_record *)(const void *)h, rel);
	case REC_RUN:
		if (h->bytes >= sizeof(struct run_record) && ((const struct run_record *)(const void *)h)->steady_ns > rc->steady_ns)
			rc->steady_ns = ((const struct run_record *)(const void *)h)->steady_ns;
		return ST_OK;
	case REC_CHUNK: /* means nothing until a message refers to it */
	case REC_OUTCOME:
	case REC_STATE:
	case REC_DONE:
		break;
	default:
		return trail(ST_UNSUPPORTED, "record of unknown type %u: written by a later version", h->type);
	}
	slot = h->type == REC_CHUNK ? SLOT_NONE : index_find(rc->s->index, h->msg_id);
	if (slot == SLOT_NONE)
		return ST_OK; /* its message was done before the checkpoint, or was never whole */
	if (h->type == REC_OUTCOME)
		return on_outcome(rc, b, index_at(rc->s->index, slot), (const struct outcome_record *)(const void *)h);
	if (h->type == REC_STATE)
		return on_state(rc, b, index_at(rc->s->index, slot), (const struct state_record *)(const void *)h);
	if (ledger_lacks(rc->s, b->seq))
		repair_done(rc, index_at(rc->s->index, slot));
	index_del(rc->s->index, slot);
	return ST_OK;
}

/* ---- the streams ---- */

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

static enum status apply_batch(struct recovery *rc, const char *bytes, const struct batch_header *b, const struct segment *seg, uint64_t off)
{
	rc->seg = seg;
	rc->off = off;
	if (b->next_number > rc->s->next_number)
		rc->s->next_number = b->next_number;
	return batch_records(bytes, b, apply, rc);
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

static enum status replay(struct recovery *rc)
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

/* ---- what there is ---- */

void *big_alloc(size_t n)
{
	size_t huge = (size_t)1 << 21, whole = (n + huge - 1) & ~(huge - 1);
	void *p = aligned_alloc(huge, whole ? whole : huge);

	if (p)
		(void)madvise(p, whole, MADV_HUGEPAGE); /* without them it works all the same */
	return p;
}

static int by_generation(const void *a, const void *b)
{
	const struct segment *const *x = a, *const *y = b;

	return (*x)->generation < (*y)->generation ? -1 : (*x)->generation > (*y)->generation;
}

/* Which segments hold what. The newest checkpoint that any of them knows of comes back. */
static enum status read_headers(struct store *s, uint64_t *ret_checkpoint)
{
	char *block = aligned_alloc(BLOCK, BLOCK);
	enum status st = block ? ST_OK : ST_NOMEM;

	*ret_checkpoint = 0;
	for (uint32_t i = 0; i < s->nsegs && st == ST_OK; i++) {
		struct segment *seg = &s->seg[i];
		struct seg_header h;

		st = s->disk->ops->read(s->disk, seg->file, block, BLOCK, 0);
		if (st != ST_OK)
			break;
		switch (seg_header_read(block, &h)) {
		case HEADER_NONE:
			continue;
		case HEADER_UNKNOWN:
			st = trail(ST_UNSUPPORTED, "%s: segment %u has format %u with features %x, this program knows formats %d to %d", s->cfg.dir, i,
				h.version, h.incompatible, FORMAT_OLDEST, FORMAT_VERSION);
			continue;
		case HEADER_DAMAGED:
			log_msg(LOG_LVL_ERROR, "spool-damaged", "%s: the header of segment %u is damaged; the segment is kept aside", s->cfg.dir, i);
			seg->state = SEG_FULL;
			seg->quarantined = true;
			s->damaged++;
			counter_add(C_SPOOL_DAMAGED, 1);
			continue;
		case HEADER_OK:
			break;
		}
		if (h.partition != s->cfg.partition || h.index != i) {
			st = trail(ST_CORRUPT, "%s: segment %u is segment %u of partition %u", s->cfg.dir, i, h.index, h.partition);
			continue;
		}
		seg->generation = h.generation;
		seg->stream = (uint8_t)h.stream;
		seg->state = SEG_FULL;
		seg->end = s->cfg.segment_bytes;
		if (h.generation >= s->next_generation)
			s->next_generation = h.generation + 1;
		if (h.checkpoint > *ret_checkpoint)
			*ret_checkpoint = h.checkpoint;
	}
	free(block);
	return st;
}

static enum status cursors_new(struct recovery *rc)
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

/* The log goes on where it ended: behind the last batch of each stream. */
static void resume(struct recovery *rc)
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

/* ---- settling ---- */

/* Messages of the last batches, which no later batch calls durable: their raw areas must be whole, or the batch was torn. */
static enum status verify_tail(struct recovery *rc)
{
	struct store *s = rc->s;
	char *buf = aligned_alloc(BLOCK, EXTENT_MAX);
	enum status st = buf ? ST_OK : ST_NOMEM;

	for (size_t i = 0; i < rc->ntail && st == ST_OK; i++) {
		uint32_t slot = rc->tail_seq[i] > rc->max_durable ? index_find(s->index, rc->tail[i]) : SLOT_NONE;
		struct msg *m;
		bool whole;

		if (slot == SLOT_NONE)
			continue;
		whole = msg_load(s, index_at(s->index, slot), &m) == ST_OK;
		for (uint32_t k = 0; whole && k < m->npieces; k++) {
			const struct piece *p = m->piece[k];

			st = s->disk->ops->read(s->disk, s->seg[p->segment].file, buf, pad_block(p->len), p->off);
			whole = st == ST_OK && XXH3_64bits(buf, p->len) == p->hash;
		}
		if (m) {
			for (uint32_t k = 0; k < m->npieces; k++)
				m->piece[k]->on_disk = false;
			msg_free(s, m);
		}
		if (!whole) {
			ledger_repair_torn(s, rc->tail[i]);
			index_del(s->index, slot);
			rc->tail[rc->ntorn++] = rc->tail[i];
		}
	}
	free(buf);
	return st;
}

static enum status hold_it(struct entry *e, const char *why)
{
	struct {
		struct state_record r;
		char text[128];
	} u = { .r = { .h = { .type = REC_STATE, .msg_id = e->id }, .state = MSG_HELD, .reason_len = (uint32_t)strlen(why) } };

	CHECK(u.r.reason_len < sizeof(u.text));
	u.r.h.bytes = (uint32_t)((sizeof(u.r) + u.r.reason_len + 7) & ~7ul);
	memcpy(u.text, why, u.r.reason_len);
	e->state = MSG_HELD;
	return delta_add(e, &u.r.h);
}

/* Nothing is left of the record of a message that was accepted and not done: said, and kept for the postmaster. */
static void lost(struct store *s, struct entry *e)
{
	char id[MSG_ID_TEXT + 1];

	msg_id_text(e->id, id);
	log_msg(LOG_LVL_ERROR, "spool-damaged", "%s: message %s cannot be read any more", s->cfg.dir, id);
	s->damaged++;
	counter_add(C_SPOOL_DAMAGED, 1);
	e->state = MSG_HELD;
	e->flags &= (uint8_t)~ENTRY_IN_LOG;
}

static enum status settle(struct recovery *rc)
{
	struct store *s = rc->s;
	uint64_t mono = clock_mono_ns(), steady = clock_steady_ns();
	enum status st = ST_OK;

	for (uint32_t i = 0; i < index_slots(s->index) && st == ST_OK; i++) {
		struct entry *e = index_at(s->index, i);
		uint64_t due = e->due_ns == DUE_NEVER ? 0 : e->due_ns;

		if (!(e->flags & ENTRY_USED))
			continue;
		if (!e->open) {
			index_del(s->index, i);
			continue;
		}
		if (e->flags & ENTRY_DAMAGED) {
			lost(s, e);
			continue;
		}
		if (rc->newest_lost)
			st = hold_it(e, "the newest checkpoint of the spool is lost: this may have been delivered already");
		entry_live(s, e, 1);
		for (uint32_t k = 0; e->uses && k < e->uses->n; k++)
			segment_live(s, e->uses->use[k].segment, 1, e->uses->use[k].len);
		e->due_ns = DUE_NEVER;
		if (e->state != MSG_HELD)
			index_due(s->index, i, e->state == MSG_QUEUED && due > steady ? mono + due - steady : mono);
	}
	return st;
}

/* A new run of the log: what it begins with says that all before it is durable, so the messages that were torn end in the same batch. Without that they would be back
 * at the next start, and not be looked at any more. */
static void begin_run(struct recovery *rc)
{
	struct store *s = rc->s;

	s->durable_seq = rc->last_seq;
	s->next_seq = s->run_first_seq = rc->last_seq + 1;
	s->run_told_ns = clock_mono_ns();
	log_run(s);
	for (size_t i = 0; i < rc->ntorn; i++)
		log_done(s, rc->tail[i]);
}

enum status recover(struct store *s)
{
	struct recovery rc = { .s = s };
	uint64_t known;
	enum status st = read_headers(s, &known);

	rc.held_end = &rc.held;
	if (st != ST_OK)
		return st;
	st = checkpoint_load(s, &rc.from);
	if (st == ST_NOT_FOUND)
		rc.from = (struct checkpoint_header){ 0 };
	else if (st != ST_OK)
		return st;
	if (known > rc.from.number) {
		/* segments were reused on the word of a checkpoint that is not there: everything that can be found is, but some of it may be done */
		log_msg(LOG_LVL_ERROR, "spool-damaged", "%s: checkpoint %llu is lost; what is found is held", s->cfg.dir, (unsigned long long)known);
		rc.newest_lost = true;
		checkpoint_lost(s, known);
		s->damaged++;
		rc.from.seq = 0;
		memset(rc.from.generation, 0, sizeof(rc.from.generation));
		memset(rc.from.off, 0, sizeof(rc.from.off));
	}
	rc.max_durable = rc.from.seq ? rc.from.seq - 1 : 0;
	rc.last_seq = rc.max_durable;
	if (rc.from.next_number > s->next_number)
		s->next_number = rc.from.next_number;
	if (rc.from.next_generation > s->next_generation)
		s->next_generation = rc.from.next_generation;
	st = cursors_new(&rc);
	if (st == ST_OK)
		st = replay(&rc);
	if (rc.steady_ns)
		clock_steady_seed(rc.steady_ns);
	if (st == ST_OK)
		st = verify_tail(&rc);
	if (st == ST_OK)
		st = settle(&rc);
	if (st == ST_OK) {
		resume(&rc);
		segments_count(s);
		st = ledger_recovered(s, rc.from.seq, rc.last_seq);
	}
	if (st == ST_OK)
		begin_run(&rc);
	for (unsigned k = 0; k < NSTREAMS; k++) {
		free(rc.cursor[k].seg);
		free(rc.cursor[k].buf);
	}
	free(rc.tail);
	free(rc.tail_seq);
	return st;
}
