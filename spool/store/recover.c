/* The only way to start: reads the log from its oldest generation on and rebuilds the index. */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>
#include <xxhash.h>
#include "spool/base/counters.h"
#include "spool/store/internal.h"

/* ---- parsing, shared with the offline check ---- */

static bool records_sound(const char *p, size_t n, uint32_t records)
{
	for (; records; records--) {
		const struct record_header *h = (const struct record_header *)(const void *)p;

		if (n < sizeof(*h) || h->bytes < sizeof(*h) || h->bytes % 8 || h->bytes > n)
			return false;
		p += h->bytes;
		n -= h->bytes;
	}
	return n == 0;
}

uint32_t batch_parse(const char *buf, size_t n, uint64_t generation, uint64_t off, record_fn *fn, void *ctx, struct batch_header *ret)
{
	struct batch_header h;
	const char *p = buf + sizeof(h);
	XXH3_state_t *x;
	uint64_t sum;

	if (n < BLOCK)
		return 0;
	memcpy(&h, buf, sizeof(h));
	if (h.magic != BATCH_MAGIC || h.generation != generation || h.bytes % BLOCK || h.bytes > n || h.record_bytes > h.bytes ||
		h.raw_bytes > h.bytes || pad_block((uint64_t)h.record_bytes + sizeof(h)) + (uint64_t)h.raw_bytes != h.bytes)
		return 0;
	x = XXH3_createState();
	if (!x)
		return 0;
	*ret = h;
	h.checksum = 0;
	XXH3_64bits_reset_withSeed(x, generation);
	XXH3_64bits_update(x, &h, sizeof(h));
	XXH3_64bits_update(x, p, h.record_bytes);
	sum = XXH3_64bits_digest(x);
	XXH3_freeState(x);
	if (sum != ret->checksum || !records_sound(p, h.record_bytes, h.records))
		return 0;
	for (uint32_t i = 0; i < h.records && fn; i++) {
		const struct record_header *r = (const struct record_header *)(const void *)p;

		if (fn(ctx, ret, r, off) != ST_OK)
			return 0;
		p += r->bytes;
	}
	return h.bytes;
}

/* ---- applying ---- */

struct recovery {
	struct store *s;
	struct segment *seg;
	uint64_t max_durable, max_seq;
	const char *seg_bytes; /* the segment in memory: a record's place in it is its place on the disk */
	enum status st;
};

static void read_states(struct msg *m, struct span states)
{
	struct in i = in_of(states);

	for (uint32_t k = 0; k < m->pub.env.nrcpt; k++) {
		struct store_rcpt_state *r = &m->pub.rcpt[k];
		struct span enhanced, text;
		uint16_t code;

		r->state = in_u8(&i);
		r->attempts = in_le16(&i);
		r->next_wall_ns = in_le64(&i);
		code = in_le16(&i);
		enhanced = in_bytes(&i, 3);
		text = in_field(&i);
		if (r->state != RCPT_QUEUED)
			m->pub.open_rcpts--;
		if (i.bad || !code || text.n > REPLY_TEXT_MAX || !(r->last = malloc(sizeof(*r->last))))
			continue;
		r->last->code = code;
		memcpy(r->last->enhanced, enhanced.p, 3);
		r->last->text_len = (uint16_t)text.n;
		if (text.n)
			memcpy(r->last->text, text.p, text.n);
	}
}

/* Takes a reference over; false when it does not point at something that can be there. */
static bool take_piece(struct recovery *rc, struct msg *m, struct piece_ref ref, uint64_t raw_start)
{
	struct store *s = rc->s;
	struct piece *p;

	if (ref.segment == PIECE_HERE) {
		ref.segment = rc->seg->index;
		ref.generation = rc->seg->generation;
		ref.off += raw_start;
	}
	if (ref.segment >= s->nsegs || s->seg[ref.segment].generation != ref.generation || ref.len > EXTENT_MAX ||
		ref.off > s->cfg.segment_bytes || ref.len > s->cfg.segment_bytes - ref.off)
		return false;
	p = calloc(1, sizeof(*p));
	if (!p)
		return false;
	*p = (struct piece){ .len = ref.len, .segment = ref.segment, .generation = ref.generation, .off = ref.off, .hash = ref.hash,
		.on_disk = true };
	segment_live(s, p->segment, 1);
	m->piece[m->npieces++] = p;
	return true;
}

static bool take_pieces(struct recovery *rc, struct msg *m, const struct message_record *r, struct in *in, uint64_t raw_start)
{
	uint64_t sum = 0;

	m->piece = calloc(r->npieces, sizeof(struct piece *));
	if (!m->piece)
		return false;
	for (uint32_t i = 0; i < r->npieces; i++) {
		struct span s = in_bytes(in, sizeof(struct piece_ref));
		struct piece_ref ref;

		if (!s.n)
			return false;
		memcpy(&ref, s.p, sizeof(ref));
		if (!take_piece(rc, m, ref, raw_start))
			return false;
		sum += ref.len;
	}
	return sum == r->body_len;
}

static enum status on_message(struct recovery *rc, const struct batch_header *b, const struct message_record *r, uint64_t off)
{
	struct store *s = rc->s;
	struct in in = in_of(span_of((const char *)(r + 1), r->h.bytes - sizeof(*r)));
	uint64_t raw_start = off + pad_block((uint64_t)b->record_bytes + sizeof(*b)), id = r->h.msg_id;
	struct msg *m = map_get(s->by_id, span_of(&id, sizeof(id)));
	struct span env, states = SPAN_NONE, reason;

	if (r->h.bytes < sizeof(*r) || r->env_bytes > in.rest.n || r->npieces > in.rest.n / sizeof(struct piece_ref))
		return trail(ST_CORRUPT, "a message record is impossible");
	if (m && !(r->flags & MESSAGE_MOVED))
		return ST_OK;
	if (m)
		msg_release(s, m);
	env = in_bytes(&in, r->env_bytes);
	m = msg_alloc(s, id, env);
	if (!m)
		return trail(ST_NOMEM, "no memory, or a bad envelope, in recovery");
	if (r->flags & MESSAGE_MOVED)
		states = in_field(&in);
	reason = in_field(&in);
	m->pub.state = r->state <= MSG_HELD ? r->state : MSG_HELD;
	m->pub.recovered = true;
	m->pub.body_len = r->body_len;
	m->pub.dot_lines = r->flags & MESSAGE_DOT_LINES;
	m->pub.ends_crlf = r->flags & MESSAGE_ENDS_CRLF;
	m->batch_seq = b->seq;
	if (reason.n && (m->pub.hold_reason.p = malloc(reason.n))) {
		memcpy((void *)(uintptr_t)m->pub.hold_reason.p, reason.p, reason.n);
		m->pub.hold_reason.n = reason.n;
	}
	m->segment = rc->seg->index;
	m->in_log = true;
	segment_live(s, m->segment, 1);
	if (r->npieces ? !take_pieces(rc, m, r, &in, raw_start) : r->body_len > in.rest.n) {
		s->damaged++; /* what it refers to is not there: reported, not delivered */
		counter_add(C_SPOOL_DAMAGED, 1);
		msg_release(s, m);
		return ST_OK;
	}
	if (!r->npieces) {
		m->inline_off = (uint64_t)(in.rest.p - rc->seg_bytes);
		m->inline_hash = r->body_hash;
	}
	if (states.n)
		read_states(m, states);
	if ((id & 0xffffffffffffffull) >= s->next_number)
		s->next_number = (id & 0xffffffffffffffull) + 1;
	return ST_OK;
}

static void on_outcome(struct msg *m, const struct outcome_record *r)
{
	struct store_rcpt_state *st;

	if (r->h.bytes < sizeof(*r) || r->rcpt >= m->pub.env.nrcpt || r->text_len > r->h.bytes - sizeof(*r) ||
		r->text_len > REPLY_TEXT_MAX || r->state > RCPT_DROPPED)
		return;
	st = &m->pub.rcpt[r->rcpt];
	if (st->state == RCPT_QUEUED && r->state != RCPT_QUEUED)
		m->pub.open_rcpts--;
	st->state = r->state;
	st->attempts = r->attempts;
	st->next_wall_ns = r->next_wall_ns;
	if (!r->code)
		return;
	if (!st->last)
		st->last = malloc(sizeof(*st->last));
	if (!st->last)
		return;
	st->last->code = r->code;
	memcpy(st->last->enhanced, r->enhanced, 3);
	st->last->text_len = (uint16_t)r->text_len;
	memcpy(st->last->text, r + 1, r->text_len);
}

static void on_state(struct msg *m, const struct state_record *r)
{
	if (r->h.bytes < sizeof(*r) || r->reason_len > r->h.bytes - sizeof(*r) || r->state > MSG_HELD)
		return;
	m->pub.state = (uint8_t)r->state;
	free((void *)(uintptr_t)m->pub.hold_reason.p);
	m->pub.hold_reason = SPAN_NONE;
	if (r->reason_len && (m->pub.hold_reason.p = malloc(r->reason_len))) {
		memcpy((void *)(uintptr_t)m->pub.hold_reason.p, r + 1, r->reason_len);
		m->pub.hold_reason.n = r->reason_len;
	}
}

static enum status apply(void *ctx, const struct batch_header *b, const struct record_header *h, uint64_t off)
{
	struct recovery *rc = ctx;
	uint64_t id = h->msg_id;
	struct msg *m;

	switch (h->type) {
	case REC_MESSAGE:
		rc->st = on_message(rc, b, (const struct message_record *)(const void *)h, off);
		return rc->st;
	case REC_CHUNK:
		return ST_OK; /* means nothing until a message refers to it */
	case REC_OUTCOME:
	case REC_STATE:
	case REC_DONE:
		break;
	default:
		rc->st = trail(ST_UNSUPPORTED, "record of unknown type %u: written by a later version", h->type);
		return rc->st;
	}
	m = map_get(rc->s->by_id, span_of(&id, sizeof(id)));
	if (!m)
		return ST_OK; /* its message was done and its segment is gone */
	if (h->type == REC_OUTCOME)
		on_outcome(m, (const struct outcome_record *)(const void *)h);
	else if (h->type == REC_STATE)
		on_state(m, (const struct state_record *)(const void *)h);
	else
		msg_release(rc->s, m);
	return ST_OK;
}

static enum status recover_segment(struct recovery *rc, char *buf)
{
	struct store *s = rc->s;
	struct segment *seg = rc->seg;
	uint64_t off = BLOCK, bytes = s->cfg.segment_bytes, hole = 0;

	for (uint64_t at = 0; at < bytes;) {
		ssize_t n = pread(seg->fd, buf + at, bytes - at > 4 << 20 ? 4 << 20 : bytes - at, (off_t)at);

		if (n <= 0)
			return trail_errno(n < 0 ? errno : EIO, "%s: reading segment %u", s->dir, seg->index);
		at += (uint64_t)n;
	}
	while (off < bytes) {
		struct batch_header b;
		uint32_t n = batch_parse(buf + off, bytes - off, seg->generation, off, apply, rc, &b);

		if (rc->st != ST_OK)
			return rc->st;
		if (!n) { /* the end, a torn batch, or damage: which of them shows when a later batch is found */
			hole = hole ? hole : off;
			off += BLOCK;
			continue;
		}
		if (hole && b.durable > rc->max_seq) {
			s->damaged++;
			counter_add(C_SPOOL_DAMAGED, 1);
		}
		hole = 0;
		rc->max_seq = b.seq > rc->max_seq ? b.seq : rc->max_seq;
		rc->max_durable = b.durable > rc->max_durable ? b.durable : rc->max_durable;
		if (b.next_number > s->next_number)
			s->next_number = b.next_number;
		off += n;
	}
	seg->state = SEG_FULL;
	seg->end = bytes;
	return ST_OK;
}

/* A message of the last batches, which no later batch calls durable: its raw areas must be whole, or the batch was torn. */
static bool verify_tail(struct store *s, struct msg *m, char *buf)
{
	for (uint32_t i = 0; i < m->npieces; i++) {
		struct piece *p = m->piece[i];
		ssize_t n = pread(s->seg[p->segment].fd, buf, pad_block(p->len), (off_t)p->off);

		if (n < (ssize_t)p->len || XXH3_64bits(buf, p->len) != p->hash)
			return false;
	}
	return true;
}

static int by_generation(const void *a, const void *b)
{
	const struct segment *const *x = a, *const *y = b;

	return (*x)->generation < (*y)->generation ? -1 : (*x)->generation > (*y)->generation;
}

static enum status read_headers(struct store *s, char *buf, struct segment **order, uint32_t *ret_n)
{
	struct seg_header h;
	uint32_t n = 0;

	for (uint32_t i = 0; i < s->nsegs; i++) {
		if (pread(s->seg[i].fd, buf, BLOCK, 0) != BLOCK)
			return trail_errno(errno, "%s: reading segment %u", s->dir, i);
		if (!seg_header_ok(buf, &h))
			continue; /* never claimed: nothing is in it */
		if (h.version != FORMAT_VERSION || h.incompatible)
			return trail(ST_UNSUPPORTED, "%s: segment %u has format %u with features %x, this program knows format %d", s->dir, i,
				h.version, h.incompatible, FORMAT_VERSION);
		if (h.partition != s->cfg.partition || h.index != i)
			return trail(ST_CORRUPT, "%s: segment %u is segment %u of partition %u", s->dir, i, h.index, h.partition);
		s->seg[i].generation = h.generation;
		if (h.generation >= s->next_generation)
			s->next_generation = h.generation + 1;
		order[n++] = &s->seg[i];
	}
	qsort(order, n, sizeof(struct segment *), by_generation);
	*ret_n = n;
	return ST_OK;
}

enum status recover(struct store *s)
{
	struct recovery rc = { .s = s };
	struct segment **order = calloc(s->nsegs + 1, sizeof(struct segment *));
	char *buf = aligned_alloc(BLOCK, s->cfg.segment_bytes > EXTENT_MAX ? s->cfg.segment_bytes : EXTENT_MAX);
	enum status st = order && buf ? ST_OK : ST_NOMEM;
	uint32_t n = 0;

	if (st == ST_OK)
		st = read_headers(s, buf, order, &n);
	for (uint32_t i = 0; i < n && st == ST_OK; i++) {
		rc.seg = order[i];
		rc.seg_bytes = buf;
		st = recover_segment(&rc, buf);
	}
	for (uint32_t i = 0; i < s->nslots && st == ST_OK; i++) {
		struct msg *m = s->msgs[i];

		if (m && (!m->pub.open_rcpts || (m->batch_seq > rc.max_durable && !verify_tail(s, m, buf))))
			msg_release(s, m);
	}
	s->durable_seq = rc.max_seq;
	s->next_seq = rc.max_seq + 1;
	free(order);
	free(buf);
	return st;
}
