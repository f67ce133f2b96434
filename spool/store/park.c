/* Messages that wait: out of memory and back. */
#include <stdlib.h>
#include "spool/base/clock.h"
#include "spool/base/counters.h"
#include "spool/store/internal.h"

enum { READINGS = 256 };
#define READ_AGAIN_NS (60 * NS_PER_S)

/* A message record on its way from the disk. */
struct reading {
	uint64_t id, cookie;
	uint32_t segment, off, head; /* of the record when the reading began */
	char *buf;
	uint32_t slot;
	bool peek;
};

/* ---- building a message ---- */

static void read_states(struct store_msg *m, struct span states)
{
	struct in i = in_of(states);

	for (uint32_t k = 0; k < m->env.nrcpt && !i.bad; k++) {
		struct store_rcpt_state *r = &m->rcpt[k];
		struct span enhanced, text;
		uint16_t code;

		r->state = in_u8(&i);
		r->attempts = in_le16(&i);
		r->told = (r->attempts & TOLD_OF_DELAY) != 0;
		r->attempts &= ATTEMPTS_MAX;
		r->next_ns = in_le64(&i);
		code = in_le16(&i);
		enhanced = in_bytes(&i, 3);
		text = in_field(&i);
		if (r->state != RCPT_QUEUED)
			m->open_rcpts--;
		if (i.bad || !code || text.n > REPLY_TEXT_MAX || !(r->last = malloc(offsetof(struct reply, text) + text.n + 1)))
			continue;
		r->last->code = code;
		r->last->derived = 0;
		memcpy(r->last->enhanced, enhanced.p, 3);
		r->last->text_len = (uint16_t)text.n;
		if (text.n)
			memcpy(r->last->text, text.p, text.n);
	}
}

static bool read_pieces(struct store *s, struct msg *m, const struct entry *e, struct span refs)
{
	uint32_t n = (uint32_t)(refs.n / sizeof(struct piece_ref));
	uint64_t sum = 0;

	m->piece = calloc(n ? n : 1, sizeof(struct piece *));
	if (!m->piece)
		return false;
	for (uint32_t i = 0; i < n; i++) {
		struct piece_ref ref;
		struct piece *p;

		memcpy(&ref, refs.p + i * sizeof(ref), sizeof(ref));
		if (ref.segment == PIECE_HERE) {
			ref.segment = e->segment;
			ref.generation = s->seg[e->segment].generation;
			ref.off += e->raw_start;
		}
		if (ref.segment >= s->nsegs || s->seg[ref.segment].generation != ref.generation || ref.len > EXTENT_MAX ||
			ref.off > s->cfg.segment_bytes || ref.len > s->cfg.segment_bytes - ref.off || !(p = calloc(1, sizeof(*p))))
			return false;
		*p = (struct piece){ .len = ref.len, .segment = ref.segment, .generation = ref.generation, .off = ref.off, .hash = ref.hash,
			.on_disk = true };
		m->piece[m->npieces++] = p;
		sum += ref.len;
	}
	return sum == m->pub.body_len;
}

/* Without touching what is counted in segments: its entry counts for it. */
static void discard(struct store *s, struct msg *m)
{
	for (uint32_t i = 0; i < m->npieces; i++)
		m->piece[i]->on_disk = false;
	msg_free(s, m);
}

struct msg *msg_from_record(struct store *s, const struct entry *e, const char *record)
{
	const struct message_record *r = (const struct message_record *)(const void *)record;
	const struct delta *d = e->deltas;
	struct record_facts f;
	struct msg *m;

	if (e->head < sizeof(*r) || r->h.msg_id != e->id || r->h.type != REC_MESSAGE || !record_facts(r, e->head, &f))
		return NULL;
	m = msg_alloc(s, e->id, f.env);
	if (!m)
		return NULL;
	m->pub.body_len = r->body_len;
	m->pub.dot_lines = r->flags & MESSAGE_DOT_LINES;
	m->pub.ends_crlf = r->flags & MESSAGE_ENDS_CRLF;
	m->inline_hash = r->body_hash;
	if (f.states.n)
		read_states(&m->pub, f.states);
	if (e->state == MSG_HELD && f.reason.n && (m->pub.hold_reason.p = malloc(f.reason.n))) {
		memcpy((void *)(uintptr_t)m->pub.hold_reason.p, f.reason.p, f.reason.n);
		m->pub.hold_reason.n = f.reason.n;
	}
	if (r->npieces && !read_pieces(s, m, e, f.refs)) {
		discard(s, m);
		return NULL;
	}
	if (d)
		do {
			d = d->next;
			msg_apply(&m->pub, &d->h);
		} while (d != e->deltas);
	m->pub.state = e->state;
	return m;
}

static struct msg *msg_from_blocks(struct store *s, const struct entry *e, const char *buf, uint32_t off)
{
	const char *record = buf + off % BLOCK;

	return record_hash(record, e->head) == e->hash ? msg_from_record(s, e, record) : NULL;
}

enum status msg_load(struct store *s, const struct entry *e, struct msg **ret)
{
	uint32_t from = e->off & ~(uint32_t)(BLOCK - 1), n = pad_block(e->off - from + e->head);
	char *buf = e->off + (uint64_t)e->head <= s->cfg.segment_bytes ? aligned_alloc(BLOCK, n) : NULL;
	enum status st = buf ? s->disk->ops->read(s->disk, s->seg[e->segment].file, buf, n, from) : ST_NOMEM;

	*ret = st == ST_OK ? msg_from_blocks(s, e, buf, e->off) : NULL;
	free(buf);
	return *ret ? ST_OK : st != ST_OK ? st : trail(ST_CORRUPT, "a message record is not what was written");
}

/* ---- out ---- */

static enum status keep_delta(void *ctx, const struct record_header *r)
{
	return delta_add(ctx, r);
}

/* What its pieces use, for the time without them. */
static bool keep_uses(struct entry *e, const struct msg *m)
{
	if (is_inline(&m->pub))
		return true;
	e->uses = malloc(sizeof(*e->uses) + m->npieces * sizeof(e->uses->use[0]));
	if (!e->uses)
		return false;
	e->uses->n = m->npieces;
	for (uint32_t i = 0; i < m->npieces; i++)
		e->uses->use[i] = (struct piece_use){ m->piece[i]->segment, m->piece[i]->len };
	return true;
}

enum status store_park(struct store_msg *pub, uint64_t due_ns, uint32_t tag)
{
	struct msg *m = (struct msg *)pub;
	struct store *s = pub->store;
	struct entry *e = msg_entry(m);

	if (m->pins || m->nbatch || m->move || !(e->flags & ENTRY_IN_LOG) || s->fenced)
		return ST_AGAIN;
	if (states_as_records(pub, keep_delta, e) != ST_OK || !keep_uses(e, m)) {
		deltas_free(e);
		return ST_NOMEM;
	}
	e->msg = NULL;
	e->state = pub->state;
	e->open = pub->open_rcpts;
	e->tag = tag;
	index_due(s->index, m->slot, due_ns);
	s->nawake--;
	discard(s, m);
	counter_add(C_SPOOL_PARKED, 1);
	return ST_OK;
}

/* ---- and back ---- */

static enum status begin(struct store *s, uint64_t id, bool peek, uint64_t cookie)
{
	uint32_t slot = index_find(s->index, id), i;
	struct entry *e = slot == SLOT_NONE ? NULL : index_at(s->index, slot);
	struct reading *r;
	uint32_t from, n;

	if (!e)
		return ST_NOT_FOUND;
	if (e->msg || (!peek && e->flags & ENTRY_WAKING))
		return ST_EXISTS;
	if (e->flags & ENTRY_DAMAGED)
		return trail(ST_CORRUPT, "its record is damaged");
	if (s->nreading == READINGS || (e->flags & ENTRY_COPYING && e->uses && !peek))
		return ST_AGAIN;
	if (!s->reading && !(s->reading = calloc(READINGS, sizeof(struct reading *))))
		return ST_NOMEM;
	for (i = 0; s->reading[i]; i++)
		;
	from = e->off & ~(uint32_t)(BLOCK - 1);
	n = pad_block(e->off - from + e->head);
	r = malloc(sizeof(*r));
	if (!r || !(r->buf = aligned_alloc(BLOCK, n))) {
		free(r);
		return ST_NOMEM;
	}
	r->id = id;
	r->cookie = cookie;
	r->segment = e->segment;
	r->off = e->off;
	r->head = e->head;
	r->slot = slot;
	r->peek = peek;
	s->reading[i] = r;
	s->nreading++;
	s->seg[e->segment].reads++;
	if (!peek) {
		e->flags |= ENTRY_WAKING;
		index_due(s->index, slot, DUE_NEVER);
	}
	s->disk->ops->begin(s->disk, &(struct disk_io){ .kind = DISK_READ, .file = s->seg[e->segment].file, .p = r->buf, .n = n, .off = from,
		.registered = -1, .tag = store_tag(s, OP_RECORD, i, 0) });
	return ST_OK;
}

enum status store_wake(struct store *s, uint64_t id)
{
	return begin(s, id, false, 0);
}

enum status store_peek(struct store *s, uint64_t id, uint64_t cookie)
{
	return begin(s, id, true, cookie);
}

/* The message as it is now: the record may have moved since, but says the same. */
static struct msg *build(struct store *s, const struct reading *r, const struct entry *e, int res)
{
	struct entry then = *e;
	const char *record = r->buf + r->off % BLOCK;

	if (res < 0 || (uint32_t)res < r->off % BLOCK + r->head)
		return NULL;
	then.head = r->head;
	if (e->segment == r->segment && e->off == r->off && record_hash(record, r->head) != e->hash)
		return NULL;
	return msg_from_record(s, &then, record);
}

/* A disk that fails may do better later; a record that is not what was written stays as it is, for the postmaster. */
static void unreadable(struct store *s, struct reading *r, struct entry *e, int res)
{
	if (res < (int)(r->off % BLOCK + r->head)) {
		counter_add(C_SPOOL_IO_ERRORS, 1);
		if (e->state != MSG_HELD)
			index_due(s->index, r->slot, clock_mono_ns() + READ_AGAIN_NS);
	} else {
		e->flags |= ENTRY_DAMAGED;
		s->damaged++;
		counter_add(C_SPOOL_DAMAGED, 1);
	}
	event_push(s, (struct store_event){ .type = STORE_UNREADABLE, .cookie = e->id });
}

static void woken(struct store *s, struct reading *r, struct entry *e, int res)
{
	struct msg *m = build(s, r, e, res);

	e->flags &= (uint8_t)~(ENTRY_WAKING | ENTRY_MOVING);
	if (!m) {
		unreadable(s, r, e, res);
		return;
	}
	m->slot = r->slot;
	e->msg = m;
	deltas_free(e);
	free(e->uses);
	e->uses = NULL;
	s->nawake++;
	counter_add(C_SPOOL_WOKEN, 1);
	event_push(s, (struct store_event){ .type = STORE_WOKEN, .msg = &m->pub });
}

static void peeked(struct store *s, struct reading *r, struct entry *e, int res)
{
	struct msg *m = !e ? NULL : e->msg ? e->msg : build(s, r, e, res);

	if (m && m != e->msg)
		m->unlinked = true;
	event_push(s, (struct store_event){ .type = STORE_PEEKED, .msg = m ? &m->pub : NULL, .cookie = r->cookie });
}

void store_peek_done(struct store_msg *pub)
{
	struct msg *m = (struct msg *)pub;

	if (m && m->unlinked)
		discard(pub->store, m);
}

void reading_completion(struct store *s, const struct uring_event *ev)
{
	uint32_t i = ev->slot & 0x3ffff, slot;
	struct reading *r = s->reading[i];
	struct entry *e;

	s->reading[i] = NULL;
	s->nreading--;
	s->seg[r->segment].reads--;
	slot = index_find(s->index, r->id);
	e = slot == SLOT_NONE ? NULL : index_at(s->index, slot);
	if (r->peek)
		peeked(s, r, e, ev->res);
	else if (e && !e->msg)
		woken(s, r, e, ev->res);
	free(r->buf);
	free(r);
}

void readings_free(struct store *s)
{
	for (uint32_t i = 0; i < READINGS && s->reading; i++)
		if (s->reading[i]) {
			free(s->reading[i]->buf);
			free(s->reading[i]);
		}
	free(s->reading);
}

enum status store_discard(struct store *s, uint64_t id, struct span who)
{
	uint32_t slot = index_find(s->index, id);
	struct entry *e = slot == SLOT_NONE ? NULL : index_at(s->index, slot);
	struct batch *b;

	if (!e || !(e->flags & ENTRY_DAMAGED) || s->fenced)
		return ST_NOT_FOUND;
	b = log_done(s, id);
	ledger_discarded(s, id, who);
	if (e->flags & ENTRY_IN_LOG) {
		batch_add_unused(b, e->segment, entry_bytes(e));
		for (uint32_t i = 0; e->uses && i < e->uses->n; i++)
			batch_add_unused(b, e->uses->use[i].segment, e->uses->use[i].len);
	}
	index_del(s->index, slot);
	return ST_OK;
}

/* ---- when ---- */

static void row_fill(const struct entry *e, struct store_row *ret)
{
	*ret = (struct store_row){ .id = e->id, .body_len = e->body_len, .due_ns = e->due_ns, .awake = e->msg ? &e->msg->pub : NULL,
		.nrcpt = e->nrcpt, .open = e->msg ? e->msg->pub.open_rcpts : e->open, .tag = e->tag,
		.state = e->msg ? e->msg->pub.state : e->state, .damaged = e->flags & ENTRY_DAMAGED };
}

bool store_due(struct store *s, uint64_t now_ns, struct store_row *ret)
{
	uint32_t slot = index_first_due(s->index);

	if (slot == SLOT_NONE || s->fenced || index_at(s->index, slot)->due_ns > now_ns)
		return false;
	row_fill(index_at(s->index, slot), ret);
	return true;
}

void store_put_off(struct store *s, uint64_t id, uint64_t due_ns)
{
	uint32_t slot = index_find(s->index, id);

	if (slot != SLOT_NONE && !index_at(s->index, slot)->msg)
		index_due(s->index, slot, due_ns);
}

uint64_t store_next_due(const struct store *s)
{
	uint32_t slot = index_first_due(s->index);

	return slot == SLOT_NONE || s->fenced ? UINT64_MAX : index_at(s->index, slot)->due_ns;
}

bool store_next(struct store *s, size_t *pos, struct store_row *ret)
{
	while (*pos < index_slots(s->index)) {
		const struct entry *e = index_at(s->index, (uint32_t)(*pos)++);

		if (e->flags & ENTRY_USED) {
			row_fill(e, ret);
			return true;
		}
	}
	return false;
}

bool store_row(struct store *s, uint64_t id, struct store_row *ret)
{
	uint32_t slot = index_find(s->index, id);

	if (slot == SLOT_NONE)
		return false;
	row_fill(index_at(s->index, slot), ret);
	return true;
}

struct store_msg *store_find(struct store *s, uint64_t id)
{
	uint32_t slot = index_find(s->index, id);
	struct msg *m = slot == SLOT_NONE ? NULL : index_at(s->index, slot)->msg;

	return m ? &m->pub : NULL;
}

uint32_t store_count(const struct store *s, uint32_t *ret_awake)
{
	*ret_awake = s->nawake;
	return index_len(s->index);
}
