/* When the ring runs short of free segments, what is still wanted in the emptiest of the full ones is copied into segments of the cold stream, so that one deferred message
 * never pins a segment. Small messages are copied whole, long bodies piece by piece; a copy counts from the moment that its record is durable. */
#include <errno.h>
#include <stdlib.h>
#include <xxhash.h>
#include "spool/base/counters.h"
#include "spool/store/internal.h"

enum { MOVES = 64, BYTES_A_TURN = 1024 * 1024, SLOTS_A_TURN = 16384, PIECES_AHEAD = 4 };

enum move_state { MOVE_READING, MOVE_READ, MOVE_PIECES };

struct move {
	uint64_t id;
	uint32_t number, segment, off, head, len; /* of the record and, behind it, an inline body */
	char *buf;
	int res;
	uint8_t state;
	bool own;              /* m is this move's, made from the record of a parked message */
	bool dead;             /* given up: ends with its last read */
	struct msg *m;         /* with a body in pieces */
	struct piece **fresh;  /* as many as m has; NULL: stays where it is, or is not copied yet */
	uint32_t next;         /* the next piece to look at */
	struct piece *reading; /* its extent is being filled */
	uint32_t reading_i, old_segment;
};

static struct entry *entry_of(struct store *s, uint64_t id)
{
	uint32_t slot = index_find(s->index, id);

	return slot == SLOT_NONE ? NULL : index_at(s->index, slot);
}

/* ---- ending ---- */

static void drop_fresh(struct store *s, struct move *v)
{
	for (uint32_t i = 0; v->fresh && i < v->m->npieces; i++) {
		if (v->fresh[i] && v->fresh[i]->queued)
			v->fresh[i]->orphan = true;
		else if (v->fresh[i])
			piece_free(s, v->fresh[i]);
	}
	free(v->fresh);
	v->fresh = NULL;
}

static void release_msg(struct store *s, struct move *v)
{
	if (!v->m)
		return;
	if (v->own) {
		for (uint32_t i = 0; i < v->m->npieces; i++)
			v->m->piece[i]->on_disk = false; /* the entry counts for them */
		msg_free(s, v->m);
	} else {
		v->m->move = NULL;
	}
	v->m = NULL;
}

static void move_free(struct store *s, struct move *v)
{
	s->move[v->number] = NULL;
	s->nmoves--;
	free(v->buf);
	free(v);
}

/* Without effect: the message stays where it is. */
static void give_up(struct store *s, struct move *v)
{
	struct entry *e = entry_of(s, v->id);

	if (e)
		e->flags &= (uint8_t)~ENTRY_COPYING;
	drop_fresh(s, v);
	release_msg(s, v);
	v->dead = true;
	if (v->state != MOVE_READING && !v->reading)
		move_free(s, v);
}

void move_cancel(struct store *s, struct msg *m)
{
	give_up(s, m->move);
}

bool moves_reading(const struct store *s)
{
	for (uint32_t i = 0; i < MOVES && s->move; i++)
		if (s->move[i] && s->move[i]->state == MOVE_READING)
			return true;
	return false;
}

void moves_free(struct store *s)
{
	for (uint32_t i = 0; i < MOVES && s->move; i++) {
		struct move *v = s->move[i];

		if (!v)
			continue;
		for (uint32_t k = 0; v->fresh && k < v->m->npieces; k++)
			if (v->fresh[k])
				v->fresh[k]->on_disk = false;
		for (uint32_t k = 0; v->fresh && k < v->m->npieces; k++)
			if (v->fresh[k])
				piece_free(s, v->fresh[k]);
		free(v->fresh);
		free(v->reading);
		if (v->own && v->m)
			release_msg(s, v);
		free(v->buf);
		free(v);
	}
	free(s->move);
}

/* ---- beginning ---- */

static bool begin(struct store *s, struct entry *e)
{
	bool small = e->body_len <= INLINE_MAX;
	uint32_t len = e->head + (small ? (uint32_t)e->body_len : 0), from = e->off & ~(uint32_t)(BLOCK - 1), i;
	uint32_t n = pad_block(e->off - from + len);
	struct move *v = calloc(1, sizeof(*v));

	if (!v || !(v->buf = aligned_alloc(BLOCK, n))) {
		free(v);
		return false;
	}
	for (i = 0; s->move[i]; i++)
		;
	v->id = e->id;
	v->number = i;
	v->segment = e->segment;
	v->off = e->off;
	v->head = e->head;
	v->len = len;
	s->move[i] = v;
	s->nmoves++;
	e->flags |= ENTRY_COPYING;
	s->seg[e->segment].reads++;
	s->disk->ops->begin(s->disk, &(struct disk_io){ .kind = DISK_READ, .file = s->seg[e->segment].file, .p = v->buf, .n = n, .off = from,
		.registered = -1, .tag = store_tag(s, OP_MOVE, i, 0) });
	return true;
}

void move_completion(struct store *s, const struct uring_event *ev)
{
	struct move *v = s->move[ev->slot & 0x3ffff];

	if (v->reading) {
		s->seg[v->old_segment].reads--;
		v->res = ev->res;
		if (v->dead) {
			piece_free(s, v->reading);
			v->reading = NULL;
			move_free(s, v);
			return;
		}
		v->state = MOVE_READ;
		return;
	}
	s->seg[v->segment].reads--;
	v->res = ev->res;
	v->state = MOVE_READ;
	if (v->dead)
		move_free(s, v);
}

/* ---- a small message ---- */

/* Composes the copy. Gives the bytes, 0 when it was given up. */
static uint32_t copy_inline(struct store *s, struct move *v, struct entry *e)
{
	const char *record = v->buf + v->off % BLOCK;
	struct span body = span_of(record + v->head, v->len - v->head);
	uint64_t hash = ((const struct message_record *)(const void *)record)->body_hash;
	struct msg *m = e->msg, *own = NULL;

	if (body.n && XXH3_64bits(body.p, body.n) != hash)
		return 0;
	if (m && m->nbatch)
		return 0;
	if (!m) {
		m = own = msg_from_record(s, e, record);
		if (!m)
			return 0;
	}
	m->inline_hash = hash;
	log_moved(s, m, body, NULL, 0);
	if (own) {
		msg_free(s, own);
		e->flags |= ENTRY_MOVING;
	}
	counter_add(C_SPOOL_MOVED_BYTES, v->len);
	return v->len;
}

/* ---- a long one ---- */

static bool take_msg(struct store *s, struct move *v, struct entry *e)
{
	v->m = e->msg;
	if (v->m) {
		if (v->m->nbatch || v->m->move || pieces_queued(v->m)) {
			v->m = NULL;
			return false;
		}
		v->m->move = v;
	} else {
		v->m = msg_from_record(s, e, v->buf + v->off % BLOCK);
		v->own = true;
	}
	if (v->m)
		v->fresh = calloc(v->m->npieces ? v->m->npieces : 1, sizeof(struct piece *));
	return v->fresh != NULL;
}

/* Begins to read piece i into the arena. False: no room now. */
static bool read_piece(struct store *s, struct move *v, uint32_t i)
{
	const struct piece *old = v->m->piece[i];
	struct piece *p = calloc(1, sizeof(*p));

	if (!p)
		return false;
	if (extent_alloc(s->arena, pad_block(old->len), &p->ext) != ST_OK || p->ext.cap < pad_block(old->len)) {
		if (p->ext.cap)
			extent_release(s->arena, p->ext);
		free(p);
		return false;
	}
	p->len = old->len;
	p->hash = old->hash;
	v->reading = p;
	v->reading_i = i;
	v->old_segment = old->segment;
	v->state = MOVE_READING;
	s->seg[old->segment].reads++;
	s->disk->ops->begin(s->disk, &(struct disk_io){ .kind = DISK_READ, .file = s->seg[old->segment].file,
		.p = arena_at(s->arena, p->ext.off), .n = pad_block(p->len), .off = old->off, .registered = -1,
		.tag = store_tag(s, OP_MOVE, v->number, 0) });
	return true;
}

/* The piece that was read goes into the log as a chunk. False: it is not what was written. */
static bool write_piece(struct store *s, struct move *v)
{
	struct piece *p = v->reading;

	v->reading = NULL;
	if (v->res < (int)p->len || XXH3_64bits(arena_at(s->arena, p->ext.off), p->len) != p->hash) {
		piece_free(s, p);
		return false;
	}
	v->fresh[v->reading_i] = p;
	log_chunk(s, p, STREAM_COLD);
	counter_add(C_SPOOL_MOVED_BYTES, p->len);
	return true;
}

/* Copies that are durable need no memory; how many are not yet comes back. */
static uint32_t settle_fresh(struct store *s, struct move *v)
{
	uint32_t pending = 0;

	for (uint32_t i = 0; i < v->next; i++) {
		struct piece *p = v->fresh[i];

		if (p && !p->on_disk) {
			pending++;
		} else if (p && p->ext.cap) {
			extent_release(s->arena, p->ext);
			p->ext.cap = 0;
		}
	}
	return pending;
}

/* All copies are durable: the record that refers to them. */
static void finish_pieces(struct store *s, struct move *v, struct entry *e)
{
	struct msg *m = v->m;
	struct piece **old = calloc(m->npieces ? m->npieces : 1, sizeof(struct piece *));
	uint32_t n = 0;

	CHECK(old);
	for (uint32_t i = 0; i < m->npieces; i++)
		if (v->fresh[i]) {
			old[n++] = m->piece[i];
			m->piece[i] = v->fresh[i];
			v->fresh[i] = NULL;
		}
	free(v->fresh);
	v->fresh = NULL;
	log_moved(s, m, SPAN_NONE, old, n);
	if (v->own) {
		for (uint32_t i = 0; i < m->npieces; i++)
			e->uses->use[i] = (struct piece_use){ m->piece[i]->segment, m->piece[i]->len };
		e->flags |= ENTRY_MOVING;
	}
	release_msg(s, v);
	move_free(s, v);
}

/* Goes on with a long message. Gives the bytes that it put into the log. */
static uint32_t go_on(struct store *s, struct move *v, struct entry *e)
{
	uint32_t put = 0, pending;

	if (v->reading && v->state == MOVE_READ) {
		put = v->reading->len;
		if (!write_piece(s, v)) {
			give_up(s, v);
			return 0;
		}
	}
	if (v->reading)
		return 0;
	v->state = MOVE_PIECES;
	pending = settle_fresh(s, v);
	while (v->next < v->m->npieces &&
		!(v->m->piece[v->next]->on_disk && v->m->piece[v->next]->segment == s->victim))
		v->next++;
	if (v->next < v->m->npieces) {
		if (pending < PIECES_AHEAD && read_piece(s, v, v->next))
			v->next++;
		return put;
	}
	if (!pending && !v->m->pins)
		finish_pieces(s, v, e);
	return put;
}

/* ---- a turn ---- */

/* What is composed now goes into a segment that is there: a cold batch that waited for one would hold up all that is behind it. */
static bool cold_ready(struct store *s)
{
	const struct segment *a = s->active[STREAM_COLD], *n = s->next[STREAM_COLD];
	const struct batch *b;

	TAILQ_FOREACH(b, &s->waiting, entry)
		if (b->stream == STREAM_COLD)
			return false;
	if (s->open && s->open->stream == STREAM_COLD)
		return false;
	return (a && !a->suspect && a->end + s->cfg.staging_bytes <= s->cfg.segment_bytes) || (n && n->state == SEG_READY);
}

static void compose(struct store *s)
{
	uint64_t bytes = 0, most = s->cfg.staging_bytes / 2 < BYTES_A_TURN ? s->cfg.staging_bytes / 2 : BYTES_A_TURN;

	if (!cold_ready(s))
		return;
	for (uint32_t i = 0; i < MOVES && bytes < most; i++) {
		struct move *v = s->move[i];
		struct entry *e = v ? entry_of(s, v->id) : NULL;
		uint32_t n;

		if (!v || v->dead || v->state == MOVE_READING)
			continue;
		if (v->fresh) {
			bytes += e ? go_on(s, v, e) : 0;
			continue;
		}
		/* the record was read: is it still the message's? */
		if (!e || e->segment != v->segment || e->off != v->off || e->flags & ENTRY_WAKING || v->res < (int)(v->off % BLOCK + v->len) ||
			record_hash(v->buf + v->off % BLOCK, v->head) != e->hash) {
			give_up(s, v);
			continue;
		}
		if (e->body_len > INLINE_MAX) {
			if (!take_msg(s, v, e))
				give_up(s, v);
			continue;
		}
		n = copy_inline(s, v, e);
		bytes += n;
		if (n)
			move_free(s, v);
		else
			give_up(s, v);
	}
}

static bool uses_segment(const struct entry *e, uint32_t segment)
{
	bool in = e->segment == segment;

	for (uint32_t i = 0; e->uses && i < e->uses->n && !in; i++)
		in = e->uses->use[i].segment == segment;
	for (uint32_t i = 0; e->msg && e->body_len > INLINE_MAX && i < e->msg->npieces && !in; i++)
		in = e->msg->piece[i]->on_disk && e->msg->piece[i]->segment == segment;
	return in;
}

/* Free segments, and those that the next checkpoint frees. */
static uint32_t soon_free(const struct store *s)
{
	uint32_t n = segments_left(s);

	for (uint32_t i = 0; i < s->nsegs; i++)
		n += s->seg[i].state == SEG_FULL && !s->seg[i].live && !s->seg[i].quarantined;
	return n;
}

/* The full segment of which the least is wanted, with a bonus for age: what is old and still there will stay. */
static uint32_t choose(const struct store *s)
{
	uint32_t best = SLOT_NONE;
	double best_score = 0;

	for (uint32_t i = 0; i < s->nsegs; i++) {
		const struct segment *seg = &s->seg[i];
		double used = (double)seg->live_bytes / (double)s->cfg.segment_bytes, score;

		if (seg->state != SEG_FULL || !seg->live || seg->quarantined || used > 0.9)
			continue;
		score = (1 - used) / (1 + used) * (double)(s->next_generation - seg->generation);
		if (best == SLOT_NONE || score > best_score) {
			best = i;
			best_score = score;
		}
	}
	return best;
}

static void look_for_more(struct store *s)
{
	for (uint32_t k = 0; k < SLOTS_A_TURN && s->nmoves < MOVES && s->cursor < index_slots(s->index); k++) {
		struct entry *e = index_at(s->index, s->cursor++);

		if ((e->flags & (ENTRY_USED | ENTRY_IN_LOG)) != (ENTRY_USED | ENTRY_IN_LOG) ||
			e->flags & (ENTRY_COPYING | ENTRY_WAKING | ENTRY_DAMAGED) || !uses_segment(e, s->victim))
			continue;
		if (!begin(s, e))
			return;
	}
}

void compact_turn(struct store *s)
{
	if (s->fenced)
		return;
	if (s->nmoves)
		compose(s);
	if (s->victim != SLOT_NONE && (!s->seg[s->victim].live || (s->cursor >= index_slots(s->index) && !s->nmoves)))
		s->victim = SLOT_NONE; /* empty, or gone through: the rest of it is busy */
	if (s->victim == SLOT_NONE && soon_free(s) < RESERVE_SEGMENTS + 2 && segment_cold_ready(s)) {
		s->victim = choose(s);
		s->cursor = 0;
		if (s->victim != SLOT_NONE && !s->move && !(s->move = calloc(MOVES, sizeof(struct move *))))
			s->victim = SLOT_NONE;
	}
	if (s->victim != SLOT_NONE)
		look_for_more(s);
}
