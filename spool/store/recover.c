/* The only way to start: the newest checkpoint, then every batch behind it in the order of their composing. */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include "spool/base/clock.h"
#include "spool/base/counters.h"
#include "spool/base/hash.h"
#include "spool/base/log.h"
#include "spool/store/ledger.h"
#include "spool/store/recover.h"

/* ---- what there is ---- */

void *big_alloc(size_t n)
{
	size_t huge = (size_t)1 << 21, whole = (n + huge - 1) & ~(huge - 1);
	void *p = aligned_alloc(huge, whole ? whole : huge);

	if (p)
		(void)madvise(p, whole, MADV_HUGEPAGE); /* without them it works all the same */
	return p;
}

/* Which segments hold what. The newest checkpoint that any of them knows of comes back. */
static enum status read_headers(struct store *s, uint64_t *ret_checkpoint)
{
	char *block = aligned_alloc(BLOCK, BLOCK);
	enum status st = block ? ST_OK : ST_NOMEM;

	*ret_checkpoint = 0;
	for (uint32_t i = 0; i < s->nsegs && st == ST_OK; i++) {
		struct segment *seg = &s->seg[i];
		struct seg_header h;

		st = s->disk->ops->read(s->disk, seg->file, block, BLOCK, 0);
		if (st != ST_OK)
			break;
		switch (seg_header_read(block, &h)) {
		case HEADER_NONE:
			continue;
		case HEADER_UNKNOWN:
			st = trail(ST_UNSUPPORTED, "%s: segment %u has format %u with features %x, this program knows formats %d to %d", s->cfg.dir, i,
				h.version, h.incompatible, FORMAT_OLDEST, FORMAT_VERSION);
			continue;
		case HEADER_DAMAGED:
			log_msg(LOG_LVL_ERROR, "spool-damaged", "%s: the header of segment %u is damaged; the segment is kept aside", s->cfg.dir, i);
			seg->state = SEG_FULL;
			seg->quarantined = true;
			s->damaged++;
			counter_add(C_SPOOL_DAMAGED, 1);
			continue;
		case HEADER_OK:
			break;
		}
		if (h.partition != s->cfg.partition || h.index != i) {
			st = trail(ST_CORRUPT, "%s: segment %u is segment %u of partition %u", s->cfg.dir, i, h.index, h.partition);
			continue;
		}
		seg->generation = h.generation;
		seg->stream = (uint8_t)h.stream;
		seg->state = SEG_FULL;
		seg->end = s->cfg.segment_bytes;
		if (h.generation >= s->next_generation)
			s->next_generation = h.generation + 1;
		if (h.checkpoint > *ret_checkpoint)
			*ret_checkpoint = h.checkpoint;
	}
	free(block);
	return st;
}

/* ---- settling ---- */

/* Messages of the last batches, which no later batch calls durable: their raw areas must be whole, or the batch was torn. */
static enum status verify_tail(struct recovery *rc)
{
	struct store *s = rc->s;
	char *buf = aligned_alloc(BLOCK, EXTENT_MAX);
	enum status st = buf ? ST_OK : ST_NOMEM;

	for (size_t i = 0; i < rc->ntail && st == ST_OK; i++) {
		uint32_t slot = rc->tail_seq[i] > rc->max_durable ? index_find(s->index, rc->tail[i]) : SLOT_NONE;
		struct msg *m;
		bool whole;

		if (slot == SLOT_NONE)
			continue;
		whole = msg_load(s, index_at(s->index, slot), &m) == ST_OK;
		for (uint32_t k = 0; whole && k < m->npieces; k++) {
			const struct piece *p = m->piece[k];

			st = s->disk->ops->read(s->disk, s->seg[p->segment].file, buf, pad_block(p->len), p->off);
			whole = st == ST_OK && XXH3_64bits(buf, p->len) == p->hash;
		}
		if (m) {
			for (uint32_t k = 0; k < m->npieces; k++)
				m->piece[k]->on_disk = false;
			msg_free(s, m);
		}
		if (!whole) {
			ledger_repair_torn(s, rc->tail[i]);
			index_del(s->index, slot);
			rc->tail[rc->ntorn++] = rc->tail[i];
		}
	}
	free(buf);
	return st;
}

static enum status hold_it(struct entry *e, const char *why)
{
	struct {
		struct state_record r;
		char text[128];
	} u = { .r = { .h = { .type = REC_STATE, .msg_id = e->id }, .state = MSG_HELD, .reason_len = (uint32_t)strlen(why) } };

	CHECK(u.r.reason_len < sizeof(u.text));
	u.r.h.bytes = (uint32_t)((sizeof(u.r) + u.r.reason_len + 7) & ~7ul);
	memcpy(u.text, why, u.r.reason_len);
	e->state = MSG_HELD;
	return delta_add(e, &u.r.h);
}

/* Nothing is left of the record of a message that was accepted and not done: said, and kept for the postmaster. */
static void lost(struct store *s, struct entry *e)
{
	char id[MSG_ID_TEXT + 1];

	msg_id_text(e->id, id);
	log_msg(LOG_LVL_ERROR, "spool-damaged", "%s: message %s cannot be read any more", s->cfg.dir, id);
	s->damaged++;
	counter_add(C_SPOOL_DAMAGED, 1);
	e->state = MSG_HELD;
	e->flags &= (uint8_t)~ENTRY_IN_LOG;
}

static enum status settle(struct recovery *rc)
{
	struct store *s = rc->s;
	uint64_t mono = clock_mono_ns(), steady = clock_steady_ns();
	enum status st = ST_OK;

	for (uint32_t i = 0; i < index_slots(s->index) && st == ST_OK; i++) {
		struct entry *e = index_at(s->index, i);
		uint64_t due = e->due_ns == DUE_NEVER ? 0 : e->due_ns;

		if (!(e->flags & ENTRY_USED))
			continue;
		if (!e->open) {
			index_del(s->index, i);
			continue;
		}
		if (e->flags & ENTRY_DAMAGED) {
			lost(s, e);
			continue;
		}
		if (rc->newest_lost)
			st = hold_it(e, "the newest checkpoint of the spool is lost: this may have been delivered already");
		entry_live(s, e, 1);
		for (uint32_t k = 0; e->uses && k < e->uses->n; k++)
			segment_live(s, e->uses->use[k].segment, 1, e->uses->use[k].len);
		e->due_ns = DUE_NEVER;
		if (e->state != MSG_HELD)
			index_due(s->index, i, e->state == MSG_QUEUED && due > steady ? mono + due - steady : mono);
	}
	return st;
}

/* A new run of the log: what it begins with says that all before it is durable, so the messages that were torn end in the same batch. Without that they would be back
 * at the next start, and not be looked at any more. */
static void begin_run(struct recovery *rc)
{
	struct store *s = rc->s;

	s->durable_seq = rc->last_seq;
	s->next_seq = s->run_first_seq = rc->last_seq + 1;
	s->run_told_ns = clock_mono_ns();
	log_run(s);
	for (size_t i = 0; i < rc->ntorn; i++)
		log_done(s, rc->tail[i]);
}

enum status recover(struct store *s)
{
	struct recovery rc = { .s = s };
	uint64_t known;
	enum status st = read_headers(s, &known);

	rc.held_end = &rc.held;
	if (st != ST_OK)
		return st;
	st = checkpoint_load(s, &rc.from);
	if (st == ST_NOT_FOUND)
		rc.from = (struct checkpoint_header){ 0 };
	else if (st != ST_OK)
		return st;
	if (known > rc.from.number) {
		/* segments were reused on the word of a checkpoint that is not there: everything that can be found is, but some of it may be done */
		log_msg(LOG_LVL_ERROR, "spool-damaged", "%s: checkpoint %llu is lost; what is found is held", s->cfg.dir, (unsigned long long)known);
		rc.newest_lost = true;
		checkpoint_lost(s, known);
		s->damaged++;
		rc.from.seq = 0;
		memset(rc.from.generation, 0, sizeof(rc.from.generation));
		memset(rc.from.off, 0, sizeof(rc.from.off));
	}
	rc.max_durable = rc.from.seq ? rc.from.seq - 1 : 0;
	rc.last_seq = rc.max_durable;
	if (rc.from.next_number > s->next_number)
		s->next_number = rc.from.next_number;
	if (rc.from.next_generation > s->next_generation)
		s->next_generation = rc.from.next_generation;
	st = replay_new(&rc);
	if (st == ST_OK)
		st = replay(&rc);
	if (rc.steady_ns)
		clock_steady_seed(rc.steady_ns);
	if (st == ST_OK)
		st = verify_tail(&rc);
	if (st == ST_OK)
		st = settle(&rc);
	if (st == ST_OK) {
		replay_resume(&rc);
		segments_count(s);
		st = ledger_recovered(s, rc.from.seq, rc.last_seq);
	}
	if (st == ST_OK)
		begin_run(&rc);
	replay_free(&rc);
	apply_free(&rc);
	return st;
}
