#include "dataplane/flush.h"

#include <stdlib.h>
#include "dataplane/holds.h"
#include "dataplane/outbound.h"
#include "spool/base/counters.h"

enum { ROWS_A_TURN = 5000, WAITING_MAX = 256 };

struct flush {
	struct worker *w;
	uint32_t tag[WAITING_MAX]; /* [0] is under way */
	uint32_t n, store;
	size_t pos;
};

enum status flush_new(struct worker *w, struct flush **ret)
{
	*ret = calloc(1, sizeof(**ret));
	if (!*ret)
		return ST_NOMEM;
	(*ret)->w = w;
	return ST_OK;
}

void flush_begin(struct flush *f, uint32_t tag)
{
	for (uint32_t i = 1; i < f->n; i++)
		if (f->tag[i] == tag)
			return;
	if (f->n < WAITING_MAX) /* else its messages wait until they are due: nothing is lost */
		f->tag[f->n++] = tag;
}

/* Messages with several destinations have no tag, or that of a hold: they are looked at, too. */
static bool is_wanted(uint32_t tag, const struct store_row *row)
{
	if (tag == HOLD_TAG)
		return row->tag & HOLD_TAG;
	return row->tag == tag || (row->nrcpt > 1 && (!row->tag || (row->tag & HOLD_TAG)));
}

static void make_due(struct flush *f, struct store *s, const struct store_row *row)
{
	struct mail *mail = row->awake ? row->awake->user : NULL;

	if (row->awake) {
		if (mail && mail->durable && !mail->deliveries && !mail->bounces)
			outbound_put(mail);
		return;
	}
	if (row->damaged || row->due_ns <= f->w->now_ns || !is_wanted(f->tag[0], row))
		return;
	counter_add(C_FLUSHED, 1);
	store_put_off(s, row->id, f->w->now_ns);
}

bool flush_turn(struct flush *f)
{
	struct store_row row;

	for (unsigned seen = 0; f->n && seen < ROWS_A_TURN; seen++) {
		struct store *s = f->store < f->w->nstore ? f->w->store[f->store] : NULL;

		if (!s) {
			memmove(f->tag, f->tag + 1, --f->n * sizeof(f->tag[0]));
			f->store = 0;
			f->pos = 0;
		} else if (!store_next(s, &f->pos, &row)) {
			f->store++;
			f->pos = 0;
		} else if (row.state == MSG_QUEUED && row.open) {
			make_due(f, s, &row);
		}
	}
	return f->n > 0;
}
