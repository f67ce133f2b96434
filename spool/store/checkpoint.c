/* Checkpoints: the index, written beside the running log into one of two files in turn, so that recovery reads it and the few batches behind it.
 *
 * A checkpoint is made of slices while the log goes on. That is sound because every batch from its beginning on is replayed over it, and each record says how
 * something is, not how it changes. It counts once its header is durable, and that is written after everything the slices say is. */
#include <errno.h>
#include <stdlib.h>
#include <xxhash.h>
#include "spool/base/clock.h"
#include "spool/base/counters.h"
#include "spool/store/internal.h"

enum { BUFFER = 1024 * 1024, BUFFERS_MAX = 4, SLOTS_A_TURN = 8192 };
#define RETRY_NS (5 * NS_PER_S)

enum phase { IDLE, ENTRIES, BARRIER, SYNCING, HEADER, HEADER_SYNCING };

struct checkpoint {
	struct disk_file *file[2];
	uint64_t file_bytes[2];
	uint64_t number;          /* of the newest durable one */
	uint64_t needs[NSTREAMS]; /* its generations */
	uint64_t last_bytes;
	uint64_t retry_ns;        /* after a failure: not before */
	enum phase phase;
	struct checkpoint_header h; /* of the running one */
	char *header_block;
	uint32_t cursor;          /* the next slot */
	uint64_t barrier;         /* number of the last batch whose effects it may hold */
	uint64_t off;
	char *buf;                /* being filled */
	size_t used;
	uint32_t writing;
	char *flying[64];
	bool failed;
	XXH3_state_t *sum;
};

uint64_t checkpoint_needs(const struct store *s, enum stream stream)
{
	return s->checkpoint->needs[stream];
}

bool checkpoint_running(const struct store *s)
{
	return s->checkpoint->phase != IDLE;
}

uint64_t checkpoint_number(const struct store *s)
{
	return s->checkpoint->number;
}

void checkpoint_lost(struct store *s, uint64_t number)
{
	s->checkpoint->number = number;
	memset(s->checkpoint->needs, 0, sizeof(s->checkpoint->needs));
}

enum status checkpoint_open(struct store *s)
{
	struct checkpoint *c = s->checkpoint = calloc(1, sizeof(*c));
	enum status st = c ? ST_OK : ST_NOMEM;

	for (unsigned i = 0; i < 2 && st == ST_OK; i++)
		st = s->disk->ops->open(s->disk, i ? "checkpoint-1" : "checkpoint-0", true, &c->file[i], &c->file_bytes[i]);
	if (st != ST_OK)
		return st;
	c->header_block = aligned_alloc(BLOCK, BLOCK);
	c->sum = XXH3_createState();
	return c->header_block && c->sum ? s->disk->ops->sync(s->disk, NULL) : ST_NOMEM;
}

void checkpoint_free(struct store *s)
{
	struct checkpoint *c = s->checkpoint;

	if (!c)
		return;
	for (unsigned i = 0; i < 64; i++)
		free(c->flying[i]);
	XXH3_freeState(c->sum);
	free(c->header_block);
	free(c->buf);
	free(c);
}

/* ---- writing ---- */

static struct disk_file *target(const struct checkpoint *c)
{
	return c->file[c->h.number % 2];
}

static void begin_io(struct store *s, enum disk_kind kind, void *p, uint32_t n, uint64_t off, uint32_t object)
{
	s->disk->ops->begin(s->disk, &(struct disk_io){ .kind = kind, .file = target(s->checkpoint), .p = p, .n = n, .off = off,
		.registered = -1, .tag = store_tag(s, OP_CHECKPOINT, object, s->checkpoint->h.number) });
}

static void buffer_out(struct store *s)
{
	struct checkpoint *c = s->checkpoint;
	uint32_t n = pad_block(c->used), i;

	if (!c->used)
		return;
	for (i = 0; i < 64 && c->flying[i]; i++)
		;
	CHECK(i < 64);
	memset(c->buf + c->used, 0, n - c->used);
	c->flying[i] = c->buf;
	c->writing++;
	begin_io(s, DISK_WRITE, c->buf, n, c->off, i);
	c->off += n;
	c->buf = NULL;
	c->used = 0;
}

static void emit(struct store *s, const void *p, size_t n)
{
	struct checkpoint *c = s->checkpoint;
	const char *at = p;

	XXH3_64bits_update(c->sum, p, n);
	c->h.bytes += n;
	while (n && !c->failed) {
		size_t room;

		if (!c->buf && !(c->buf = aligned_alloc(BLOCK, BUFFER))) {
			c->failed = true;
			return;
		}
		room = BUFFER - c->used < n ? BUFFER - c->used : n;
		memcpy(c->buf + c->used, at, room);
		c->used += room;
		at += room;
		n -= room;
		if (c->used == BUFFER)
			buffer_out(s);
	}
}

/* ---- entries ---- */

struct sizing {
	size_t n;
};

static enum status add_size(void *ctx, const struct record_header *r)
{
	((struct sizing *)ctx)->n += r->bytes;
	return ST_OK;
}

static enum status emit_record(void *ctx, const struct record_header *r)
{
	emit(ctx, r, r->bytes);
	return ST_OK;
}

static void emit_deltas(struct store *s, const struct entry *e)
{
	const struct delta *d = e->deltas;

	if (e->msg && states_as_records(&e->msg->pub, emit_record, s) != ST_OK)
		s->checkpoint->failed = true;
	if (e->msg || !d)
		return;
	do {
		d = d->next;
		emit(s, &d->h, d->h.bytes);
	} while (d != e->deltas);
}

static void emit_uses(struct store *s, const struct entry *e)
{
	const struct msg *m = e->msg;

	if (e->uses)
		emit(s, e->uses->use, e->uses->n * sizeof(e->uses->use[0]));
	for (uint32_t i = 0; m && !is_inline(&m->pub) && i < m->npieces; i++)
		emit(s, &(struct piece_use){ m->piece[i]->segment, m->piece[i]->len }, sizeof(struct piece_use));
}

/* When a message that is awake is to be tried next, as far as a later process must know. */
static uint64_t due_of(const struct entry *e)
{
	uint64_t mono = clock_mono_ns();

	if (e->state == MSG_HELD)
		return DUE_NEVER;
	if (e->msg || e->due_ns == DUE_NEVER)
		return 0;
	return clock_steady_ns() + (e->due_ns > mono ? e->due_ns - mono : 0);
}

static void emit_entry(struct store *s, const struct entry *e)
{
	struct sizing deltas = { 0 };
	struct checkpoint_entry ce = { .id = e->id, .due_ns = due_of(e), .body_len = e->body_len, .segment = e->segment, .off = e->off,
		.head = e->head, .hash = e->hash, .raw_start = e->raw_start, .nrcpt = e->nrcpt, .open = e->open, .state = e->state,
		.flags = e->flags & (ENTRY_IN_LOG | ENTRY_MOVED) };

	if (!(e->flags & ENTRY_IN_LOG))
		return; /* its batch comes after the checkpoint's beginning */
	if (e->msg) {
		ce.open = e->msg->pub.open_rcpts;
		ce.state = e->msg->pub.state;
		ce.nuses = is_inline(&e->msg->pub) ? 0 : e->msg->npieces;
		if (states_as_records(&e->msg->pub, add_size, &deltas) != ST_OK)
			s->checkpoint->failed = true;
		ce.delta_bytes = (uint32_t)deltas.n;
	} else {
		ce.nuses = e->uses ? e->uses->n : 0;
		ce.delta_bytes = (uint32_t)deltas_bytes(e);
	}
	emit(s, &ce, sizeof(ce));
	emit_uses(s, e);
	emit_deltas(s, e);
	s->checkpoint->h.nentries++;
}

static void slice(struct store *s)
{
	struct checkpoint *c = s->checkpoint;

	for (uint32_t k = 0; k < SLOTS_A_TURN && c->writing < BUFFERS_MAX && c->cursor < index_slots(s->index) && !c->failed; k++) {
		const struct entry *e = index_at(s->index, c->cursor++);

		if (e->flags & ENTRY_USED)
			emit_entry(s, e);
	}
	if (c->cursor < index_slots(s->index) && !c->failed)
		return;
	buffer_out(s);
	c->phase = BARRIER;
	c->barrier = s->open && !s->open->records ? s->next_batch - 1 : s->next_batch;
}

/* ---- the course of one ---- */

/* Where the stream's batches begin that are not durable yet. */
static void begin_position(const struct store *s, enum stream stream, struct checkpoint_header *h)
{
	const struct segment *at = s->active[stream] ? s->active[stream] : s->next[stream];
	const struct batch *b;

	h->generation[stream] = at ? at->generation : s->next_generation;
	h->off[stream] = at && at == s->active[stream] ? at->end : BLOCK;
	TAILQ_FOREACH(b, &s->flying, entry)
		if (b->stream == stream) {
			h->generation[stream] = b->seg->generation;
			h->off[stream] = b->off;
			return;
		}
}

static void start(struct store *s)
{
	struct checkpoint *c = s->checkpoint;
	const struct batch *first = TAILQ_FIRST(&s->flying);

	c->h = (struct checkpoint_header){ .magic = CHECKPOINT_MAGIC, .version = FORMAT_VERSION, .partition = s->cfg.partition,
		.number = c->number + 1, .seq = first ? first->seq : s->next_seq, .next_generation = s->next_generation,
		.next_number = s->next_number, .steady_ns = clock_steady_ns(), .nsegs = s->nsegs };
	for (unsigned i = 0; i < NSTREAMS; i++)
		begin_position(s, (enum stream)i, &c->h);
	c->phase = ENTRIES;
	c->cursor = 0;
	c->off = BLOCK;
	c->used = 0;
	c->failed = false;
	s->logged_bytes = 0;
	XXH3_64bits_reset(c->sum);
	for (uint32_t i = 0; i < s->nsegs; i++)
		emit(s, &(struct checkpoint_segment){ .index = i, .flags = s->seg[i].quarantined ? SEGMENT_QUARANTINED : 0,
			.generation = s->seg[i].generation }, sizeof(struct checkpoint_segment));
}

static bool due(const struct store *s)
{
	const struct checkpoint *c = s->checkpoint;
	uint64_t enough = 2 * s->cfg.segment_bytes > 2 * c->last_bytes ? 2 * s->cfg.segment_bytes : 2 * c->last_bytes;
	bool needed = false;

	if (s->fenced || clock_mono_ns() < c->retry_ns)
		return false;
	if (s->logged_bytes >= enough)
		return true;
	if (segments_left(s) > RESERVE_SEGMENTS)
		return false;
	for (uint32_t i = 0; i < s->nsegs && !needed; i++) /* would one set segments free? */
		needed = s->seg[i].state == SEG_FULL && !s->seg[i].live && !s->seg[i].quarantined &&
			s->seg[i].generation >= c->needs[s->seg[i].stream];
	return needed;
}

static void abandon(struct store *s)
{
	struct checkpoint *c = s->checkpoint;

	if (c->writing)
		return;
	free(c->buf);
	c->buf = NULL;
	c->phase = IDLE;
	c->retry_ns = clock_mono_ns() + RETRY_NS;
	s->logged_bytes = UINT64_MAX / 2; /* again as soon as it may be */
	counter_add(C_SPOOL_IO_ERRORS, 1);
}

static void write_header(struct store *s)
{
	struct checkpoint *c = s->checkpoint;

	c->h.data_checksum = XXH3_64bits_digest(c->sum);
	c->h.checksum = XXH3_64bits(&c->h, offsetof(struct checkpoint_header, checksum));
	memset(c->header_block, 0, BLOCK);
	memcpy(c->header_block, &c->h, sizeof(c->h));
	c->phase = HEADER;
	c->writing++;
	begin_io(s, DISK_WRITE, c->header_block, BLOCK, 0, 64);
}

static void flush(struct store *s, enum phase phase)
{
	s->checkpoint->phase = phase;
	s->checkpoint->writing++;
	begin_io(s, DISK_SYNC, NULL, 0, 0, 64);
}

void checkpoint_turn(struct store *s)
{
	struct checkpoint *c = s->checkpoint;

	if (c->phase == IDLE && due(s))
		start(s);
	if (c->phase != IDLE && (c->failed || s->fenced)) {
		c->failed = true;
		abandon(s);
		return;
	}
	if (c->phase == ENTRIES)
		slice(s);
	if (c->phase == BARRIER && !c->writing && s->durable_batch >= c->barrier)
		flush(s, SYNCING);
}

static void finished(struct store *s)
{
	struct checkpoint *c = s->checkpoint;

	c->number = c->h.number;
	memcpy(c->needs, c->h.generation, sizeof(c->needs));
	c->last_bytes = c->h.bytes;
	c->phase = IDLE;
	counter_add(C_SPOOL_CHECKPOINTS, 1);
	counter_add(C_SPOOL_CHECKPOINT_BYTES, c->h.bytes);
}

void checkpoint_completion(struct store *s, const struct uring_event *ev)
{
	struct checkpoint *c = s->checkpoint;
	uint32_t i = ev->slot & 0x3ffff;

	c->writing--;
	if (i < 64) {
		free(c->flying[i]);
		c->flying[i] = NULL;
	}
	if (ev->res < 0 && (c->phase == SYNCING || c->phase == HEADER_SYNCING))
		fence(s, "flushing a checkpoint", -ev->res);
	if (ev->res < 0 || ev->res % BLOCK)
		c->failed = true;
	if (c->failed)
		return; /* abandoned by the next turn */
	if (c->phase == SYNCING)
		write_header(s);
	else if (c->phase == HEADER)
		flush(s, HEADER_SYNCING);
	else if (c->phase == HEADER_SYNCING)
		finished(s);
}

/* ---- reading ---- */

/* *ret_ok: whether the file has a header that can be. */
static enum status header_read(struct store *s, unsigned i, struct checkpoint_header *ret, bool *ret_ok)
{
	struct checkpoint *c = s->checkpoint;
	enum status st = c->file_bytes[i] < BLOCK ? ST_OK : s->disk->ops->read(s->disk, c->file[i], c->header_block, BLOCK, 0);

	if (c->file_bytes[i] < BLOCK || st != ST_OK) {
		*ret_ok = false;
		return st;
	}
	memcpy(ret, c->header_block, sizeof(*ret));
	*ret_ok = ret->magic == CHECKPOINT_MAGIC && ret->checksum == XXH3_64bits(ret, offsetof(struct checkpoint_header, checksum)) &&
		ret->version == FORMAT_VERSION && ret->partition == s->cfg.partition && ret->bytes <= c->file_bytes[i] - BLOCK;
	return ST_OK;
}

/* Reads segment_use, piece_use and delta records into an entry. */
static bool load_rest(struct entry *e, const struct checkpoint_entry *ce, struct in *in)
{
	struct span uses = in_bytes(in, ce->nuses * sizeof(struct piece_use)), deltas = in_bytes(in, ce->delta_bytes);

	if (in->bad)
		return false;
	if (ce->nuses) {
		e->uses = malloc(sizeof(*e->uses) + uses.n);
		if (!e->uses)
			return false;
		e->uses->n = ce->nuses;
		memcpy(e->uses->use, uses.p, uses.n);
	}
	while (deltas.n >= sizeof(struct record_header)) {
		const struct record_header *r = (const struct record_header *)(const void *)deltas.p;

		if (r->bytes < sizeof(*r) || r->bytes > deltas.n || delta_add(e, r) != ST_OK)
			return false;
		deltas = span_skip(deltas, r->bytes);
	}
	return !deltas.n;
}

static enum status load_entry(struct store *s, struct in *in, const uint64_t *generation)
{
	struct span raw = in_bytes(in, sizeof(struct checkpoint_entry));
	struct checkpoint_entry ce;
	struct entry *e;
	uint32_t slot;

	if (!raw.n)
		return trail(ST_CORRUPT, "a checkpoint is cut short");
	memcpy(&ce, raw.p, sizeof(ce));
	if (ce.segment >= s->nsegs || ce.state > MSG_HELD || index_add(s->index, ce.id, &slot) != ST_OK)
		return trail(ST_CORRUPT, "an entry of a checkpoint is impossible");
	e = index_at(s->index, slot);
	e->body_len = ce.body_len;
	e->segment = ce.segment;
	e->off = ce.off;
	e->head = ce.head;
	e->hash = ce.hash;
	e->raw_start = ce.raw_start;
	e->nrcpt = ce.nrcpt;
	e->open = ce.open;
	e->state = ce.state;
	e->flags |= ce.flags;
	e->due_ns = ce.due_ns; /* in spool time until recovery is over */
	if (!load_rest(e, &ce, in))
		return trail(ST_CORRUPT, "an entry of a checkpoint is impossible, or there is no memory");
	/* where the segment has been claimed anew, a later record must say what became of the message */
	if (s->seg[e->segment].generation != generation[e->segment])
		e->flags |= ENTRY_DAMAGED;
	for (uint32_t i = 0; i < ce.nuses; i++)
		if (e->uses->use[i].segment >= s->nsegs ||
			s->seg[e->uses->use[i].segment].generation != generation[e->uses->use[i].segment])
			e->flags |= ENTRY_DAMAGED;
	return ST_OK;
}

static enum status load_data(struct store *s, const struct checkpoint_header *h, struct span data)
{
	struct in in = in_of(data);
	uint64_t *generation = calloc(s->nsegs + 1, sizeof(*generation));
	enum status st = generation ? ST_OK : ST_NOMEM;

	for (uint32_t i = 0; i < h->nsegs && st == ST_OK; i++) {
		struct span raw = in_bytes(&in, sizeof(struct checkpoint_segment));
		struct checkpoint_segment cs;

		if (!raw.n) {
			st = trail(ST_CORRUPT, "a checkpoint is cut short");
			break;
		}
		memcpy(&cs, raw.p, sizeof(cs));
		if (cs.index < s->nsegs) {
			generation[cs.index] = cs.generation;
			s->seg[cs.index].quarantined = (cs.flags & SEGMENT_QUARANTINED) && s->seg[cs.index].generation == cs.generation;
		}
	}
	for (uint64_t i = 0; i < h->nentries && st == ST_OK; i++)
		st = load_entry(s, &in, generation);
	free(generation);
	return st;
}

static enum status load(struct store *s, unsigned i, const struct checkpoint_header *h)
{
	size_t n = (size_t)((h->bytes + BLOCK - 1) & ~(uint64_t)(BLOCK - 1));
	char *data = aligned_alloc(BLOCK, n ? n : BLOCK);
	enum status st = data ? s->disk->ops->read(s->disk, s->checkpoint->file[i], data, n, BLOCK) : ST_NOMEM;

	if (st == ST_OK && XXH3_64bits(data, h->bytes) != h->data_checksum)
		st = trail(ST_CORRUPT, "checkpoint %u is damaged", i);
	if (st == ST_OK) {
		clock_steady_seed(h->steady_ns);
		st = load_data(s, h, span_of(data, h->bytes));
	}
	free(data);
	return st;
}

enum status checkpoint_load(struct store *s, struct checkpoint_header *ret)
{
	struct checkpoint *c = s->checkpoint;
	struct checkpoint_header h[2];
	bool ok[2] = { false, false };
	enum status readable = header_read(s, 0, &h[0], &ok[0]);
	unsigned newest;

	if (readable == ST_OK)
		readable = header_read(s, 1, &h[1], &ok[1]);
	if (readable != ST_OK)
		return readable; /* a disk that fails now may have it after all */
	newest = ok[1] && (!ok[0] || h[1].number > h[0].number);
	for (unsigned k = 0; k < 2; k++) {
		unsigned i = newest ^ k;
		enum status st = ok[i] ? load(s, i, &h[i]) : ST_NOT_FOUND;

		if (st == ST_CORRUPT && !index_len(s->index))
			continue; /* the one before it, of which no segment has been reused as long as this one was not durable */
		if (st == ST_NOT_FOUND)
			continue;
		if (st != ST_OK)
			return st;
		*ret = h[i];
		c->number = h[i].number;
		c->last_bytes = h[i].bytes;
		memcpy(c->needs, h[i].generation, sizeof(c->needs));
		return ST_OK;
	}
	return trail(ST_NOT_FOUND, "there is no checkpoint");
}
