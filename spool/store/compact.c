/* When the ring runs short of free segments, the messages that keep the oldest one are copied forward, so that one deferred message never pins a segment.
 *
 * Their bodies are read with the disk waited for: this happens only when the ring is nearly full, a bounded number of bytes a turn. */
#include <stdlib.h>
#include <unistd.h>
#include <xxhash.h>
#include "spool/base/counters.h"
#include "spool/store/internal.h"

enum { BYTES_A_TURN = 1024 * 1024, SLOTS_A_TURN = 20000 };

static bool needed(const struct store *s)
{
	return s->max_segs - s->nsegs + segment_count(s, SEG_FREE) < RESERVE_SEGMENTS + 1;
}

/* Reads n bytes at off of a segment into the arena as a new piece. NULL: no room, or they are not what was written. */
static struct piece *load(struct store *s, uint32_t segment, uint64_t off, uint32_t n, uint64_t hash)
{
	uint64_t from = off & ~(uint64_t)(BLOCK - 1);
	uint32_t bytes = pad_block(off + n - from);
	char *buf = aligned_alloc(BLOCK, bytes);
	struct piece *p = calloc(1, sizeof(*p));

	if (!buf || !p || extent_alloc(s->arena, n, &p->ext) != ST_OK)
		goto fail;
	if (p->ext.cap < n || pread(s->seg[segment].fd, buf, bytes, (off_t)from) < (ssize_t)(off - from + n) ||
		XXH3_64bits(buf + (off - from), n) != hash) {
		extent_release(s->arena, p->ext);
		goto fail;
	}
	memcpy(arena_at(s->arena, p->ext.off), buf + (off - from), n);
	p->len = n;
	p->hash = hash;
	free(buf);
	return p;
fail:
	free(buf);
	free(p);
	return NULL;
}

static bool move_inline(struct store *s, struct msg *m)
{
	struct piece *p;

	if (m->npieces || !m->pub.body_len)
		return true; /* still in the arena */
	p = load(s, m->segment, m->inline_off, (uint32_t)m->pub.body_len, m->inline_hash);
	if (!p)
		return false;
	m->piece = malloc(sizeof(struct piece *));
	CHECK(m->piece);
	m->piece[0] = p;
	m->npieces = 1;
	m->evict_wanted = true;
	return true;
}

/* Replaces the pieces that are in the segment; the old ones stay counted until the copy is durable. */
static bool move_pieces(struct store *s, struct msg *m, uint32_t segment, struct piece ***ret_old, uint32_t *ret_nold)
{
	struct piece **old = calloc(m->npieces, sizeof(struct piece *)), **fresh = calloc(m->npieces, sizeof(struct piece *));
	uint32_t n = 0;
	bool ok = old && fresh;

	for (uint32_t i = 0; i < m->npieces && ok; i++) {
		struct piece *p = m->piece[i];

		if (!p->on_disk || p->segment != segment)
			continue;
		fresh[i] = load(s, p->segment, p->off, p->len, p->hash);
		ok = fresh[i] != NULL;
	}
	for (uint32_t i = 0; i < m->npieces && fresh; i++) {
		if (!fresh[i])
			continue;
		if (ok) {
			old[n++] = m->piece[i];
			m->piece[i] = fresh[i];
		} else {
			piece_free(s, fresh[i]);
		}
	}
	free(fresh);
	if (!ok || !n) {
		free(old);
		old = NULL;
	}
	*ret_old = old;
	*ret_nold = n;
	m->evict_wanted = m->evict_wanted || n;
	return ok;
}

static bool is_in(const struct msg *m, uint32_t segment)
{
	bool in = m->segment == segment;

	for (uint32_t i = 0; i < m->npieces && !in; i++)
		in = m->piece[i]->on_disk && m->piece[i]->segment == segment;
	return in;
}

/* Copies one message forward. False when there is no room for it now. */
static bool move(struct store *s, struct msg *m, uint32_t segment)
{
	struct piece **old = NULL;
	uint32_t nold = 0;

	if (m->inline_off || m->pub.body_len <= INLINE_MAX ? !move_inline(s, m) : !move_pieces(s, m, segment, &old, &nold))
		return false;
	m->moving = true;
	log_message(s, m, true, old, nold);
	counter_add(C_SPOOL_MOVED_BYTES, m->pub.body_len);
	return true;
}

void compact_turn(struct store *s)
{
	static uint32_t cursor;
	struct segment *seg;
	uint64_t bytes = 0;

	if (s->fenced || !needed(s) || !(seg = segment_oldest(s)) || !seg->live)
		return;
	for (uint32_t k = 0; k < SLOTS_A_TURN && k < s->nslots && bytes < BYTES_A_TURN; k++) {
		struct msg *m = s->msgs[cursor++ % s->nslots];

		if (!m || m->moving || !m->in_log || m->pins || m->nbatch || !is_in(m, seg->index))
			continue;
		if (!move(s, m, seg->index))
			return;
		bytes += m->pub.body_len + BLOCK;
	}
}
