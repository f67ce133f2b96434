/* Records: composed into batches, and read back. */
#include <stdlib.h>
#include "spool/base/clock.h"
#include "spool/base/hash.h"
#include "spool/store/internal.h"

/* ---- a message ---- */

enum { STATE_FIXED = 1 + 2 + 8 + 2 + 3 + 4 };

static size_t states_bytes(const struct store_msg *m)
{
	size_t n = 0;

	for (uint32_t i = 0; i < m->env.nrcpt; i++)
		n += STATE_FIXED + (m->rcpt[i].last ? (size_t)m->rcpt[i].last->text_len : 0);
	return n;
}

static void write_states(const struct store_msg *m, struct out *o)
{
	out_le32(o, (uint32_t)states_bytes(m));
	for (uint32_t i = 0; i < m->env.nrcpt; i++) {
		const struct store_rcpt_state *r = &m->rcpt[i];
		uint8_t enhanced[3] = { 0 };

		if (r->last)
			reply_said(r->last, enhanced);
		out_char(o, (char)r->state);
		out_le16(o, (uint16_t)(r->attempts | (r->told ? TOLD_OF_DELAY : 0)));
		out_le64(o, r->next_ns);
		out_le16(o, r->last ? r->last->code : 0);
		out_add(o, span_of(enhanced, 3));
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

static void write_inline(const struct store *s, const struct msg *m, struct span body, struct out *o)
{
	if (body.n)
		out_add(o, body);
	for (uint32_t i = 0; i < m->npieces && !body.n; i++)
		out_add(o, span_of(arena_at(s->arena, m->piece[i]->ext.off), m->piece[i]->len));
}

bool pieces_queued(const struct msg *m)
{
	for (uint32_t i = 0; i < m->npieces; i++)
		if (m->piece[i]->queued)
			return true;
	return false;
}

uint32_t record_hash(const void *record, uint32_t head)
{
	return (uint32_t)XXH3_64bits(record, head);
}

/* The message record; gives what its index entry must know later. */
static struct batch_msg *write_message(struct store *s, struct msg *m, bool moved, struct span body)
{
	struct store_msg *pub = &m->pub;
	bool in_record = is_inline(pub);
	size_t env = m->stored.n;
	size_t head = sizeof(struct message_record) + env + (moved ? 4 + states_bytes(pub) : 0) + 4 + pub->hold_reason.n +
		(in_record ? 0 : m->npieces * sizeof(struct piece_ref));
	size_t n = head + (in_record ? (size_t)pub->body_len : 0), at;
	uint32_t raw = 0;
	struct message_record *r;
	struct batch_msg *bm;
	struct batch *b;
	struct out o;

	CHECK(!pieces_queued(m));
	for (uint32_t i = 0; i < m->npieces && !in_record; i++)
		raw += m->piece[i]->on_disk ? 0 : pad_block(m->piece[i]->len);
	b = batch_for(s, moved ? STREAM_COLD : STREAM_HOT, n + 8, raw);
	at = b->used;
	r = record_begin(b, n, REC_MESSAGE, pub->id);
	r->body_len = pub->body_len;
	r->body_hash = 0;
	r->env_bytes = (uint32_t)env;
	r->npieces = in_record ? 0 : m->npieces;
	r->state = pub->state;
	r->flags = (uint8_t)((pub->dot_lines ? MESSAGE_DOT_LINES : 0) | (pub->ends_crlf ? MESSAGE_ENDS_CRLF : 0) |
		(moved ? MESSAGE_MOVED : 0));
	memset(r->zero, 0, sizeof(r->zero));
	o = out_of(b->staging + at + sizeof(*r), n - sizeof(*r));
	out_add(&o, m->stored);
	if (moved)
		write_states(pub, &o);
	out_field(&o, pub->hold_reason);
	if (in_record) {
		write_inline(s, m, body, &o);
		r->body_hash = m->inline_hash = XXH3_64bits(b->staging + at + head, (size_t)pub->body_len);
	} else {
		write_pieces(b, m, &o);
	}
	CHECK(!o.over && o.n == n - sizeof(*r));
	bm = batch_add_msg(b);
	*bm = (struct batch_msg){ .id = pub->id, .rel = (uint32_t)at, .head = (uint32_t)head,
		.hash = record_hash(b->staging + at, (uint32_t)head) };
	return bm;
}

void log_message(struct store *s, struct msg *m, struct span body)
{
	write_message(s, m, false, body)->msg = m;
	m->nbatch++;
	if (m->pub.state != MSG_PENDING)
		ledger_accepted(&m->pub);
}

void log_moved(struct store *s, struct msg *m, struct span body, struct piece **old, uint32_t nold)
{
	struct batch_msg *bm = write_message(s, m, true, body);

	bm->old = old;
	bm->nold = nold;
}

/* ---- what becomes of it ---- */

static void outcome_fill(struct outcome_record *rec, const struct store_rcpt_state *r, uint32_t i)
{
	rec->next_ns = r->next_ns;
	rec->rcpt = i;
	rec->attempts = (uint16_t)(r->attempts | (r->told ? TOLD_OF_DELAY : 0));
	rec->code = r->last ? r->last->code : 0;
	rec->state = r->state;
	memset(rec->enhanced, 0, sizeof(rec->enhanced));
	if (r->last)
		reply_said(r->last, rec->enhanced);
	rec->text_len = r->last ? r->last->text_len : 0;
	if (rec->text_len)
		memcpy(rec + 1, r->last->text, rec->text_len);
}

void log_outcome(struct msg *m, uint32_t i)
{
	const struct store_rcpt_state *r = &m->pub.rcpt[i];
	size_t n = sizeof(struct outcome_record) + (r->last ? r->last->text_len : 0u);

	if (m->pub.store->fenced)
		return; /* it would never be written, and take memory for ever */
	outcome_fill(record_begin(batch_for(m->pub.store, STREAM_HOT, n + 8, 0), n, REC_OUTCOME, m->pub.id), r, i);
}

static void state_fill(struct state_record *rec, const struct store_msg *m)
{
	rec->state = m->state;
	rec->reason_len = (uint32_t)m->hold_reason.n;
	if (m->hold_reason.n)
		memcpy(rec + 1, m->hold_reason.p, m->hold_reason.n);
}

void log_state(struct msg *m)
{
	size_t n = sizeof(struct state_record) + m->pub.hold_reason.n;

	if (m->pub.store->fenced)
		return; /* it would never be written, and take memory for ever */
	state_fill(record_begin(batch_for(m->pub.store, STREAM_HOT, n + 8, 0), n, REC_STATE, m->pub.id), &m->pub);
}

struct batch *log_done(struct store *s, uint64_t id)
{
	struct batch *b = batch_for(s, STREAM_HOT, sizeof(struct record_header), 0);

	record_begin(b, sizeof(struct record_header), REC_DONE, id);
	return b;
}

void log_chunk(struct store *s, struct piece *p, enum stream stream)
{
	size_t n = sizeof(struct record_header) + sizeof(struct piece_ref);
	struct batch *b = batch_for(s, stream, n, pad_block(p->len));
	struct record_header *h = record_begin(b, n, REC_CHUNK, 0);
	struct piece_ref ref = { .segment = PIECE_HERE, .len = p->len, .off = batch_add_raw(b, p, NULL), .hash = p->hash };

	memcpy(h + 1, &ref, sizeof(ref));
}

void log_run(struct store *s)
{
	struct run_record *r = record_begin(batch_for(s, STREAM_HOT, sizeof(*r), 0), sizeof(*r), REC_RUN, 0);

	r->first_seq = s->run_first_seq;
	r->steady_ns = clock_steady_ns();
}

enum status states_as_records(const struct store_msg *m, record_sink *fn, void *ctx)
{
	union {
		struct outcome_record outcome;
		struct state_record state;
		struct record_header h;
		char room[sizeof(struct outcome_record) + REPLY_TEXT_MAX + 8];
	} u;
	enum status st = ST_OK;
	size_t n = sizeof(u.state) + m->hold_reason.n;

	if (m->hold_reason.n && n <= sizeof(u)) { /* the state itself is in the index */
		memset(&u, 0, n + 8 > sizeof(u) ? sizeof(u) : n + 8);
		u.h = (struct record_header){ .bytes = (uint32_t)((n + 7) & ~7ul), .type = REC_STATE, .msg_id = m->id };
		state_fill(&u.state, m);
		st = fn(ctx, &u.h);
	}
	for (uint32_t i = 0; i < m->env.nrcpt && st == ST_OK; i++) {
		const struct store_rcpt_state *r = &m->rcpt[i];

		if (r->state == RCPT_QUEUED && !r->attempts && !r->last && !r->next_ns)
			continue;
		memset(&u, 0, sizeof(u.outcome));
		outcome_fill(&u.outcome, r, i);
		n = sizeof(u.outcome) + u.outcome.text_len;
		memset(u.room + n, 0, (8 - n % 8) % 8);
		u.h = (struct record_header){ .bytes = (uint32_t)((n + 7) & ~7ul), .type = REC_OUTCOME, .msg_id = m->id };
		st = fn(ctx, &u.h);
	}
	return st;
}

/* ---- read back ---- */

static void apply_outcome(struct store_msg *m, const struct outcome_record *r)
{
	struct store_rcpt_state *st;
	struct reply *last;

	if (r->h.bytes < sizeof(*r) || r->rcpt >= m->env.nrcpt || r->text_len > r->h.bytes - sizeof(*r) || r->text_len > REPLY_TEXT_MAX ||
		r->state > RCPT_DROPPED)
		return;
	st = &m->rcpt[r->rcpt];
	if (r->state != RCPT_QUEUED && st->state == RCPT_QUEUED)
		m->open_rcpts--;
	else if (r->state == RCPT_QUEUED && st->state != RCPT_QUEUED)
		m->open_rcpts++;
	st->state = r->state;
	st->attempts = r->attempts & ATTEMPTS_MAX;
	st->told = (r->attempts & TOLD_OF_DELAY) != 0;
	st->next_ns = r->next_ns;
	last = r->code ? realloc(st->last, offsetof(struct reply, text) + r->text_len + 1) : NULL;
	if (!last)
		return;
	st->last = last;
	last->code = r->code;
	last->derived = 0;
	memcpy(last->enhanced, r->enhanced, 3);
	last->text_len = (uint16_t)r->text_len;
	memcpy(last->text, r + 1, r->text_len);
}

static void apply_state(struct store_msg *m, const struct state_record *r)
{
	if (r->h.bytes < sizeof(*r) || r->reason_len > r->h.bytes - sizeof(*r) || r->state > MSG_HELD)
		return;
	m->state = (uint8_t)r->state;
	free((void *)(uintptr_t)m->hold_reason.p);
	m->hold_reason = SPAN_NONE;
	if (r->reason_len && (m->hold_reason.p = malloc(r->reason_len))) {
		memcpy((void *)(uintptr_t)m->hold_reason.p, r + 1, r->reason_len);
		m->hold_reason.n = r->reason_len;
	}
}

void msg_apply(struct store_msg *m, const struct record_header *r)
{
	if (r->type == REC_OUTCOME)
		apply_outcome(m, (const struct outcome_record *)(const void *)r);
	else if (r->type == REC_STATE)
		apply_state(m, (const struct state_record *)(const void *)r);
}

/* Counts what is open of the states of a moved message, and when it is due. */
static bool facts_of_states(struct record_facts *f)
{
	struct in i = in_of(f->states);

	f->due_ns = UINT64_MAX;
	for (uint32_t k = 0; k < f->nrcpt && !i.bad; k++) {
		uint8_t state = in_u8(&i);
		uint64_t next;

		in_le16(&i);
		next = in_le64(&i);
		in_le16(&i);
		in_bytes(&i, 3);
		in_field(&i);
		if (state != RCPT_QUEUED)
			f->open--;
		else if (next < f->due_ns)
			f->due_ns = next;
	}
	return !i.bad;
}

bool record_facts(const struct message_record *r, size_t n, struct record_facts *ret)
{
	struct in in;

	*ret = (struct record_facts){ 0 };
	if (n < sizeof(*r) || n > r->h.bytes)
		return false;
	in = in_of(span_of((const char *)(r + 1), n - sizeof(*r)));
	if (r->env_bytes > in.rest.n || r->npieces > in.rest.n / sizeof(struct piece_ref))
		return false;
	ret->env = in_bytes(&in, r->env_bytes);
	if (r->flags & MESSAGE_MOVED)
		ret->states = in_field(&in);
	ret->reason = in_field(&in);
	ret->refs = in_bytes(&in, r->npieces * sizeof(struct piece_ref));
	if (in.bad || !envelope_nrcpt(ret->env, &ret->nrcpt) || (!r->npieces && r->body_len > INLINE_MAX))
		return false;
	ret->head = (uint32_t)(n - in.rest.n);
	ret->open = ret->nrcpt;
	return !(r->flags & MESSAGE_MOVED) || facts_of_states(ret);
}
