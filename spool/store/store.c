#include "spool/store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include "spool/base/clock.h"
#include "spool/base/counters.h"
#include "spool/base/hash.h"
#include "spool/base/log.h"
#include "spool/store/internal.h"
#include "spool/store/scan.h"

static struct store *stores[64]; /* of this process: a completion finds its store by number */

/* ---- messages ---- */

struct msg *msg_alloc(struct store *s, uint64_t id, struct span env_bytes)
{
	struct msg *m = calloc(1, sizeof(*m));

	if (!m)
		return NULL;
	m->pub.store = s;
	m->pub.id = id;
	m->slot = SLOT_NONE;
	pool_init(&m->pool, 64 * 1024 * 1024);
	m->stored = pool_span(&m->pool, env_bytes);
	if (!m->stored.p || envelope_read(m->stored, &m->pool, &m->pub.env) != ST_OK)
		goto fail;
	m->pub.open_rcpts = m->pub.env.nrcpt;
	m->pub.rcpt = pool_alloc(&m->pool, m->pub.env.nrcpt * sizeof(*m->pub.rcpt));
	if (!m->pub.rcpt)
		goto fail;
	return m;
fail:
	pool_reset(&m->pool);
	free(m);
	return NULL;
}

/* Frees it with what it holds of arena and segments. */
void msg_free(struct store *s, struct msg *m)
{
	if (m->waits_for_pieces)
		TAILQ_REMOVE(&s->waiting_put, m, waiting);
	for (uint32_t i = 0; i < m->npieces; i++) {
		if (m->piece[i]->queued)
			m->piece[i]->orphan = true;
		else
			piece_free(s, m->piece[i]);
	}
	for (uint32_t i = 0; i < m->pub.env.nrcpt; i++)
		free(m->pub.rcpt[i].last);
	scan_list_free(m);
	free(m->piece);
	free((void *)(uintptr_t)m->pub.hold_reason.p);
	pool_reset(&m->pool);
	free(m);
}

struct entry *msg_entry(const struct msg *m)
{
	return index_at(m->pub.store->index, m->slot);
}

uint64_t entry_bytes(const struct entry *e)
{
	return e->head + (e->body_len <= INLINE_MAX ? e->body_len : 0);
}

void entry_live(struct store *s, const struct entry *e, int change)
{
	segment_live(s, e->segment, change, entry_bytes(e));
}

static struct span heap_span(struct span s)
{
	char *p = s.n ? malloc(s.n) : NULL;

	if (!p)
		return SPAN_NONE;
	memcpy(p, s.p, s.n);
	return span_of(p, s.n);
}

/* With an index entry of its own. */
static struct msg *msg_from_envelope(struct store *s, const struct envelope *env)
{
	char small[4096];
	size_t n = envelope_size(env);
	char *buf = n <= sizeof(small) ? small : malloc(n);
	struct out o = out_of(buf, n);
	struct msg *m = NULL;

	if (!buf)
		return NULL;
	envelope_write(env, &o);
	CHECK(!o.over && o.n == n);
	m = msg_alloc(s, (uint64_t)s->cfg.partition << 56 | s->next_number, out_span(&o));
	if (buf != small)
		free(buf);
	if (!m)
		return NULL;
	if (index_add(s->index, m->pub.id, &m->slot) != ST_OK) {
		msg_free(s, m);
		return NULL;
	}
	msg_entry(m)->msg = m;
	msg_entry(m)->nrcpt = env->nrcpt;
	s->nawake++;
	s->next_number++;
	return m;
}

/* What is still to be written of a body that is complete; the rest of it is in the log already, and its memory is given back the sooner. */
static enum status room_for_rest(const struct store *s, const struct body *b)
{
	uint64_t rest = 0, own = 0; /* log_room_left counts what is composed twice, but a message should not take twice what it asked for */

	if (s->fenced)
		return trail(ST_IO, "%s", s->fence_text);
	for (uint32_t i = 0; i < b->npieces; i++) {
		rest += i < b->spilled ? 0 : b->piece[i]->len;
		own += b->piece[i]->queued ? pad_block(b->piece[i]->len) : 0;
	}
	return rest > log_room_left(s) + own ? trail(ST_FULL, "the spool is full") : ST_OK;
}

enum status store_put(struct store *s, const struct envelope *env, struct body *b, bool scanned, void *user, struct store_msg **ret)
{
	struct msg *m;
	enum status st = room_for_rest(s, b);

	if (st != ST_OK || !(m = msg_from_envelope(s, env))) {
		body_drop(b);
		return st != ST_OK ? st : ST_NOMEM;
	}
	m->pub.user = user;
	m->pub.state = scanned ? MSG_QUEUED : MSG_PENDING;
	m->pub.body_len = b->len;
	msg_entry(m)->body_len = b->len;
	m->pub.dot_lines = b->dot_lines;
	m->pub.ends_crlf = b->len >= 2 && b->last[0] == '\r' && b->last[1] == '\n';
	m->piece = b->piece;
	m->npieces = b->npieces;
	body_seal(b);
	for (uint32_t i = 0; i < m->npieces; i++)
		m->piece[i]->kept = true; /* a scanner is about to be told where they are */
	body_free(b);
	m->waits_for_pieces = pieces_queued(m);
	if (m->waits_for_pieces)
		TAILQ_INSERT_TAIL(&s->waiting_put, m, waiting);
	else
		log_message(s, m, SPAN_NONE);
	*ret = &m->pub;
	return ST_OK;
}

void store_set_state(struct store_msg *pub, enum msg_state state, struct span reason)
{
	struct msg *m = (struct msg *)pub;

	bool was_pending = pub->state == MSG_PENDING;

	if (pub->state == state)
		return;
	pub->state = (uint8_t)state;
	free((void *)(uintptr_t)pub->hold_reason.p);
	pub->hold_reason = state == MSG_HELD ? heap_span(reason) : SPAN_NONE;
	log_state(m);
	if (was_pending)
		ledger_accepted(pub);
	else
		ledger_state(pub, reason);
}

void store_rcpt(struct store_msg *m, uint32_t i, enum rcpt_state state, const struct reply *reply, uint64_t next_ns)
{
	store_rcpt_at(m, i, state, reply, next_ns, SPAN_NONE);
}

void store_rcpt_at(struct store_msg *pub, uint32_t i, enum rcpt_state state, const struct reply *reply, uint64_t next_ns, struct span remote)
{
	struct store_rcpt_state *r = &pub->rcpt[i];

	CHECK(i < pub->env.nrcpt && r->state == RCPT_QUEUED);
	if (reply) {
		size_t n = offsetof(struct reply, text) + reply->text_len;
		struct reply *copy = realloc(r->last, n + 1); /* only as long as its text */

		if (copy) {
			memcpy(copy, reply, n);
			r->last = copy;
		}
	}
	if (state == RCPT_QUEUED && r->attempts < ATTEMPTS_MAX)
		r->attempts++;
	r->state = (uint8_t)state;
	r->next_ns = next_ns;
	if (state != RCPT_QUEUED)
		pub->open_rcpts--;
	log_outcome((struct msg *)pub, i);
	ledger_fate(pub, i, remote);
}

/* Its segments may be reused when it is on record that it is done: before that a crash brings it back. */
static void forget_uses(struct store *s, struct msg *m, const struct entry *e, struct batch *done)
{
	if (e->flags & ENTRY_IN_LOG)
		batch_add_unused(done, e->segment, entry_bytes(e));
	for (uint32_t i = 0; i < m->npieces; i++)
		if (m->piece[i]->on_disk) {
			batch_add_unused(done, m->piece[i]->segment, m->piece[i]->len);
			m->piece[i]->on_disk = false;
		}
}

void store_forget(struct store_msg *pub)
{
	struct msg *m = (struct msg *)pub;
	struct store *s = pub->store;
	struct entry *e = msg_entry(m);

	CHECK(m->pins == (m->nscan_pages != 0) || s->fenced); /* a scanner may still read, nobody else */
	if (m->move)
		move_cancel(s, m);
	if (!s->fenced)
		forget_uses(s, m, e, log_done(s, pub->id));
	index_del(s->index, m->slot);
	m->slot = SLOT_NONE;
	s->nawake--;
	msg_let_go(s, m);
}

/* One that is forgotten stays until no batch names it and no scanner reads it. */
void msg_let_go(struct store *s, struct msg *m)
{
	if (m->slot == SLOT_NONE && !m->nbatch && !m->nscan_pages)
		msg_free(s, m);
}

void msg_maybe_evict(struct msg *m)
{
	struct store *s = m->pub.store;

	if (!m->evict_wanted || m->pins || m->nbatch || m->move || m->slot == SLOT_NONE || !(msg_entry(m)->flags & ENTRY_IN_LOG))
		return;
	m->evict_wanted = false;
	for (uint32_t i = 0; i < m->npieces; i++) {
		struct piece *p = m->piece[i];

		if (is_inline(&m->pub)) {
			piece_free(s, p);
		} else if (p->ext.cap && p->on_disk) {
			extent_release(s->arena, p->ext);
			p->ext.cap = 0;
		}
	}
	if (is_inline(&m->pub)) {
		free(m->piece);
		m->piece = NULL;
		m->npieces = 0;
	}
}

void store_evict(struct store_msg *pub)
{
	struct msg *m = (struct msg *)pub;

	m->evict_wanted = true;
	msg_maybe_evict(m);
}

/* ---- ids ---- */

static const char base32[] = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";

void msg_id_text(uint64_t id, char ret[MSG_ID_TEXT + 1])
{
	for (int i = MSG_ID_TEXT - 1; i >= 0; i--, id >>= 5)
		ret[i] = base32[id & 31];
	ret[MSG_ID_TEXT] = '\0';
}

enum status msg_id_parse(struct span s, uint64_t *ret)
{
	uint64_t v = 0;

	if (s.n != MSG_ID_TEXT)
		return trail(ST_INVALID, "a message id has %d characters", MSG_ID_TEXT);
	for (size_t i = 0; i < s.n; i++) {
		char c = s.p[i] >= 'a' && s.p[i] <= 'z' ? (char)(s.p[i] - 32) : s.p[i];
		const char *at = c ? strchr(base32, c) : NULL;

		if (!at || (i == 0 && at - base32 > 15))
			return trail(ST_INVALID, "not a message id");
		v = v << 5 | (uint64_t)(at - base32);
	}
	*ret = v;
	return ST_OK;
}

/* ---- the partition ---- */

/* What was composed and has no segment yet. Twice its size, as half a segment may be left over where the next batch does not fit. */
static uint64_t composed(const struct store *s)
{
	const struct batch *b;
	uint64_t n = s->open ? pad_block(s->open->used) + s->open->raw_bytes : 0;

	TAILQ_FOREACH(b, &s->waiting, entry)
		n += pad_block(b->used) + b->raw_bytes;
	return 2 * n;
}

/* Segments that are for outcomes and compaction. A disk with room for fewer than the ring wants gets by with less. */
static uint64_t reserve(const struct store *s)
{
	uint32_t least = RESERVE_SEGMENTS + 3;

	return s->max_segs >= least ? RESERVE_SEGMENTS : s->max_segs > least - 2 ? s->max_segs - 3 : 1;
}

uint64_t log_room_left(const struct store *s)
{
	uint64_t room = (uint64_t)segments_left(s) * s->cfg.segment_bytes, taken = reserve(s) * s->cfg.segment_bytes + composed(s);

	if (s->next[STREAM_HOT])
		room += s->cfg.segment_bytes;
	if (s->active[STREAM_HOT])
		room += s->cfg.segment_bytes - s->active[STREAM_HOT]->end;
	return room > taken ? room - taken : 0;
}

enum status store_room(struct store *s, uint64_t size)
{
	uint64_t room;

	if (s->fenced)
		return trail(ST_IO, "%s", s->fence_text);
	room = log_room_left(s);
	if (!room || size > room || arena_used(s->arena) > arena_bytes(s->arena) / 16 * 15)
		return trail(ST_FULL, "the spool is full");
	return ST_OK;
}

bool store_fenced(const struct store *s)
{
	return s->fenced;
}

void store_completion(void *ctx, const struct uring_event *ev)
{
	struct store *s = stores[ev->slot >> 18 & 63];

	(void)ctx;
	if (!s)
		return;
	switch ((enum store_op)ev->op) {
	case OP_WRITE:
	case OP_SYNC:
		log_completion(s, ev);
		break;
	case OP_READ:
		reader_completion(s, ev);
		break;
	case OP_FILL:
	case OP_FILL_DIR:
	case OP_FILL_SYNC:
	case OP_CLAIM:
	case OP_CLAIM_SYNC:
		segment_completion(s, ev);
		break;
	case OP_RECORD:
		reading_completion(s, ev);
		break;
	case OP_MOVE:
		move_completion(s, ev);
		break;
	case OP_CHECKPOINT:
		checkpoint_completion(s, ev);
		break;
	case OP_LEDGER:
		ledger_completion(s, ev);
		break;
	}
}

/* The arena and the staging buffers are registered with the kernel where it lets us (memlock limit); else they are written all the same. */
static void lend_buffers(struct store *s)
{
	struct iovec iov[1 + SPARES];
	unsigned n = 0;

	iov[n++] = (struct iovec){ arena_at(s->arena, 0), arena_map_bytes(s->arena) };
	for (uint32_t i = 0; i < s->nspare; i++)
		iov[n++] = (struct iovec){ s->spare[i]->staging, s->spare[i]->cap };
	if (s->id == 0 && arena_bytes(s->arena) <= 1ull << 30)
		s->disk->ops->lend(s->disk, iov, n);
	for (uint32_t i = 0; i < s->nspare && s->disk->registered; i++)
		s->spare[i]->registered = (int)i + 1;
}

static enum status prepare_memory(struct store *s)
{
	s->zeros = aligned_alloc(BLOCK, FILL_CHUNK);
	s->claim_block[STREAM_HOT] = aligned_alloc(BLOCK, BLOCK);
	s->claim_block[STREAM_COLD] = aligned_alloc(BLOCK, BLOCK);
	if (!s->zeros || !s->claim_block[STREAM_HOT] || !s->claim_block[STREAM_COLD] || index_new(&s->index) != ST_OK)
		return ST_NOMEM;
	memset(s->zeros, 0, FILL_CHUNK);
	for (uint32_t i = 0; i < SPARES; i++) {
		struct batch *b = calloc(1, sizeof(*b));

		if (!b || !(b->staging = aligned_alloc(BLOCK, s->cfg.staging_bytes))) {
			free(b);
			return ST_NOMEM;
		}
		b->cap = s->cfg.staging_bytes;
		b->registered = -1;
		s->spare[s->nspare++] = b;
	}
	lend_buffers(s);
	return ST_OK;
}

/* A batch that nobody will hear of any more, and what only it knows. */
static void drop_batch(struct store *s, struct batch *b)
{
	for (uint32_t i = 0; i < b->nraw; i++) {
		struct piece *p = b->raw[i].piece;

		p->queued = false;
		if (p->orphan)
			piece_free(s, p);
	}
	for (uint32_t i = 0; i < b->nmsg; i++) {
		struct batch_msg *bm = &b->msg[i];

		for (uint32_t k = 0; k < bm->nold; k++) {
			bm->old[k]->on_disk = false;
			piece_free(s, bm->old[k]);
		}
		free(bm->old);
		if (bm->msg && !--bm->msg->nbatch && bm->msg->slot == SLOT_NONE)
			msg_free(s, bm->msg);
	}
	batch_free(b);
}

static void drop_batches(struct store *s, struct batch_list *list)
{
	struct batch *b;

	while ((b = TAILQ_FIRST(list))) {
		TAILQ_REMOVE(list, b, entry);
		drop_batch(s, b);
	}
}

static void store_destroy(struct store *s)
{
	if (s->open)
		TAILQ_INSERT_TAIL(&s->waiting, s->open, entry);
	drop_batches(s, &s->flying); /* they know of pieces of moves and messages, */
	drop_batches(s, &s->waiting);
	moves_free(s);               /* which know of messages that are awake */
	for (uint32_t i = 0; s->index && i < index_slots(s->index); i++)
		if (index_at(s->index, i)->msg) {
			struct msg *m = index_at(s->index, i)->msg;

			for (uint32_t k = 0; k < m->npieces; k++) {
				m->piece[k]->queued = false;
				m->piece[k]->on_disk = false;
			}
			msg_free(s, m);
		}
	for (uint32_t i = 0; i < s->nspare; i++)
		batch_free(s->spare[i]);
	readings_free(s);
	readers_free(s);
	checkpoint_free(s);
	ledger_free(s);
	if (s->disk)
		s->disk->ops->free(s->disk);
	stores[s->id] = NULL;
	index_free(s->index);
	free(s->seg);
	free(s->event);
	free(s->zeros);
	free(s->claim_block[STREAM_HOT]);
	free(s->claim_block[STREAM_COLD]);
	free((void *)(uintptr_t)s->cfg.dir);
	free(s);
}

static enum status open_parts(struct store *s, struct uring *u)
{
	enum status st;

	s->max_segs = (uint32_t)(s->cfg.max_bytes / s->cfg.segment_bytes);
	if (s->max_segs < RESERVE_SEGMENTS + 3)
		s->max_segs = RESERVE_SEGMENTS + 3;
	s->segs_limit = s->max_segs;
	s->seg = calloc(s->max_segs, sizeof(*s->seg));
	if (!s->cfg.dir || !s->seg)
		return ST_NOMEM;
	if (!s->disk && (st = disk_files_new(u, s->cfg.dir, s->cfg.direct, &s->disk)) != ST_OK)
		return st;
	if ((st = s->disk->ops->lock(s->disk)) != ST_OK || (st = prepare_memory(s)) != ST_OK || (st = segment_open_all(s)) != ST_OK ||
		(st = checkpoint_open(s)) != ST_OK || (st = ledger_open(s, false)) != ST_OK || (st = recover(s)) != ST_OK)
		return st;
	if (s->cfg.spill_bytes > s->cfg.segment_bytes / 4) /* what goes in one batch must fit into one segment */
		s->cfg.spill_bytes = s->cfg.segment_bytes / 4;
	while (st == ST_OK && s->nfree < 2 && s->nsegs < s->max_segs)
		st = segment_create(s);
	return s->nsegs >= 2 ? ST_OK : st;
}

enum status store_open(struct uring *u, struct arena *a, const struct store_config *cfg, struct store **ret)
{
	struct store *s = calloc(1, sizeof(*s));
	uint64_t start = clock_mono_ns();
	enum status st;

	if (!s)
		return ST_NOMEM;
	s->cfg = *cfg;
	s->cfg.dir = strdup(cfg->dir);
	s->disk = cfg->disk;
	if (!s->cfg.staging_bytes)
		s->cfg.staging_bytes = STAGING;
	s->arena = a;
	TAILQ_INIT(&s->waiting);
	TAILQ_INIT(&s->bodies);
	TAILQ_INIT(&s->flying);
	TAILQ_INIT(&s->waiting_put);
	while (s->id < 63 && stores[s->id])
		s->id++;
	stores[s->id] = s;
	s->victim = SLOT_NONE;
	s->next_generation = s->next_seq = 1;
	s->next_number = clock_wall_ns() / NS_PER_US & 0xffffffffffffffull;
	if (u)
		uring_handle(u, URING_STORE, store_completion, NULL);
	st = open_parts(s, u);
	if (st != ST_OK) {
		store_destroy(s);
		return st;
	}
	segment_upkeep(s);
	counter_set(C_SPOOL_DIRECT, s->disk->direct);
	counter_set(C_SPOOL_FIXED, s->disk->registered);
	counter_set(C_SPOOL_RECOVERED, index_len(s->index));
	counter_set(C_SPOOL_RECOVERY_NS, clock_mono_ns() - start);
	*ret = s;
	return ST_OK;
}

/* The kernel still has memory of ours. */
static bool kernel_busy(const struct store *s)
{
	return s->filling || s->nreading || ledger_busy(s) || readers_reading(s) || moves_reading(s) || checkpoint_running(s) ||
		(s->next[STREAM_HOT] && s->next[STREAM_HOT]->state == SEG_CLAIMING) ||
		(s->next[STREAM_COLD] && s->next[STREAM_COLD]->state == SEG_CLAIMING);
}

void store_close(struct store *s)
{
	uint64_t until = clock_mono_ns() + 10 * NS_PER_S;

	while (store_busy(s) && clock_mono_ns() < until) {
		store_commit(s);
		if (s->disk->ops->wait(s->disk, 10 * NS_PER_MS) != ST_OK)
			break;
	}
	while ((kernel_busy(s) || !ledger_settled(s)) && !s->fenced && clock_mono_ns() < until) {
		checkpoint_turn(s);
		ledger_turn(s);
		if (s->disk->ops->wait(s->disk, 10 * NS_PER_MS) != ST_OK)
			break;
	}
	store_destroy(s);
}

uint32_t store_partition(const struct store *s)
{
	return s->cfg.partition;
}

void store_describe(const struct store *s, struct logline *row)
{
	uint64_t live = 0;

	for (uint32_t i = 0; i < s->nsegs; i++)
		live += s->seg[i].live_bytes;
	log_u64(row, "partition", s->cfg.partition);
	log_str(row, "dir", s->cfg.dir);
	log_u64(row, "messages", index_len(s->index));
	log_u64(row, "awake", s->nawake);
	log_u64(row, "segments", s->nsegs);
	log_u64(row, "segments_free", s->nfree);
	log_u64(row, "segments_max", s->max_segs);
	log_u64(row, "segment_bytes", s->cfg.segment_bytes);
	log_u64(row, "live_bytes", live);
	log_u64(row, "checkpoint", checkpoint_number(s));
	log_str(row, "direct", s->disk->direct ? "yes" : "no");
	log_str(row, "registered", s->disk->registered ? "yes" : "no");
	log_u64(row, "damaged", s->damaged);
	log_str(row, "fenced", s->fenced ? s->fence_text : "no");
}
