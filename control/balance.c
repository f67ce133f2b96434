#include "control/balance.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "spool/base/clock.h"
#include "spool/store/store.h"

struct message {
	uint64_t id; /* 0: a free place */
	uint32_t nrcpt, open;
	uint32_t open_first; /* after the first reading */
	uint32_t queue_open;
	bool own, held, late /* came while the queue was asked */, known /* its acceptance was read */, twice, again;
	uint8_t one;         /* the state of its only recipient, */
	uint8_t *states;     /* or those of many */
};

struct balance {
	uint64_t since_s, until_s;
	struct message *table;
	size_t cap, n;
	bool asked;
	struct balance_sums deleters; /* only deleter and ndeleters */
};

enum status balance_new(uint64_t since_s, uint64_t until_s, struct balance **ret)
{
	struct balance *b = calloc(1, sizeof(*b));

	if (!b)
		return ST_NOMEM;
	b->since_s = since_s;
	b->until_s = until_s;
	b->cap = 1024;
	b->table = calloc(b->cap, sizeof(*b->table));
	*ret = b;
	return b->table ? ST_OK : ST_NOMEM;
}

void balance_free(struct balance *b)
{
	if (!b)
		return;
	for (size_t i = 0; i < b->cap; i++)
		free(b->table[i].states);
	free(b->table);
	free(b);
}

/* ---- the table ---- */

static struct message *place(const struct balance *b, uint64_t id)
{
	size_t i = (id * 0x9e3779b97f4a7c15ull >> 20) & (b->cap - 1);

	while (b->table[i].id && b->table[i].id != id)
		i = (i + 1) & (b->cap - 1);
	return &b->table[i];
}

static void grow(struct balance *b)
{
	struct balance old = *b;

	b->cap *= 2;
	b->table = calloc(b->cap, sizeof(*b->table));
	CHECK(b->table);
	for (size_t i = 0; i < old.cap; i++)
		if (old.table[i].id)
			*place(b, old.table[i].id) = old.table[i];
	free(old.table);
}

/* What a repair says was true before the queue was asked: a worker is asked, and its log is read, with its repair done. */
static struct message *find(struct balance *b, uint64_t id, bool make, bool repaired)
{
	struct message *m = place(b, id);

	if (m->id || !make)
		return m->id ? m : NULL;
	if (b->n * 2 > b->cap) {
		grow(b);
		m = place(b, id);
	}
	b->n++;
	*m = (struct message){ .id = id, .late = b->asked && !repaired, .open_first = UINT32_MAX };
	return m;
}

static bool in_span(const struct balance *b, uint64_t arrived_ns)
{
	return arrived_ns / NS_PER_S >= b->since_s && arrived_ns / NS_PER_S < b->until_s;
}

/* ---- rows ---- */

static void on_accepted(struct balance *b, const struct ledger_row *row, bool repaired)
{
	struct message *m;

	if (!in_span(b, row->arrived_ns))
		return;
	m = find(b, row->id, true, repaired);
	if (m->known) {
		m->again = m->again || !repaired;
		return;
	}
	m->known = true;
	m->own = row->flags & ENV_INTERNAL;
	m->nrcpt = m->open = row->nrcpt;
	m->states = row->nrcpt > 1 ? calloc(row->nrcpt, 1) : NULL;
	CHECK(m->states || row->nrcpt <= 1);
}

static void count_deleter(struct balance *b, struct span text, uint64_t n)
{
	struct balance_sums *d = &b->deleters;
	struct span who = span_starts_nocase(text, SPAN("deleted by ")) ? span_skip(text, 11) : SPAN("an operator");
	char name[64];
	struct out o = out_of(name, sizeof(name) - 1);

	out_add(&o, who);
	name[o.n] = '\0';
	for (unsigned i = 0; i < d->ndeleters; i++)
		if (strcmp(d->deleter[i].who, name) == 0) {
			d->deleter[i].n += n;
			return;
		}
	if (d->ndeleters == DELETERS_MAX)
		return;
	memcpy(d->deleter[d->ndeleters].who, name, sizeof(name));
	d->deleter[d->ndeleters++].n = n;
}

static bool settle(struct message *m, uint32_t i, uint8_t state)
{
	uint8_t *at = m->states ? &m->states[i] : &m->one;

	if (*at != RCPT_QUEUED)
		return false;
	*at = state;
	m->open--;
	return true;
}

/* What was written by a repair may have been written before it. */
static bool is_repeated(const struct message *m, const struct ledger_row *row)
{
	return row->rcpt < m->nrcpt && (m->states ? m->states[row->rcpt] : m->one) == row->state;
}

static void on_fate(struct balance *b, const struct ledger_row *row, bool repaired)
{
	struct message *m = find(b, row->id, in_span(b, row->arrived_ns), repaired);
	uint64_t settled = 0;

	if (!m || row->state == RCPT_QUEUED)
		return;
	if (!m->known) /* an outcome of what nobody accepted: stays so until the acceptance comes, which it never does */
		return;
	if (row->rcpt == LEDGER_RCPT_ALL) {
		for (uint32_t i = 0; i < m->nrcpt; i++)
			settled += settle(m, i, row->state);
	} else if (repaired && is_repeated(m, row)) {
		return;
	} else if (row->rcpt >= m->nrcpt || !settle(m, row->rcpt, row->state)) {
		m->twice = true;
	} else {
		settled = 1;
	}
	if (row->state == RCPT_DELETED && settled)
		count_deleter(b, row->text, settled);
}

void balance_row(struct balance *b, const struct ledger_row *row, bool repaired)
{
	if (row->type == LEDGER_ACCEPTED)
		on_accepted(b, row, repaired);
	else if (row->type == LEDGER_FATE)
		on_fate(b, row, repaired);
}

void balance_ask(struct balance *b)
{
	b->asked = true;
	for (size_t i = 0; i < b->cap; i++) {
		struct message *m = &b->table[i];

		m->late = m->held = false;
		m->open_first = m->open;
		m->queue_open = 0;
	}
}

void balance_queued(struct balance *b, uint64_t id, uint32_t open, bool held)
{
	struct message *m = find(b, id, false, false);

	if (!m)
		return;
	m->queue_open = open;
	m->held = held;
}

/* ---- judging ---- */

static void problem(struct balance_sums *sums, balance_fn *fn, void *ctx, uint64_t id, const char *text)
{
	sums->problems++;
	fn(ctx, id, text);
}

static void add_states(const struct message *m, struct balance_line *line)
{
	for (uint32_t i = 0; i < m->nrcpt; i++)
		switch (m->states ? m->states[i] : m->one) {
		case RCPT_QUEUED:
			break;
		case RCPT_DELIVERED:
			line->delivered++;
			break;
		case RCPT_BOUNCED:
			line->bounced++;
			break;
		default:
			line->deleted++;
			break;
		}
}

static void judge_one(const struct message *m, struct balance_sums *sums, balance_fn *fn, void *ctx)
{
	struct balance_line *line = m->own ? &sums->own : &sums->clients;
	uint32_t waits = m->open < m->queue_open ? m->open : m->queue_open;
	char text[160];

	if (!m->known) {
		problem(sums, fn, ctx, m->id, "has an outcome, but was never accepted");
		return;
	}
	line->messages++;
	line->recipients += m->nrcpt;
	add_states(m, line);
	*(m->held ? &line->held : &line->queued) += waits;
	line->unexplained += m->open - waits;
	if (m->again)
		problem(sums, fn, ctx, m->id, "was accepted twice");
	if (m->twice)
		problem(sums, fn, ctx, m->id, "has two outcomes for one recipient, or one for a recipient that it does not have");
	if (m->open > m->queue_open) {
		snprintf(text, sizeof(text), "was accepted, but %u of its %u recipients have no outcome and are not in the queue", m->open - m->queue_open,
			m->nrcpt);
		problem(sums, fn, ctx, m->id, text);
	}
	if (m->queue_open > m->open_first) {
		snprintf(text, sizeof(text), "has %u recipients in the queue, but only %u of its %u have no outcome", m->queue_open, m->open_first,
			m->nrcpt);
		problem(sums, fn, ctx, m->id, text);
	}
}

void balance_judge(const struct balance *b, struct balance_sums *ret, balance_fn *fn, void *ctx)
{
	*ret = b->deleters;
	for (size_t i = 0; i < b->cap; i++)
		if (b->table[i].id && !b->table[i].late)
			judge_one(&b->table[i], ret, fn, ctx);
}
