#include "dataplane/command_internal.h"

#include <stdio.h>
#include "dataplane/outbound.h"
#include "dataplane/queue_rows.h"
#include "spool/base/clock.h"

enum { ROWS_MAX = 1000, WALK_AHEAD = 32, ROWS_A_TURN = 20000, INDEX_A_TURN = 5000 };

static bool msg_matches(const struct asker *a, const struct store_msg *m)
{
	return queue_matches(a->command->w, m,
		&(struct queue_filter){ .state = command_arg(a, "state"), .domain = command_arg(a, "domain"), .sender = command_arg(a, "sender") });
}

/* ---- the whole queue ---- */

/* What is in the queue, as short as it can be said: for weirctl ledger, a slice a request. */
const char *queue_index(struct command *c, struct asker *a)
{
	static const char *const name[] = { [MSG_PENDING] = "scanning", [MSG_QUEUED] = "queued", [MSG_HELD] = "held" };
	const char *which = command_arg(a, "store"), *from = command_arg(a, "pos");
	struct logline row;
	struct store_row r;
	uint64_t k, at;
	size_t pos;
	unsigned n = 0;

	if (!which || !from || !span_u64(span_str(which), WORKER_PARTITIONS_MAX, &k) || !span_u64(span_str(from), UINT32_MAX, &at) || k >= c->w->nstore)
		return "no such partition here";
	pos = (size_t)at;
	row_begin(&row);
	log_u64(&row, "partition", store_partition(c->w->store[k]));
	log_u64(&row, "ledger", store_ledger_number(c->w->store[k]));
	command_row(a, &row);
	for (; n < INDEX_A_TURN && store_next(c->w->store[k], &pos, &r); n++) {
		char id[MSG_ID_TEXT + 1];

		msg_id_text(r.id, id);
		row_begin(&row);
		log_str(&row, "id", id);
		log_u64(&row, "open", r.open);
		log_str(&row, "state", name[r.state]);
		command_row(a, &row);
	}
	if (n < INDEX_A_TURN)
		return NULL;
	row_begin(&row);
	log_u64(&row, "next", pos);
	command_row(a, &row);
	return NULL;
}

/* ---- orders ---- */

static const char *act_on(struct store_msg *m, const char *what, struct span who)
{
	struct mail *mail = m->user;
	char reason[160];
	struct out o = out_of(reason, sizeof(reason));

	if (strcmp(what, "retry") == 0) {
		if (m->state != MSG_QUEUED)
			return "not queued";
		outbound_retry(mail);
		return "retried";
	}
	if (strcmp(what, "hold") == 0) {
		if (m->state != MSG_QUEUED)
			return "not queued";
		out_str(&o, "held by ");
		out_add(&o, span_of(who.p, who.n > 100 ? 100 : who.n));
		mail_hold(mail, out_span(&o));
		return "held";
	}
	if (strcmp(what, "release") == 0) {
		if (m->state != MSG_HELD)
			return "not held";
		mail_release(mail, who);
		return "released";
	}
	if (m->state == MSG_PENDING)
		return "being scanned";
	return mail_delete(mail, who) ? "deleted" : "under way";
}

/* ---- walks over messages ---- */

static void row_done(struct asker *a, uint64_t id, const char *done)
{
	struct logline row;
	char text[MSG_ID_TEXT + 1];

	msg_id_text(id, text);
	row_begin(&row);
	log_str(&row, "id", text);
	log_str(&row, "done", done);
	command_row(a, &row);
}

static void show(struct asker *a, const struct store_msg *m)
{
	struct logline row;

	queue_row_msg(a->command->w, m, &row);
	command_row(a, &row);
	for (uint32_t i = 0; a->whole && i < m->env.nrcpt; i++) {
		queue_row_rcpt(a->command->w, m, i, &row);
		command_row(a, &row);
	}
}

static struct span by_of(const struct asker *a)
{
	const char *by = command_arg(a, "by");

	return span_str(by ? by : "operator");
}

/* What the asker wants of a message that is there to be seen; an order is carried out only on one that is awake. */
static void visit(struct asker *a, const struct store_msg *m)
{
	uint64_t id = m->id;

	if (!a->left || (!a->whole && !command_arg(a, "id") && !msg_matches(a, m)))
		return;
	a->left--;
	if (a->act)
		row_done(a, id, act_on(store_find(m->store, id), a->act, by_of(a)));
	else
		show(a, m);
}

static bool may_match(const struct asker *a, const struct store_row *row)
{
	const char *state = command_arg(a, "state");
	enum msg_state want = !state ? MSG_QUEUED : strcmp(state, "held") == 0 ? MSG_HELD : strcmp(state, "scanning") == 0 ? MSG_PENDING :
		MSG_QUEUED;

	return row->open && (!state || row->state == want);
}

static void row_damaged(struct asker *a, const struct store_row *r)
{
	struct logline row;
	char id[MSG_ID_TEXT + 1];

	msg_id_text(r->id, id);
	row_begin(&row);
	log_str(&row, "id", id);
	log_str(&row, "state", "damaged");
	log_u64(&row, "size", r->body_len);
	log_u64(&row, "rcpts", r->nrcpt);
	log_u64(&row, "open", r->open);
	log_str(&row, "reason", "its record in the spool cannot be read");
	command_row(a, &row);
}

/* One message of the walk. ST_AGAIN: not now. */
static enum status walk_one(struct command *c, struct asker *a, struct store *s, const struct store_row *row)
{
	enum status st = ST_OK;

	if (row->awake && (!a->act || row->awake->user)) {
		visit(a, row->awake);
		return ST_OK;
	}
	if (row->damaged) {
		a->left--;
		if (!a->act)
			row_damaged(a, row);
		else
			row_done(a, row->id, strcmp(a->act, "delete") == 0 && store_discard(s, row->id, by_of(a)) == ST_OK ? "deleted" : "damaged");
		return ST_OK;
	}
	if (!a->act) {
		st = store_peek(s, row->id, (uint64_t)(uintptr_t)a << 16 | (a->gen & 0xffff));
	} else {
		st = c->nwanted < WANTED ? store_wake(s, row->id) : ST_AGAIN;
		if (st == ST_OK || st == ST_EXISTS) {
			c->wanted[c->nwanted++] = (struct wanted){ row->id, a, a->gen };
			st = ST_OK;
		}
	}
	if (st == ST_OK)
		a->ahead++;
	return st;
}

/* Goes on until it waits for the disk, or is at its end. True: it has only paused for the others. */
static bool walk(struct asker *a)
{
	struct command *c = a->command;
	struct store_row row;
	unsigned seen = 0;

	while (a->left > a->ahead && a->ahead < WALK_AHEAD && a->store < c->w->nstore) {
		struct store *s = c->w->store[a->store];
		size_t at = a->pos;

		if (!store_next(s, &a->pos, &row)) {
			a->store++;
			a->pos = 0;
			continue;
		}
		if (a->after) {
			a->after = row.id == a->after ? 0 : a->after;
			continue;
		}
		if (!may_match(a, &row))
			continue;
		if (walk_one(c, a, s, &row) == ST_AGAIN || ++seen >= ROWS_A_TURN) {
			a->pos = seen >= ROWS_A_TURN ? a->pos : at;
			return seen >= ROWS_A_TURN;
		}
	}
	if (a->ahead || (a->left && a->store < c->w->nstore))
		return false;
	a->walking = false;
	command_answered(a);
	return false;
}

bool command_turn(struct worker *w)
{
	bool more = false;

	for (uint32_t i = 0; i < ASKERS; i++)
		if (w->command->asker[i].used && w->command->asker[i].walking)
			more = walk(&w->command->asker[i]) || more;
	return more;
}

/* A walk over one message. */
static const char *walk_to(struct asker *a, const char *id)
{
	struct worker *w = a->command->w;
	struct store_row row;
	uint64_t number;

	if (msg_id_parse(span_str(id), &number) != ST_OK)
		return "no such message here";
	a->left = 1;
	for (uint32_t i = 0; i < w->nstore; i++) {
		if (!store_row(w->store[i], number, &row))
			continue;
		if (walk_one(a->command, a, w->store[i], &row) != ST_OK)
			return "the spool is busy, try again";
		a->store = w->nstore; /* there is nothing behind it */
		a->left = a->ahead;
		return NULL;
	}
	return "no such message here";
}

const char *queue_walk(struct asker *a, const char *act)
{
	const char *limit = command_arg(a, "limit"), *after = command_arg(a, "after"), *id = command_arg(a, "id"), *error = NULL;

	a->act = act;
	a->left = act ? UINT64_MAX : 100;
	a->whole = !act && id;
	if (limit && (!span_u64(span_str(limit), ROWS_MAX, &a->left) || !a->left))
		return "limit is a number from 1 to 1000";
	if (after && msg_id_parse(span_str(after), &a->after) != ST_OK)
		return "after is not a message id";
	if (id)
		error = walk_to(a, id);
	a->waits = a->walking = !error;
	return error;
}

void command_peeked(struct worker *w, const struct store_msg *m, uint64_t cookie)
{
	struct asker *a = (struct asker *)(uintptr_t)(cookie >> 16);

	(void)w;
	if (!a->used || (a->gen & 0xffff) != (cookie & 0xffff))
		return;
	a->ahead--;
	if (m)
		visit(a, m);
}

/* Takes out the next asker that waits for this message and is still there; NULL: there is none any more. */
static struct asker *wanted_take(struct command *c, uint64_t id)
{
	for (uint32_t i = 0; i < c->nwanted; i++) {
		struct wanted want = c->wanted[i];

		if (want.id != id)
			continue;
		c->wanted[i--] = c->wanted[--c->nwanted];
		if (!want.asker->used || want.asker->gen != want.gen)
			continue;
		want.asker->ahead--;
		return want.asker;
	}
	return NULL;
}

void command_woken(struct worker *w, struct store_msg *m)
{
	struct store *s = m->store;
	uint64_t id = m->id;
	struct asker *a;

	if (!mail_woken(w, m))
		return;
	while ((a = wanted_take(w->command, id))) {
		m = store_find(s, id); /* the order before may have ended it */
		if (m)
			visit(a, m);
	}
	m = store_find(s, id);
	if (m)
		mail_go_on(m->user);
}

void command_unreadable(struct worker *w, uint64_t id)
{
	struct asker *a;

	while ((a = wanted_take(w->command, id)))
		row_done(a, id, "damaged");
}
