/* What each record of the log means for the index, and what of it the ledger lacks. */
#include "spool/store/recover.h"

#include <stdlib.h>
#include "spool/base/hash.h"
#include "spool/store/ledger.h"

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
	if (c->loaded && c->seg[c->at]->index == e->segment && e->off >= c->buf_from) {
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

/* ---- which recipients are settled ---- */

static void set_settled(uint64_t *bits, uint32_t rcpt, bool settled)
{
	uint64_t bit = 1ull << (rcpt % 64);

	bits[rcpt / 64] = settled ? bits[rcpt / 64] | bit : bits[rcpt / 64] & ~bit;
}

static void forget_settled(struct recovery *rc, uint64_t id)
{
	struct settled *t = &rc->settled[id & (SETTLED - 1)];

	t->id = t->id == id ? 0 : t->id;
}

/* The bits of e's recipients by what has been applied so far. What is in the record's own states is not known: then the next outcome says the same, or a later one
 * does. NULL: no memory. */
static uint64_t *settled_of(struct recovery *rc, const struct entry *e)
{
	struct settled *t = &rc->settled[e->id & (SETTLED - 1)];
	uint32_t words = e->nrcpt / 64 + 1;
	const struct delta *d = e->deltas;

	if (t->id == e->id)
		return t->bits;
	if (t->words < words) {
		free(t->bits);
		*t = (struct settled){ .bits = malloc(words * sizeof(*t->bits)) };
		if (!t->bits)
			return NULL;
		t->words = words;
	}
	memset(t->bits, 0, words * sizeof(*t->bits));
	t->id = e->id;
	while (d) {
		const struct outcome_record *o = (const struct outcome_record *)(const void *)&(d = d->next)->h;

		if (o->h.type == REC_OUTCOME && o->rcpt < e->nrcpt)
			set_settled(t->bits, o->rcpt, o->state != RCPT_QUEUED);
		if (d == e->deltas)
			break;
	}
	return t->bits;
}

/* ---- records ---- */

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
	forget_settled(rc, id);
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

static enum status on_outcome(struct recovery *rc, const struct batch_header *b, struct entry *e, const struct outcome_record *r)
{
	bool was, is = r->state == RCPT_QUEUED;
	uint64_t *settled;

	if (r->h.bytes < sizeof(*r) || r->rcpt >= e->nrcpt || r->state > RCPT_DROPPED)
		return ST_OK;
	if (ledger_lacks(rc->s, b->seq))
		repair_outcome(rc, e, r);
	settled = settled_of(rc, e);
	if (!settled)
		return ST_NOMEM;
	was = !(settled[r->rcpt / 64] >> (r->rcpt % 64) & 1);
	set_settled(settled, r->rcpt, !is);
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

enum status apply_record(void *ctx, const struct batch_header *b, const struct record_header *h, size_t rel)
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

void apply_free(struct recovery *rc)
{
	for (size_t i = 0; i < SETTLED; i++)
		free(rc->settled[i].bits);
	free(rc->tail);
	free(rc->tail_seq);
}
