#include <stdlib.h>
#include "spool/base/counters.h"
#include "spool/base/hash.h"
#include "spool/store/internal.h"

/* PIECES_FINE: so many small pieces, then larger ones: a scan list stays short (SCAN_PIECES_MAX), whatever the message's size. */
enum { HEAD_GUARANTEED = 64 * 1024, HEAD_PRESSED = 16 * 1024 /* and any piece, pressed hard */, PIECE_PRESSED = 64 * 1024, PIECES_FINE = 2048 };

enum status body_new(struct store *s, uint64_t size_hint, struct body **ret)
{
	struct body *b = calloc(1, sizeof(*b));

	if (!b)
		return ST_NOMEM;
	b->store = s;
	b->hint = size_hint;
	TAILQ_INSERT_TAIL(&s->bodies, b, entry);
	*ret = b;
	return ST_OK;
}

void body_free(struct body *b)
{
	TAILQ_REMOVE(&b->store->bodies, b, entry);
	free(b);
}

void piece_free(struct store *s, struct piece *p)
{
	if (p->ext.cap)
		extent_release(s->arena, p->ext);
	if (p->on_disk)
		segment_live(s, p->segment, -1, p->len);
	free(p);
}

bool store_pressed(const struct store *s)
{
	return arena_used(s->arena) > arena_bytes(s->arena) / 2;
}

/* The next extent: as large as what there is already, so that a message is a few pieces; or as the client announced. With many at once a client holds less, so
 * that slow ones cannot use up the arena by what they have begun. */
static size_t next_want(const struct body *b)
{
	size_t want = b->len > EXTENT_MIN ? (size_t)b->len : EXTENT_MIN;
	bool hard = arena_used(b->store->arena) > arena_bytes(b->store->arena) / 4 * 3;
	size_t most = b->npieces && !hard ? PIECE_PRESSED : HEAD_PRESSED;

	if (!b->npieces && b->hint)
		want = b->hint > EXTENT_MAX ? HEAD_GUARANTEED : (size_t)b->hint;
	return want > most && store_pressed(b->store) && b->npieces < PIECES_FINE ? most : want;
}

static struct piece *tail(const struct body *b)
{
	return b->npieces ? b->piece[b->npieces - 1] : NULL;
}

static size_t tail_room(const struct body *b)
{
	struct piece *p = tail(b);

	return p && p->ext.cap && !p->queued && !p->on_disk ? p->ext.cap - p->len : 0;
}

/* Pieces are on their way to the disk, or messages to their end, after which their memory can be given back. */
static bool room_is_coming(const struct store *s)
{
	const struct batch *b;

	if (s->nawake)
		return true;

	TAILQ_FOREACH(b, &s->flying, entry)
		if (b->nraw)
			return true;
	TAILQ_FOREACH(b, &s->waiting, entry)
		if (b->nraw)
			return true;
	return s->open && s->open->nraw;
}

/* A long body is written to the log while it comes in; under pressure any that will not be inline. */
static void spill(struct body *b)
{
	struct store *s = b->store;

	if (b->len <= (store_pressed(s) ? INLINE_MAX : s->cfg.spill_bytes) || s->fenced || !log_room_left(s))
		return; /* the reserve is not for what may never be a message */
	for (; b->spilled < b->sealed; b->spilled++) /* only full ones; the last goes with the message */
		log_chunk(s, b->piece[b->spilled], STREAM_HOT);
	/* what became durable while there was room enough */
	for (; store_pressed(s) && b->released < b->spilled && b->piece[b->released]->on_disk; b->released++) {
		struct piece *p = b->piece[b->released];

		if (!p->kept && p->ext.cap) {
			extent_release(s->arena, p->ext);
			p->ext.cap = 0;
		}
	}
}

/* What was kept, or not yet spilled, while there was room enough. */
static void reclaim(struct store *s)
{
	struct body *b;

	s->reclaimable = false;
	TAILQ_FOREACH(b, &s->bodies, entry)
		spill(b);
}

enum status body_room(struct body *b, size_t n)
{
	struct store *s = b->store;

	if (n <= tail_room(b) || arena_left(s->arena) > 4 * EXTENT_MAX || s->fenced)
		return ST_OK;
	if (s->reclaimable)
		reclaim(s);
	/* spilling gives room back; without it only other messages' ends do, and they may wait for this one's */
	if (room_is_coming(s)) {
		s->room_wanted = true;
		return arena_left(s->arena) > EXTENT_MAX ? ST_OK : ST_AGAIN;
	}
	return ST_OK;
}

void body_seal(struct body *b)
{
	if (b->len <= INLINE_MAX)
		return; /* its record will have one hash of it all */
	for (; b->sealed < b->npieces; b->sealed++) {
		struct piece *p = b->piece[b->sealed];

		p->hash = XXH3_64bits(arena_at(b->store->arena, p->ext.off), p->len);
	}
}

static enum status add_piece(struct body *b)
{
	struct piece *p;

	body_seal(b);
	spill(b);
	if (b->spilled < b->sealed)
		b->store->reclaimable = true; /* under pressure it would have been spilled */
	if (b->npieces == b->cap) {
		uint32_t cap = b->cap ? b->cap * 2 : 4;
		struct piece **bigger = realloc(b->piece, cap * sizeof(struct piece *));

		if (!bigger)
			return ST_NOMEM;
		b->piece = bigger;
		b->cap = cap;
	}
	p = calloc(1, sizeof(*p));
	if (!p)
		return ST_NOMEM;
	if (extent_alloc(b->store->arena, next_want(b), &p->ext) != ST_OK) {
		free(p);
		return ST_FULL;
	}
	p->kept = b->npieces == 0; /* the header is looked at when all is there */
	b->piece[b->npieces++] = p;
	return ST_OK;
}

enum status body_append(struct body *b, struct span s)
{
	if (!s.n)
		return ST_OK;
	if (b->store->fenced)
		return trail(ST_IO, "%s", b->store->fence_text);
	if (s.n >= 2)
		memcpy(b->last, s.p + s.n - 2, 2);
	else {
		b->last[0] = b->last[1];
		b->last[1] = s.p[0];
	}
	while (s.n) {
		size_t n = tail_room(b);
		struct piece *p;

		if (!n) {
			enum status st = add_piece(b);

			if (st != ST_OK)
				return st;
			continue;
		}
		p = tail(b);
		n = n < s.n ? n : s.n;
		memcpy((char *)arena_at(b->store->arena, p->ext.off) + p->len, s.p, n);
		p->len += (uint32_t)n;
		b->len += n;
		s = span_skip(s, n);
	}
	return ST_OK;
}

void body_mark_dot_lines(struct body *b)
{
	b->dot_lines = true;
}

struct store *body_store(const struct body *b)
{
	return b->store;
}

uint64_t body_len(const struct body *b)
{
	return b->len;
}

struct span body_head(const struct body *b)
{
	if (!b->npieces || !b->piece[0]->ext.cap)
		return SPAN_NONE;
	return span_of(arena_at(b->store->arena, b->piece[0]->ext.off), b->piece[0]->len);
}

void body_drop(struct body *b)
{
	for (uint32_t i = 0; i < b->npieces; i++) {
		if (b->piece[i]->queued)
			b->piece[i]->orphan = true;
		else
			piece_free(b->store, b->piece[i]);
	}
	free(b->piece);
	body_free(b);
}
