/* Reading a body: from the arena where it still is, else from the log, piece by piece, checked against its checksum. */
#include <errno.h>
#include <stdlib.h>
#include "spool/base/counters.h"
#include "spool/base/hash.h"
#include "spool/store/internal.h"

struct body_reader {
	struct msg *m;
	uint64_t cookie;
	uint32_t slot, gen;
	uint32_t next;      /* piece */
	char *buf;
	size_t cap;
	uint32_t want, skip; /* of the read under way: bytes wanted, and where they begin in buf */
	uint64_t hash;
	int res;
	uint32_t segment;    /* it reads there */
	bool reading, ready, closed;
};

static uint32_t next_gen;

bool is_inline(const struct store_msg *m)
{
	return m->body_len <= INLINE_MAX;
}

enum status store_read_open(struct store_msg *pub, uint64_t cookie, struct body_reader **ret)
{
	struct msg *m = (struct msg *)pub;
	struct store *s = pub->store;
	struct body_reader *r = calloc(1, sizeof(*r));
	uint32_t i;

	if (!r)
		return ST_NOMEM;
	for (i = 0; i < s->readers_cap && s->reader[i]; i++)
		;
	if (i == s->readers_cap) {
		uint32_t cap = s->readers_cap ? s->readers_cap * 2 : 64;
		struct body_reader **bigger = realloc(s->reader, cap * sizeof(struct body_reader *));

		if (!bigger) {
			free(r);
			return ST_NOMEM;
		}
		memset(bigger + s->readers_cap, 0, (cap - s->readers_cap) * sizeof(struct body_reader *));
		s->reader = bigger;
		s->readers_cap = cap;
	}
	*r = (struct body_reader){ .m = m, .cookie = cookie, .slot = i, .gen = ++next_gen & 0xffffff };
	s->reader[i] = r;
	m->pins++;
	*ret = r;
	return ST_OK;
}

static void reader_free(struct store *s, struct body_reader *r)
{
	s->reader[r->slot] = NULL;
	free(r->buf);
	free(r);
}

/* Those that were closed while the kernel read for them, and it never answered. */
void readers_free(struct store *s)
{
	for (uint32_t i = 0; i < s->readers_cap; i++)
		if (s->reader[i])
			reader_free(s, s->reader[i]);
	free(s->reader);
}

bool readers_reading(const struct store *s)
{
	for (uint32_t i = 0; i < s->readers_cap; i++)
		if (s->reader[i] && s->reader[i]->reading)
			return true;
	return false;
}

void store_read_close(struct body_reader *r)
{
	struct store *s = r->m->pub.store;
	struct msg *m = r->m;

	m->pins--;
	msg_maybe_evict(m);
	if (r->reading)
		r->closed = true; /* the kernel still writes into buf: freed at its completion */
	else
		reader_free(s, r);
}

void reader_completion(struct store *s, const struct uring_event *ev)
{
	uint32_t i = ev->slot & 0x3ffff;
	struct body_reader *r = i < s->readers_cap ? s->reader[i] : NULL;

	if (!r || r->gen != ev->gen)
		return;
	r->reading = false;
	s->seg[r->segment].reads--;
	if (r->closed) {
		reader_free(s, r);
		return;
	}
	r->res = ev->res;
	r->ready = true;
	event_push(s, (struct store_event){ .type = STORE_READ, .cookie = r->cookie });
}

/* Begins to read n bytes at off of a segment, in whole blocks. */
static enum status begin(struct store *s, struct body_reader *r, uint32_t segment, uint64_t off, uint32_t n, uint64_t hash)
{
	uint64_t from = off & ~(uint64_t)(BLOCK - 1);
	uint32_t bytes = pad_block(off + n - from);

	if (segment >= s->nsegs)
		return trail(ST_CORRUPT, "a piece is in a segment that does not exist");
	if (bytes > r->cap) {
		free(r->buf);
		r->buf = aligned_alloc(BLOCK, bytes);
		r->cap = r->buf ? bytes : 0;
		if (!r->buf)
			return ST_NOMEM;
	}
	r->want = n;
	r->skip = (uint32_t)(off - from);
	r->hash = hash;
	r->reading = true;
	r->ready = false;
	r->segment = segment;
	s->seg[segment].reads++; /* not reused while the kernel reads there */
	s->disk->ops->begin(s->disk, &(struct disk_io){ .kind = DISK_READ, .file = s->seg[segment].file, .p = r->buf, .n = bytes, .off = from,
		.registered = -1, .tag = store_tag(s, OP_READ, r->slot, r->gen) });
	return ST_AGAIN;
}

/* What the disk gave for the piece under way. */
static enum status finish(struct body_reader *r, struct span *ret_piece)
{
	r->ready = false;
	if (r->res < 0) {
		counter_add(C_SPOOL_IO_ERRORS, 1);
		return trail_errno(-r->res, "reading a body");
	}
	if ((uint32_t)r->res < r->skip + r->want || XXH3_64bits(r->buf + r->skip, r->want) != r->hash) {
		counter_add(C_SPOOL_IO_ERRORS, 1);
		return trail(ST_CORRUPT, "a body's checksum does not fit");
	}
	r->next++;
	*ret_piece = span_of(r->buf + r->skip, r->want);
	return ST_OK;
}

enum status store_read(struct body_reader *r, struct span *ret_piece)
{
	struct msg *m = r->m;
	struct store *s = m->pub.store;

	*ret_piece = SPAN_NONE;
	if (r->reading)
		return ST_AGAIN;
	if (r->ready)
		return finish(r, ret_piece);
	if (!m->npieces) { /* inline in the log only */
		if (r->next || !m->pub.body_len)
			return ST_NOT_FOUND;
		return begin(s, r, msg_entry(m)->segment, msg_entry(m)->off + (uint64_t)msg_entry(m)->head, (uint32_t)m->pub.body_len,
			m->inline_hash);
	}
	if (r->next == m->npieces)
		return ST_NOT_FOUND;
	if (m->piece[r->next]->ext.cap) {
		struct piece *p = m->piece[r->next++];

		*ret_piece = span_of(arena_at(s->arena, p->ext.off), p->len);
		return p->len ? ST_OK : ST_NOT_FOUND;
	}
	return begin(s, r, m->piece[r->next]->segment, m->piece[r->next]->off, m->piece[r->next]->len, m->piece[r->next]->hash);
}
