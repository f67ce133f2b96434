#include "spool/store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>
#include "spool/base/clock.h"
#include "spool/base/counters.h"
#include "spool/base/log.h"
#include "spool/store/internal.h"
#include "spool/store/scan.h"

static struct store *stores[64]; /* of this process: a completion finds its store by number */

/* ---- messages ---- */

struct msg *msg_alloc(struct store *s, uint64_t id, struct span env_bytes)
{
	struct msg *m = calloc(1, sizeof(*m));
	struct span stored;

	if (!m)
		return NULL;
	m->pub.store = s;
	m->pub.id = id;
	m->segment = UINT32_MAX;
	pool_init(&m->pool, 64 * 1024 * 1024);
	stored = pool_span(&m->pool, env_bytes);
	if (!stored.p || envelope_read(stored, &m->pool, &m->pub.env) != ST_OK)
		goto fail;
	m->pub.open_rcpts = m->pub.env.nrcpt;
	m->pub.rcpt = calloc(m->pub.env.nrcpt ? m->pub.env.nrcpt : 1, sizeof(*m->pub.rcpt));
	if (!m->pub.rcpt)
		goto fail;
	if (s->nfree_slots) {
		m->slot = s->free_slots[--s->nfree_slots];
	} else {
		if (s->nslots == s->slots_cap) {
			uint32_t cap = s->slots_cap ? s->slots_cap * 2 : 256;
			struct msg **msgs = realloc(s->msgs, cap * sizeof(struct msg *));
			uint32_t *slots = msgs ? realloc(s->free_slots, cap * sizeof(*slots)) : NULL;

			s->msgs = msgs ? msgs : s->msgs;
			if (!slots)
				goto fail;
			s->free_slots = slots;
			s->slots_cap = cap;
		}
		m->slot = s->nslots++;
	}
	s->msgs[m->slot] = m;
	if (map_set(s->by_id, span_of(&m->pub.id, sizeof(m->pub.id)), m) != ST_OK) {
		s->msgs[m->slot] = NULL;
		s->free_slots[s->nfree_slots++] = m->slot;
		goto fail;
	}
	s->nmsgs++;
	return m;
fail:
	free(m->pub.rcpt);
	pool_reset(&m->pool);
	free(m);
	return NULL;
}

static void unindex(struct store *s, struct msg *m)
{
	if (m->slot == UINT32_MAX)
		return;
	map_del(s->by_id, span_of(&m->pub.id, sizeof(m->pub.id)));
	s->msgs[m->slot] = NULL;
	s->free_slots[s->nfree_slots++] = m->slot;
	m->slot = UINT32_MAX;
	s->nmsgs--;
}

/* Frees it with what it holds of arena and segments. */
void msg_release(struct store *s, struct msg *m)
{
	unindex(s, m);
	if (m->waits_for_pieces)
		s->nwaiting_put--;
	for (uint32_t i = 0; i < m->npieces; i++) {
		if (m->piece[i]->queued)
			m->piece[i]->orphan = true;
		else
			piece_free(s, m->piece[i]);
	}
	if (m->in_log)
		segment_live(s, m->segment, -1);
	for (uint32_t i = 0; i < m->pub.env.nrcpt; i++)
		free(m->pub.rcpt[i].last);
	if (m->scan_list.cap)
		extent_release(s->arena, m->scan_list);
	free(m->piece);
	free(m->pub.rcpt);
	free((void *)(uintptr_t)m->pub.hold_reason.p);
	pool_reset(&m->pool);
	free(m);
}

static struct span heap_span(struct span s)
{
	char *p = s.n ? malloc(s.n) : NULL;

	if (!p)
		return SPAN_NONE;
	memcpy(p, s.p, s.n);
	return span_of(p, s.n);
}

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
	if (m)
		s->next_number++;
	if (buf != small)
		free(buf);
	return m;
}

enum status store_put(struct store *s, const struct envelope *env, struct body *b, bool scanned, void *user, struct store_msg **ret)
{
	struct msg *m;
	enum status st = s->fenced ? ST_IO : store_room(s, b->len);

	if (st != ST_OK || !(m = msg_from_envelope(s, env))) {
		body_drop(b);
		return st != ST_OK ? st : ST_NOMEM;
	}
	m->pub.user = user;
	m->pub.state = scanned ? MSG_QUEUED : MSG_PENDING;
	m->pub.body_len = b->len;
	m->pub.dot_lines = b->dot_lines;
	m->pub.ends_crlf = b->len >= 2 && b->last[0] == '\r' && b->last[1] == '\n';
	m->piece = b->piece;
	m->npieces = b->npieces;
	if (b->npieces && b->piece[b->npieces - 1]->ext.cap && !b->piece[b->npieces - 1]->queued) {
		struct piece *p = b->piece[b->npieces - 1];

		p->hash = XXH3_64bits(arena_at(s->arena, p->ext.off), p->len);
	}
	free(b);
	m->waits_for_pieces = pieces_queued(m);
	if (m->waits_for_pieces)
		s->nwaiting_put++;
	else
		log_message(s, m, false, NULL, 0);
	*ret = &m->pub;
	return ST_OK;
}

void store_set_state(struct store_msg *pub, enum msg_state state, struct span reason)
{
	struct msg *m = (struct msg *)pub;

	if (pub->state == state)
		return;
	pub->state = (uint8_t)state;
	free((void *)(uintptr_t)pub->hold_reason.p);
	pub->hold_reason = state == MSG_HELD ? heap_span(reason) : SPAN_NONE;
	log_state(m);
}

void store_rcpt(struct store_msg *pub, uint32_t i, enum rcpt_state state, const struct reply *reply, uint64_t next_wall_ns)
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
	if (state == RCPT_QUEUED && r->attempts < UINT16_MAX)
		r->attempts++;
	r->state = (uint8_t)state;
	r->next_wall_ns = next_wall_ns;
	if (state != RCPT_QUEUED)
		pub->open_rcpts--;
	log_outcome((struct msg *)pub, i);
}

void store_forget(struct store_msg *pub)
{
	struct msg *m = (struct msg *)pub;
	struct store *s = pub->store;

	CHECK(!m->pins || s->fenced);
	m->forgotten = true;
	if (!s->fenced)
		log_done(m);
	if (!m->nbatch) {
		msg_release(s, m);
		return;
	}
	unindex(s, m); /* nobody finds it any more; the batch that names it frees it */
}

void msg_maybe_evict(struct msg *m)
{
	struct store *s = m->pub.store;

	if (!m->evict_wanted || m->pins || !m->in_log || m->nbatch)
		return;
	m->evict_wanted = false;
	if (m->inline_off) {
		for (uint32_t i = 0; i < m->npieces; i++)
			piece_free(s, m->piece[i]);
		free(m->piece);
		m->piece = NULL;
		m->npieces = 0;
		return;
	}
	for (uint32_t i = 0; i < m->npieces; i++)
		if (m->piece[i]->ext.cap && m->piece[i]->on_disk) {
			extent_release(s->arena, m->piece[i]->ext);
			m->piece[i]->ext.cap = 0;
		}
}

void store_evict(struct store_msg *pub)
{
	struct msg *m = (struct msg *)pub;

	m->evict_wanted = true;
	msg_maybe_evict(m);
}

struct store_msg *store_next(struct store *s, size_t *pos)
{
	while (*pos < s->nslots) {
		struct msg *m = s->msgs[(*pos)++];

		if (m)
			return &m->pub;
	}
	return NULL;
}

struct store_msg *store_find(struct store *s, uint64_t id)
{
	struct msg *m = map_get(s->by_id, span_of(&id, sizeof(id)));

	return m ? &m->pub : NULL;
}

/* ---- scanners ---- */

enum status store_scan_begin(struct store_msg *pub, uint64_t *ret_list_off, uint32_t *ret_pieces)
{
	struct msg *m = (struct msg *)pub;
	struct store *s = pub->store;
	uint32_t n = m->npieces ? m->npieces : 1;
	struct scan_piece *list;

	if (n > EXTENT_MAX / sizeof(*list))
		return trail(ST_TOO_BIG, "the message has too many pieces");
	if (extent_alloc(s->arena, n * sizeof(*list), &m->scan_list) != ST_OK)
		return trail(ST_FULL, "no room for a scan list");
	if (m->scan_list.cap < n * sizeof(*list)) {
		extent_release(s->arena, m->scan_list);
		m->scan_list.cap = 0;
		return trail(ST_FULL, "no room for a scan list");
	}
	list = arena_at(s->arena, m->scan_list.off);
	if (!m->npieces)
		list[0] = (struct scan_piece){ .off = m->inline_off, .len = (uint32_t)pub->body_len, .partition = s->cfg.partition,
			.segment = m->segment };
	for (uint32_t i = 0; i < m->npieces; i++) {
		struct piece *p = m->piece[i];

		list[i] = p->ext.cap ? (struct scan_piece){ .off = p->ext.off, .len = p->len, .partition = SCAN_PIECE_ARENA } :
			(struct scan_piece){ .off = p->off, .len = p->len, .partition = s->cfg.partition, .segment = p->segment };
	}
	m->pins++;
	*ret_list_off = m->scan_list.off;
	*ret_pieces = n;
	return ST_OK;
}

void store_scan_done(struct store_msg *pub)
{
	struct msg *m = (struct msg *)pub;

	if (!m->scan_list.cap)
		return;
	extent_release(pub->store->arena, m->scan_list);
	m->scan_list.cap = 0;
	m->pins--;
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

enum status store_room(struct store *s, uint64_t size)
{
	uint64_t room, reserve = RESERVE_SEGMENTS * s->cfg.segment_bytes;

	if (s->fenced)
		return trail(ST_IO, "%s", s->fence_text);
	room = (uint64_t)(s->max_segs - s->nsegs + segment_count(s, SEG_FREE)) * s->cfg.segment_bytes;
	if (s->next)
		room += s->cfg.segment_bytes;
	if (s->active)
		room += s->cfg.segment_bytes - s->active->end;
	if (room < reserve || size > room - reserve || arena_used(s->arena) > arena_bytes(s->arena) / 16 * 15)
		return trail(ST_FULL, "the spool is full");
	return ST_OK;
}

static void on_completion(void *ctx, const struct uring_event *ev)
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
	case OP_FILL_SYNC:
	case OP_CLAIM:
	case OP_CLAIM_SYNC:
		segment_completion(s, ev);
		break;
	}
}

/* Locks and opens the directory. */
static enum status open_dir(struct store *s)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

	if (mkdir(s->dir, 0700) < 0 && errno != EEXIST)
		return trail_errno(errno, "%s", s->dir);
	s->dir_fd = open(s->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (s->dir_fd < 0)
		return trail_errno(errno, "%s", s->dir);
	s->lock_fd = openat(s->dir_fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (s->lock_fd < 0)
		return trail_errno(errno, "%s/lock", s->dir);
	if (fcntl(s->lock_fd, F_OFD_SETLK, &lock) < 0)
		return trail(ST_EXISTS, "%s is in use by another process", s->dir);
	return ST_OK;
}

/* The arena and the staging buffers are registered with the kernel where it lets us (memlock limit); else they are written all the same. */
static void register_buffers(struct store *s)
{
	struct iovec iov[1 + sizeof(s->spare) / sizeof(s->spare[0])];
	unsigned n = 0;

	iov[n++] = (struct iovec){ arena_at(s->arena, 0), arena_bytes(s->arena) };
	for (uint32_t i = 0; i < s->nspare; i++)
		iov[n++] = (struct iovec){ s->spare[i]->staging, s->spare[i]->cap };
	if (s->id != 0 || arena_bytes(s->arena) > 1ull << 30 || io_uring_register_buffers(&s->uring->ring, iov, n) != 0)
		return;
	s->fixed = true;
	for (uint32_t i = 0; i < s->nspare; i++)
		s->spare[i]->registered = (int)i + 1;
}

static enum status prepare_memory(struct store *s)
{
	s->zeros = aligned_alloc(BLOCK, FILL_CHUNK);
	s->claim_block = aligned_alloc(BLOCK, BLOCK);
	if (!s->zeros || !s->claim_block || map_new(&s->by_id) != ST_OK)
		return ST_NOMEM;
	memset(s->zeros, 0, FILL_CHUNK);
	for (uint32_t i = 0; i < sizeof(s->spare) / sizeof(s->spare[0]); i++) {
		struct batch *b = calloc(1, sizeof(*b));

		if (!b || !(b->staging = aligned_alloc(BLOCK, STAGING))) {
			free(b);
			return ST_NOMEM;
		}
		b->cap = STAGING;
		b->registered = -1;
		s->spare[s->nspare++] = b;
	}
	register_buffers(s);
	return ST_OK;
}

static void store_destroy(struct store *s)
{
	struct batch *b;

	for (uint32_t i = 0; i < s->nslots; i++)
		if (s->msgs[i]) {
			s->msgs[i]->in_log = false;
			msg_release(s, s->msgs[i]);
		}
	while ((b = TAILQ_FIRST(&s->waiting))) {
		TAILQ_REMOVE(&s->waiting, b, entry);
		batch_free(b);
	}
	if (s->open)
		batch_free(s->open);
	for (uint32_t i = 0; i < s->nspare; i++)
		batch_free(s->spare[i]);
	for (uint32_t i = 0; i < s->nsegs; i++)
		if (s->seg[i].fd >= 0)
			close(s->seg[i].fd);
	if (s->fixed)
		io_uring_unregister_buffers(&s->uring->ring);
	if (s->lock_fd >= 0)
		close(s->lock_fd);
	if (s->dir_fd >= 0)
		close(s->dir_fd);
	stores[s->id] = NULL;
	map_free(s->by_id);
	free(s->seg);
	free(s->msgs);
	free(s->free_slots);
	free(s->reader);
	free(s->event);
	free(s->zeros);
	free(s->claim_block);
	free(s->dir);
	free(s);
}

enum status store_open(struct uring *u, struct arena *a, const struct store_config *cfg, struct store **ret)
{
	struct store *s = calloc(1, sizeof(*s));
	uint64_t start = clock_mono_ns();
	enum status st = ST_NOMEM;

	if (!s)
		return ST_NOMEM;
	s->cfg = *cfg;
	s->uring = u;
	s->arena = a;
	s->dir_fd = s->lock_fd = -1;
	s->direct = cfg->direct;
	TAILQ_INIT(&s->waiting);
	TAILQ_INIT(&s->flying);
	while (s->id < 63 && stores[s->id])
		s->id++;
	stores[s->id] = s;
	s->next_generation = s->next_seq = 1;
	s->next_number = clock_wall_ns() / NS_PER_US & 0xffffffffffffffull;
	s->max_segs = (uint32_t)(cfg->max_bytes / cfg->segment_bytes);
	if (s->max_segs < 4)
		s->max_segs = 4;
	s->dir = strdup(cfg->dir);
	s->seg = calloc(s->max_segs, sizeof(*s->seg));
	uring_handle(u, URING_STORE, on_completion, NULL);
	if (!s->dir || !s->seg || (st = open_dir(s)) != ST_OK || (st = prepare_memory(s)) != ST_OK ||
		(st = segment_open_all(s)) != ST_OK || (st = recover(s)) != ST_OK)
		goto fail;
	while (st == ST_OK && segment_count(s, SEG_FREE) < 2 && s->nsegs < s->max_segs)
		st = segment_create(s, false, NULL);
	if (st != ST_OK && s->nsegs < 2)
		goto fail;
	segment_upkeep(s);
	counter_set(C_SPOOL_DIRECT, s->direct);
	counter_set(C_SPOOL_FIXED, s->fixed);
	counter_set(C_SPOOL_RECOVERED, s->nmsgs);
	counter_set(C_SPOOL_RECOVERY_NS, clock_mono_ns() - start);
	*ret = s;
	return ST_OK;
fail:
	store_destroy(s);
	return st;
}

void store_close(struct store *s)
{
	uint64_t until = clock_mono_ns() + 10 * NS_PER_S;

	while (store_busy(s) && clock_mono_ns() < until) {
		store_commit(s);
		if (uring_wait(s->uring, 10 * NS_PER_MS) != ST_OK)
			break;
	}
	/* fills and claims under way end by themselves; their memory must stay until then */
	while ((s->filling || (s->next && s->next->state == SEG_CLAIMING)) && !s->fenced && clock_mono_ns() < until)
		if (uring_wait(s->uring, 10 * NS_PER_MS) != ST_OK)
			break;
	store_destroy(s);
}

void store_describe(const struct store *s, struct logline *row)
{
	uint64_t live = 0;

	for (uint32_t i = 0; i < s->nsegs; i++)
		live += s->seg[i].live;
	log_u64(row, "partition", s->cfg.partition);
	log_str(row, "dir", s->dir);
	log_u64(row, "messages", s->nmsgs);
	log_u64(row, "segments", s->nsegs);
	log_u64(row, "segments_free", segment_count(s, SEG_FREE));
	log_u64(row, "segments_max", s->max_segs);
	log_u64(row, "segment_bytes", s->cfg.segment_bytes);
	log_u64(row, "live_pieces", live);
	log_str(row, "direct", s->direct ? "yes" : "no");
	log_str(row, "registered", s->fixed ? "yes" : "no");
	log_u64(row, "damaged", s->damaged);
	log_str(row, "fenced", s->fenced ? s->fence_text : "no");
}
