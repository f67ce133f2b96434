/* The ledger's writer: rows wait in their batch until that is durable, then in memory for a moment, and go to the day's file as frames, one write at a time. */
#include <errno.h>
#include <stdlib.h>
#include "spool/base/clock.h"
#include "spool/base/counters.h"
#include "spool/base/log.h"
#include "spool/store/ledger_internal.h"

enum { FLUSH_BYTES = 160 * 1024, PENDING_MAX = 8 * 1024 * 1024, REFUSALS_A_SECOND = 100 };
#define FLUSH_NS (100 * NS_PER_MS)
#define RETRY_NS NS_PER_S

/* ---- rows ---- */

void notes_add(struct notes *t, const struct ledger_row *row)
{
	struct out o;

	if (t->cap - t->n < LEDGER_ROW_MAX) {
		size_t cap = t->cap ? t->cap * 2 : 4 * LEDGER_ROW_MAX;
		char *bigger = realloc(t->p, cap);

		CHECK(bigger);
		t->p = bigger;
		t->cap = cap;
	}
	o = out_of(t->p + t->n, t->cap - t->n);
	ledger_row_write(row, &o);
	CHECK(!o.over);
	t->n += o.n;
}

static void add_rcpts(struct notes *t, uint64_t id, uint64_t at_ns, const struct envelope *e)
{
	char addrs[LEDGER_ROW_MAX / 2];
	struct out o = out_of(addrs, sizeof(addrs));
	uint32_t first = 0;

	for (uint32_t i = 0; i < e->nrcpt; i++) {
		if (o.n + 2 + e->rcpt[i].addr.n > sizeof(addrs)) {
			notes_add(t, &(struct ledger_row){ .type = LEDGER_RCPTS, .id = id, .at_ns = at_ns, .rcpt = first, .addrs = out_span(&o) });
			o.n = 0;
			first = i;
		}
		ledger_addr_write(&o, e->rcpt[i].addr);
	}
	notes_add(t, &(struct ledger_row){ .type = LEDGER_RCPTS, .id = id, .at_ns = at_ns, .rcpt = first, .addrs = out_span(&o) });
}

/* A list's members are one after the other: a row for all of them. */
static void add_given(struct notes *t, uint64_t id, uint64_t at_ns, const struct envelope *e)
{
	for (uint32_t i = 0, n; i < e->nrcpt; i += n) {
		struct span given = e->rcpt[i].given;
		char addr[512];
		struct out o = out_of(addr, sizeof(addr));

		for (n = 1; i + n < e->nrcpt && span_eq(e->rcpt[i + n].given, given); n++)
			;
		if (!given.n)
			continue;
		ledger_addr_write(&o, given);
		if (!o.over)
			notes_add(t, &(struct ledger_row){ .type = LEDGER_GIVEN, .id = id, .at_ns = at_ns, .nrcpt = n, .rcpt = i, .addrs = out_span(&o) });
	}
}

void notes_accepted(struct notes *t, uint64_t id, uint64_t at_ns, uint8_t state, const struct envelope *e, uint64_t size, struct span reason)
{
	struct ledger_row row = { .type = LEDGER_ACCEPTED, .state = state, .id = id, .at_ns = at_ns, .arrived_ns = e->arrived_ns, .size = size,
		.nrcpt = e->nrcpt, .flags = e->flags, .sender = e->sender, .helo = e->helo, .text = state == MSG_HELD ? reason : SPAN_NONE };
	char message_id[512];
	struct out o = out_of(message_id, sizeof(message_id));

	memcpy(row.client_ip, e->client_ip, 16);
	if (e->message_id.n)
		ledger_addr_write(&o, e->message_id);
	row.addrs = o.over ? SPAN_NONE : out_span(&o);
	notes_add(t, &row);
	add_given(t, id, at_ns, e);
	if (e->nrcpt)
		add_rcpts(t, id, at_ns, e);
}

static struct notes *open_notes(struct store *s)
{
	return s->ledger && s->open && !s->fenced ? &s->open->notes : NULL; /* a fenced partition forgets: it would never be written */
}

void ledger_accepted(const struct store_msg *m)
{
	struct notes *t = open_notes(m->store);

	if (t)
		notes_accepted(t, m->id, clock_steady_ns(), m->state, &m->env, m->body_len, m->hold_reason);
}

static struct span first_line(const struct reply *r)
{
	struct span text = r ? reply_text(r) : SPAN_NONE;

	return text.n ? span_cut(&text, '\n') : SPAN_NONE;
}

static void reply_into(struct ledger_row *row, const struct reply *r)
{
	row->code = r ? r->code : 0;
	if (r)
		reply_said(r, row->enhanced);
	row->text = first_line(r);
}

void ledger_fate(const struct store_msg *m, uint32_t i, struct span remote)
{
	const struct store_rcpt_state *r = &m->rcpt[i];
	struct notes *t = open_notes(m->store);
	struct ledger_row row = { .type = LEDGER_FATE, .state = r->state, .id = m->id, .arrived_ns = m->env.arrived_ns, .rcpt = i,
		.attempts = r->attempts, .remote = remote };

	if (!t || m->state == MSG_PENDING) /* was never accepted */
		return;
	row.at_ns = clock_steady_ns();
	reply_into(&row, r->last);
	notes_add(t, &row);
}

void ledger_state(const struct store_msg *m, struct span why)
{
	struct notes *t = open_notes(m->store);

	if (t)
		notes_add(t, &(struct ledger_row){ .type = LEDGER_STATE, .state = m->state, .id = m->id, .at_ns = clock_steady_ns(),
			.arrived_ns = m->env.arrived_ns, .text = why });
}

void ledger_discarded(struct store *s, uint64_t id, struct span who)
{
	struct notes *t = open_notes(s);
	char text[LEDGER_TEXT_MAX];
	struct out o = out_of(text, sizeof(text));

	out_str(&o, "deleted by ");
	out_add(&o, who);
	if (t)
		notes_add(t, &(struct ledger_row){ .type = LEDGER_FATE, .state = RCPT_DELETED, .id = id, .at_ns = clock_steady_ns(),
			.rcpt = LEDGER_RCPT_ALL, .text = out_span(&o) });
}

/* A flood of refusals must not fill the disk: beyond a bound the log file alone has them. */
static bool refusal_fits(struct ledger *l)
{
	uint64_t second = clock_mono_ns() / NS_PER_S;

	if (second != l->refusals_s)
		l->refusals = 0;
	l->refusals_s = second;
	return l->refusals++ < REFUSALS_A_SECOND && l->pending.n < PENDING_MAX;
}

void store_note_refused(struct store *s, uint64_t id, const struct envelope *e, struct span to, uint64_t size, const struct reply *reply)
{
	struct ledger *l = s->ledger;
	char addrs[512];
	struct out o = out_of(addrs, sizeof(addrs));
	struct ledger_row row = { .type = LEDGER_REFUSED, .id = id, .size = size, .nrcpt = e->nrcpt, .flags = e->flags, .sender = e->sender,
		.helo = e->helo };

	if (!l || !refusal_fits(l))
		return;
	row.at_ns = clock_steady_ns();
	memcpy(row.client_ip, e->client_ip, 16);
	if (to.n)
		ledger_addr_write(&o, to);
	for (uint32_t i = 0; i < e->nrcpt && !to.n && o.n + 2 + e->rcpt[i].addr.n <= sizeof(addrs); i++)
		ledger_addr_write(&o, e->rcpt[i].addr);
	row.addrs = o.over ? SPAN_NONE : out_span(&o);
	reply_into(&row, reply);
	notes_add(&l->pending, &row);
	notes_add(&l->pending, &(struct ledger_row){ .type = LEDGER_MARK, .size = l->taken_seq });
}

/* ---- what is durable ---- */

/* The disk refused for so long that memory would fill up: the log may soon be without it too. */
static void give_up_pending(struct ledger *l)
{
	if (l->busy != LEDGER_IDLE || l->pending.n < PENDING_MAX)
		return;
	l->pending.n = 0;
	notes_add(&l->pending, &(struct ledger_row){ .type = LEDGER_GAP, .at_ns = clock_steady_ns(), .size = l->written_seq + 1,
		.to = l->taken_seq });
	notes_add(&l->pending, &(struct ledger_row){ .type = LEDGER_MARK, .size = l->taken_seq });
}

void ledger_take(struct store *s, struct batch *b)
{
	struct ledger *l = s->ledger;

	if (!l)
		return;
	l->taken_seq = b->seq;
	if (!b->notes.n)
		return;
	notes_append(&l->pending, &b->notes);
	b->notes.n = 0;
	notes_add(&l->pending, &(struct ledger_row){ .type = LEDGER_MARK, .size = b->seq });
	give_up_pending(l);
}

void notes_append(struct notes *t, const struct notes *from)
{
	while (t->cap - t->n < from->n + LEDGER_ROW_MAX) {
		size_t cap = t->cap ? t->cap * 2 : 4 * LEDGER_ROW_MAX;
		char *bigger = realloc(t->p, cap);

		CHECK(bigger);
		t->p = bigger;
		t->cap = cap;
	}
	memcpy(t->p + t->n, from->p, from->n);
	t->n += from->n;
}

/* ---- frames ---- */

static uint16_t row_bytes(const char *p)
{
	return (uint16_t)((unsigned char)p[2] | (unsigned char)p[3] << 8);
}

/* Fills one frame at io + *used with what fits of the pending rows; false when there is no room for any. */
static bool frame_add(struct store *s, struct ledger_write *w, size_t *used, uint32_t flags)
{
	struct ledger *l = s->ledger;
	size_t start = *used, page_left = LEDGER_PAGE - (w->off + start) % LEDGER_PAGE, room = LEDGER_IO - start;
	char *p = l->io + start;
	struct ledger_frame f = { .number = w->number + 1, .flags = flags };
	bool partial = false;

	room = room < page_left ? room : page_left;
	if (room < sizeof(f))
		return false;
	while (w->taken < l->pending.n) {
		const char *row = l->pending.p + w->taken;
		uint16_t n = row_bytes(row);

		if (row[0] == LEDGER_MARK) {
			struct span rest = span_of(row, n);
			struct ledger_row mark;

			CHECK(ledger_row_read(&rest, &mark));
			w->seq = mark.size;
			partial = false;
		} else if (sizeof(f) + f.record_bytes + n + 8 > room) {
			break;
		} else {
			memcpy(p + sizeof(f) + f.record_bytes, row, n);
			f.record_bytes += n;
			partial = true;
		}
		w->taken += n;
	}
	if (!f.record_bytes && w->taken < l->pending.n)
		return false;
	if (w->taken == l->pending.n)
		w->seq = l->taken_seq;
	f.bytes = (uint32_t)((sizeof(f) + f.record_bytes + 7) & ~7ul);
	memset(p + sizeof(f) + f.record_bytes, 0, f.bytes - sizeof(f) - f.record_bytes);
	f.seq = w->seq;
	f.flags |= partial ? LEDGER_PARTIAL : 0;
	ledger_frame_seal(p, &f, s->cfg.partition);
	w->number++;
	*used += f.bytes;
	return true;
}

/* Composes the next write. io begins with what the file's last block has already. */
void ledger_compose(struct store *s, struct ledger_write *w, uint32_t flags)
{
	struct ledger *l = s->ledger;
	size_t used = l->end % BLOCK;

	*w = (struct ledger_write){ .off = l->end - used, .number = l->number, .seq = l->written_seq };
	do {
		size_t to_page = LEDGER_PAGE - (w->off + used) % LEDGER_PAGE;

		if (frame_add(s, w, &used, flags))
			continue;
		if (to_page >= LEDGER_PAGE || used + to_page + sizeof(struct ledger_frame) > LEDGER_IO)
			break; /* the rest with the next write */
		memset(l->io + used, 0, to_page);
		used += to_page;
	} while (w->taken < l->pending.n);
	w->end = w->off + used;
	w->n = pad_block(used);
	memset(l->io + used, 0, w->n - used);
}

/* It is in the file. */
void ledger_written(struct ledger *l, const struct ledger_write *w)
{
	size_t tail = w->end % BLOCK;

	if (tail)
		memmove(l->io, l->io + (w->end - tail - w->off), tail);
	memmove(l->pending.p, l->pending.p + w->taken, l->pending.n - w->taken);
	l->pending.n -= w->taken;
	l->end = w->end;
	l->number = w->number;
	l->written_seq = w->seq;
	l->dirty = true;
	counter_add(C_LEDGER_BYTES, w->n);
}

/* ---- files ---- */

/* The file of the day; older ones than are to be kept go. */
enum status ledger_rotate(struct store *s, uint32_t day)
{
	struct ledger *l = s->ledger;
	char name[LEDGER_NAME];
	struct disk_file *file;
	uint64_t bytes;
	enum status st;

	ledger_name(day, name);
	st = s->disk->ops->open(s->disk, name, true, &file, &bytes);
	if (st != ST_OK)
		return st;
	l->file = file;
	l->day = day;
	l->end = 0;
	l->dir_dirty = true;
	for (; l->oldest + l->keep_days < day; l->oldest++) {
		ledger_name(l->oldest, name);
		if (s->disk->ops->open(s->disk, name, false, &file, &bytes) == ST_OK)
			s->disk->ops->remove(s->disk, name, file);
	}
	return ST_OK;
}

static void begin_io(struct store *s, enum disk_kind kind, enum ledger_busy busy, void *p, uint32_t n, uint64_t off)
{
	struct ledger *l = s->ledger;

	l->busy = busy;
	s->disk->ops->begin(s->disk, &(struct disk_io){ .kind = kind, .file = kind == DISK_SYNC_DIR ? NULL : l->file, .p = p, .n = n, .off = off,
		.registered = -1, .tag = store_tag(s, OP_LEDGER, 0, 0) });
}

/* Mail goes on without it; what it lacks is written later, from memory or from the log. */
static void failed(struct store *s, int err)
{
	struct ledger *l = s->ledger;

	counter_add(C_LEDGER_ERRORS, 1);
	counter_set(C_LEDGER_FAILING, 1);
	if (!l->failing)
		log_msg(LOG_LVL_ERROR, "ledger-failed", "%s: the ledger cannot be written: %s", s->cfg.dir, strerror(err));
	l->failing = true;
	l->retry_ns = clock_mono_ns() + RETRY_NS;
}

static void sync_begin(struct store *s)
{
	struct ledger *l = s->ledger;

	if (l->dir_dirty)
		begin_io(s, DISK_SYNC_DIR, LEDGER_SYNCING_DIR, NULL, 0, 0);
	else
		begin_io(s, DISK_DATASYNC, LEDGER_SYNCING, NULL, 0, 0);
}

static void write_begin(struct store *s)
{
	struct ledger *l = s->ledger;
	uint32_t day = (uint32_t)(clock_steady_ns() / LEDGER_DAY_NS);

	l->flushed_ns = clock_mono_ns();
	if (!l->file || day > l->day) {
		if (l->dirty) {
			sync_begin(s); /* the old file is whole before there is another */
			return;
		}
		if (ledger_rotate(s, day) != ST_OK) {
			failed(s, EIO);
			return;
		}
	}
	ledger_compose(s, &l->next, 0);
	begin_io(s, DISK_WRITE, LEDGER_WRITING, l->io, l->next.n, l->next.off);
}

void ledger_turn(struct store *s)
{
	struct ledger *l = s->ledger;
	uint64_t now;
	bool wanted;

	if (!l || l->busy != LEDGER_IDLE || (!l->pending.n && l->want_seq <= l->synced_seq))
		return;
	now = clock_mono_ns();
	if (l->failing && now < l->retry_ns)
		return;
	wanted = l->want_seq > l->written_seq && l->taken_seq >= l->want_seq;
	if (wanted || (l->pending.n && (l->pending.n >= FLUSH_BYTES || now - l->flushed_ns >= FLUSH_NS)))
		write_begin(s);
	else if (l->want_seq > l->synced_seq && l->written_seq >= l->want_seq)
		sync_begin(s);
}

void ledger_completion(struct store *s, const struct uring_event *ev)
{
	struct ledger *l = s->ledger;
	enum ledger_busy was = l->busy;

	l->busy = LEDGER_IDLE;
	if (ev->res < 0 || (was == LEDGER_WRITING && (uint32_t)ev->res != l->next.n)) {
		failed(s, ev->res < 0 ? -ev->res : ENOSPC);
		give_up_pending(l);
		return;
	}
	if (l->failing)
		log_msg(LOG_LVL_INFO, "ledger-written", "%s: the ledger is written again", s->cfg.dir);
	l->failing = false;
	counter_set(C_LEDGER_FAILING, 0);
	if (was == LEDGER_WRITING) {
		ledger_written(l, &l->next);
	} else if (was == LEDGER_SYNCING_DIR) {
		l->dir_dirty = false;
	} else {
		l->dirty = false;
		l->synced_seq = l->written_seq;
	}
}

bool ledger_reached(struct store *s, uint64_t seq)
{
	struct ledger *l = s->ledger;

	if (!l)
		return true;
	if (seq > l->want_seq)
		l->want_seq = seq;
	return l->failing || l->synced_seq >= seq;
}

bool ledger_settled(struct store *s)
{
	return !s->ledger || (ledger_reached(s, s->durable_seq) && (s->ledger->failing || !s->ledger->pending.n));
}

bool ledger_busy(const struct store *s)
{
	return s->ledger && s->ledger->busy != LEDGER_IDLE;
}

uint64_t store_ledger_number(const struct store *s)
{
	return s->ledger ? s->ledger->number : 0;
}

void ledger_free(struct store *s)
{
	if (!s->ledger)
		return;
	free(s->ledger->pending.p);
	free(s->ledger->io);
	free(s->ledger);
	s->ledger = NULL;
}
