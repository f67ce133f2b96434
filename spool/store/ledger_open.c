/* The ledger at the start: where it ends, and what the log has that it lacks. The log is the truth. */
#include <stdlib.h>
#include "spool/base/clock.h"
#include "spool/base/counters.h"
#include "spool/base/log.h"
#include "spool/store/ledger_internal.h"

/* File names are tried for these days around the wall clock's: the disk seam cannot list. */
enum { DAYS_BACK = 400, DAYS_AHEAD = 40 };

/* The last frame of a page that does not count on another one behind it. False: there is none. */
static bool last_in_page(const char *p, size_t n, uint32_t partition, struct ledger_frame *ret, size_t *ret_end)
{
	bool found = false;

	for (size_t at = 0; at < n;) {
		struct ledger_frame f;
		uint32_t bytes = ledger_frame_valid(p + at, n - at, partition, &f);

		if (bytes && !(f.flags & LEDGER_PARTIAL)) {
			*ret = f;
			*ret_end = at + bytes;
			found = true;
		}
		at += bytes ? bytes : 8;
	}
	return found;
}

/* Where a file's whole frames end. ST_NOT_FOUND: it has none. */
static enum status find_end(struct store *s, struct disk_file *file, uint64_t bytes, struct ledger_frame *ret, uint64_t *ret_end)
{
	char *page = aligned_alloc(BLOCK, LEDGER_PAGE);
	enum status st = page ? ST_NOT_FOUND : ST_NOMEM;
	size_t at;

	bytes &= ~(uint64_t)(BLOCK - 1);
	for (uint64_t off = bytes ? (bytes - 1) / LEDGER_PAGE * LEDGER_PAGE : 0; bytes && st == ST_NOT_FOUND; off -= LEDGER_PAGE) {
		size_t n = bytes - off < LEDGER_PAGE ? (size_t)(bytes - off) : LEDGER_PAGE;
		enum status rd = s->disk->ops->read(s->disk, file, page, n, off);

		if (rd != ST_OK)
			st = rd;
		else if (last_in_page(page, n, s->cfg.partition, ret, &at)) {
			*ret_end = off + at;
			st = ST_OK;
		}
		if (!off)
			break;
	}
	free(page);
	return st;
}

/* The last block of what counts goes to where the next write begins; what stands behind it is no part of the ledger. */
static enum status cut_tail(struct store *s, uint64_t bytes)
{
	struct ledger *l = s->ledger;
	uint64_t from = l->end & ~(uint64_t)(BLOCK - 1);
	size_t keep = l->end % BLOCK;
	enum status st = ST_OK;
	char *zeros;

	if (keep && (st = s->disk->ops->read(s->disk, l->file, l->io, BLOCK, from)) != ST_OK)
		return st;
	memset(l->io + keep, 0, BLOCK - keep);
	if (l->keep_rows || bytes <= l->end)
		return ST_OK;
	if (keep)
		st = s->disk->ops->write(s->disk, l->file, l->io, BLOCK, from);
	zeros = aligned_alloc(BLOCK, LEDGER_PAGE);
	if (!zeros)
		return ST_NOMEM;
	memset(zeros, 0, LEDGER_PAGE);
	for (uint64_t off = from + (keep ? BLOCK : 0); off < bytes && st == ST_OK; off += LEDGER_PAGE) {
		uint64_t left = bytes - off;

		st = s->disk->ops->write(s->disk, l->file, zeros, left < LEDGER_PAGE ? pad_block(left) : LEDGER_PAGE, off);
	}
	free(zeros);
	return st;
}

/* From the newest file back to one that has a frame. The newest is the one that goes on. */
static enum status find_files(struct store *s)
{
	struct ledger *l = s->ledger;
	uint32_t today = (uint32_t)(clock_wall_ns() / LEDGER_DAY_NS);
	uint32_t first = today > DAYS_BACK ? today - DAYS_BACK : 0;
	uint64_t newest_bytes = 0;
	enum status st = ST_OK;

	l->oldest = today + DAYS_AHEAD;
	for (uint32_t day = today + DAYS_AHEAD; day >= first && st == ST_OK; day--) {
		char name[LEDGER_NAME];
		struct disk_file *file;
		struct ledger_frame f;
		uint64_t bytes, end;

		ledger_name(day, name);
		st = s->disk->ops->open(s->disk, name, false, &file, &bytes);
		if (st == ST_NOT_FOUND) {
			st = ST_OK;
			continue;
		}
		if (st != ST_OK)
			return st;
		l->oldest = day;
		if (!l->file) {
			l->file = file;
			l->day = day;
			newest_bytes = bytes;
		}
		if (l->found)
			continue;
		st = find_end(s, file, bytes, &f, &end);
		if (st == ST_OK) {
			l->found = true;
			l->number = f.number;
			l->written_seq = f.seq;
			l->end = file == l->file ? end : 0;
		} else if (st == ST_NOT_FOUND) {
			st = ST_OK;
		}
	}
	return st == ST_OK && l->file ? cut_tail(s, newest_bytes) : st;
}

/* Files that cannot be read keep nobody from relaying: then none is written until the next start, which notes the gap. */
enum status ledger_open(struct store *s, bool only_look)
{
	struct ledger *l;
	enum status st;

	if (!s->cfg.ledger_keep_ns)
		return ST_OK;
	l = s->ledger = calloc(1, sizeof(*l));
	if (!l || !(l->io = aligned_alloc(BLOCK, LEDGER_IO)))
		return ST_NOMEM;
	l->keep_days = (uint32_t)((s->cfg.ledger_keep_ns + LEDGER_DAY_NS - 1) / LEDGER_DAY_NS);
	l->keep_rows = only_look;
	st = find_files(s);
	if (st == ST_OK || only_look)
		return st;
	log_msg(LOG_LVL_ERROR, "ledger-failed", "%s: the ledger cannot be read, and is not written: %s", s->cfg.dir, trail_text());
	counter_add(C_LEDGER_ERRORS, 1);
	counter_set(C_LEDGER_FAILING, 1);
	ledger_free(s);
	return ST_OK;
}

bool ledger_lacks(const struct store *s, uint64_t seq)
{
	return s->ledger && s->ledger->found && seq > s->ledger->written_seq;
}

void ledger_repair(struct store *s, const struct ledger_row *row)
{
	notes_add(&s->ledger->pending, row);
}

void ledger_repair_accepted(struct store *s, uint64_t id, uint8_t state, const struct envelope *e, uint64_t size, struct span reason)
{
	notes_accepted(&s->ledger->pending, id, 0, state, e, size, reason);
}

/* The message was torn: nobody was told that it was accepted. */
void ledger_repair_torn(struct store *s, uint64_t id)
{
	struct notes *t = s->ledger ? &s->ledger->pending : NULL;
	struct span rest = t ? span_of(t->p, t->n) : SPAN_NONE;
	struct ledger_row row;
	size_t kept = 0;

	while (rest.n) {
		const char *from = rest.p;

		CHECK(ledger_row_read(&rest, &row));
		if (row.id == id)
			continue;
		memmove(t->p + kept, from, (size_t)(rest.p - from));
		kept += (size_t)(rest.p - from);
	}
	if (t)
		t->n = kept;
}

/* Rows that were written before spool time was known. */
static void set_times(struct notes *t, uint64_t now)
{
	struct span rest = span_of(t->p, t->n);
	struct ledger_row row;

	while (rest.n) {
		char *at = t->p + (rest.p - t->p);
		struct out o = out_of(at + 12, 8);

		CHECK(ledger_row_read(&rest, &row));
		out_le64(&o, now);
	}
}

/* A gap where the log begins later than the ledger ends, or ends before it: then the disk lost what it had said to be safe. */
static void note_gaps(struct store *s, uint64_t from_seq, uint64_t last_seq)
{
	struct ledger *l = s->ledger;
	struct ledger_row row = { .type = LEDGER_BEGIN, .size = last_seq };

	if (!l->found) {
		notes_add(&l->pending, &row);
		return;
	}
	row.type = LEDGER_GAP;
	row.size = l->written_seq + 1;
	row.to = from_seq ? from_seq - 1 : 0;
	if (last_seq < l->written_seq) {
		row.size = last_seq + 1;
		row.to = l->written_seq;
	}
	if (row.to < row.size)
		return;
	log_msg(LOG_LVL_ERROR, "ledger-gap", "%s: what batches %llu to %llu of the log said is not in the ledger", s->cfg.dir,
		(unsigned long long)row.size, (unsigned long long)row.to);
	notes_add(&l->pending, &row);
}

static enum status write_repair(struct store *s)
{
	struct ledger *l = s->ledger;
	uint32_t day = (uint32_t)(clock_steady_ns() / LEDGER_DAY_NS);
	enum status st = !l->file || day > l->day ? ledger_rotate(s, day) : ST_OK;
	struct ledger_write w;

	while (st == ST_OK && l->pending.n) {
		ledger_compose(s, &w, LEDGER_REPAIRED);
		st = s->disk->ops->write(s->disk, l->file, l->io, w.n, w.off);
		if (st == ST_OK)
			ledger_written(l, &w);
	}
	if (st == ST_OK)
		st = s->disk->ops->sync(s->disk, l->file);
	if (st == ST_OK && l->dir_dirty)
		st = s->disk->ops->sync(s->disk, NULL);
	l->dirty = l->dir_dirty = false;
	return st;
}

enum status ledger_recovered(struct store *s, uint64_t from_seq, uint64_t last_seq)
{
	struct ledger *l = s->ledger;
	enum status st;

	if (!l)
		return ST_OK;
	note_gaps(s, from_seq, last_seq);
	set_times(&l->pending, clock_steady_ns());
	l->taken_seq = last_seq;
	if (l->keep_rows)
		return ST_OK;
	notes_add(&l->pending, &(struct ledger_row){ .type = LEDGER_MARK, .size = last_seq });
	st = write_repair(s);
	if (st != ST_OK) { /* relaying is worth more: what is missing is still pending */
		log_msg(LOG_LVL_ERROR, "ledger-failed", "%s: the ledger cannot be written: %s", s->cfg.dir, trail_text());
		l->failing = true;
	}
	l->written_seq = st == ST_OK ? last_seq : l->written_seq;
	l->synced_seq = l->written_seq;
	return ST_OK;
}
