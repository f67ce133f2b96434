#include "dataplane/command.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include "dataplane/ask_dns.h"
#include "dataplane/auth.h"
#include "dataplane/explain.h"
#include "dataplane/inbound.h"
#include "dataplane/notice.h"
#include "dataplane/outbound.h"
#include "dataplane/policy/policy.h"
#include "dataplane/scan.h"
#include "dataplane/verify.h"
#include "spool/base/clock.h"
#include "spool/base/counters.h"
#include "spool/store/command.h"

enum { ASKERS = 32, ROWS_MAX = 1000, ARGS_MAX = 16, WALK_AHEAD = 32, WANTED = 128, ROWS_A_TURN = 20000, INDEX_A_TURN = 5000 };
enum command_op { OP_ACCEPT, OP_REQUEST, OP_SENT };

struct arg {
	char key[24];
	char value[512];
};

/* One asker: its request, then the answer as a growing text of which packets are cut at row ends. */
struct asker {
	struct command *command;
	int fd;
	uint32_t gen;
	char request[COMMAND_REQUEST];
	size_t request_len;
	struct arg arg[ARGS_MAX];
	unsigned nargs;
	char *answer;
	size_t len, cap, sent, packet;
	struct shared_query *query;
	struct verify_show show;
	struct dns_query *dns;
	struct rate_rule {
		double limit;
		uint64_t period_ns;
		const char *source, *mode;
		uint32_t line; /* of the configuration; 0: none */
	} rule;
	/* a walk over messages, WALK_AHEAD of which may be on their way from the log */
	const char *act; /* NULL: only looks */
	uint32_t store, ahead;
	size_t pos;
	uint64_t left, after;
	bool whole;      /* with every recipient */
	bool used, waits, walking;
};

/* A parked message that somebody has an order for. */
struct wanted {
	uint64_t id;
	struct asker *asker;
	uint32_t gen;
};

struct command {
	struct worker *w;
	int listen_fd;
	bool accept_rests; /* it failed, for want of descriptors for example: again at the next tick */
	struct asker asker[ASKERS];
	struct wanted wanted[WANTED];
	uint32_t nwanted;
};

/* ---- the answer ---- */

static void answer_row(struct asker *a, struct logline *row)
{
	struct span s = row_text(row);

	if (a->len + s.n + 1 > a->cap) {
		size_t cap = a->cap ? a->cap * 2 : 8192;
		char *bigger;

		while (cap < a->len + s.n + 1)
			cap *= 2;
		bigger = realloc(a->answer, cap);
		if (!bigger)
			return;
		a->answer = bigger;
		a->cap = cap;
	}
	memcpy(a->answer + a->len, s.p, s.n);
	a->len += s.n;
	a->answer[a->len++] = '\n';
}

static void answer_end(struct asker *a, const char *error)
{
	struct logline row;

	row_begin(&row);
	log_str(&row, "end", error ? "error" : "ok");
	if (error)
		log_str(&row, "msg", error);
	answer_row(a, &row);
}

static void asker_close(struct asker *a)
{
	if (a->query)
		shared_cancel(a->query);
	if (a->dns)
		dns_cancel(a->dns);
	close(a->fd);
	free(a->answer);
	a->answer = NULL;
	a->query = NULL;
	a->dns = NULL;
	a->used = false;
	a->gen++;
}

/* Sends the next packet: whole rows, at most COMMAND_PACKET bytes. */
static void asker_send(struct command *c, struct asker *a)
{
	size_t n = a->len - a->sent;
	struct io_uring_sqe *sqe;

	if (n == 0) {
		asker_close(a);
		return;
	}
	if (n > COMMAND_PACKET) {
		n = COMMAND_PACKET;
		while (a->answer[a->sent + n - 1] != '\n')
			n--; /* a row is far shorter than a packet */
	}
	a->packet = n;
	sqe = uring_sqe(&c->w->uring);
	io_uring_prep_send(sqe, a->fd, a->answer + a->sent, n, MSG_NOSIGNAL);
	uring_tag(sqe, URING_CTL, OP_SENT, (uint32_t)(a - c->asker), a->gen);
}

/* ---- arguments ---- */

static bool parse_request(struct asker *a, struct span text)
{
	struct span key, value;
	char buf[512];

	a->nargs = 0;
	while (a->nargs < ARGS_MAX && row_next(&text, &key, &value, buf, sizeof(buf) - 1)) {
		struct arg *g = &a->arg[a->nargs++];
		struct out k = out_of(g->key, sizeof(g->key) - 1), v = out_of(g->value, sizeof(g->value) - 1);

		out_add(&k, key);
		out_add(&v, value);
		g->key[k.n] = g->value[v.n] = '\0';
	}
	return a->nargs > 0;
}

static const char *arg(const struct asker *a, const char *key)
{
	for (unsigned i = 0; i < a->nargs; i++)
		if (strcmp(a->arg[i].key, key) == 0)
			return a->arg[i].value;
	return NULL;
}

/* ---- rows about messages ---- */

static const char *state_name(const struct store_msg *m)
{
	if (m->state == MSG_HELD)
		return "held";
	if (m->state == MSG_PENDING)
		return "scanning";
	for (uint32_t i = 0; i < m->env.nrcpt; i++)
		if (m->rcpt[i].state == RCPT_QUEUED && (m->rcpt[i].busy || !m->rcpt[i].attempts))
			return "active";
	return "deferred";
}

static void log_seconds(struct logline *row, const char *key, uint64_t from_ns, uint64_t to_ns)
{
	log_u64(row, key, to_ns > from_ns ? (to_ns - from_ns) / NS_PER_S : 0);
}

static void row_msg(struct logline *row, const struct store_msg *m)
{
	char id[MSG_ID_TEXT + 1], ip[48];
	struct out o = out_of(ip, sizeof(ip));
	uint64_t next = UINT64_MAX, now = clock_steady_ns();
	const struct reply *last = NULL;

	row_begin(row);
	msg_id_text(m->id, id);
	log_str(row, "id", id);
	log_str(row, "state", state_name(m));
	log_seconds(row, "age_s", m->env.arrived_ns, now);
	log_u64(row, "size", m->body_len);
	log_span(row, "sender", m->env.sender);
	log_u64(row, "rcpts", m->env.nrcpt);
	log_u64(row, "open", m->open_rcpts);
	ip_write(m->env.client_ip, &o);
	log_span(row, "client", out_span(&o));
	for (uint32_t i = 0; i < m->env.nrcpt; i++) {
		if (m->rcpt[i].state != RCPT_QUEUED)
			continue;
		if (m->rcpt[i].next_ns < next)
			next = m->rcpt[i].next_ns;
		if (m->rcpt[i].last)
			last = m->rcpt[i].last;
	}
	if (next != UINT64_MAX)
		log_seconds(row, "next_s", now, next);
	if (m->env.nrcpt)
		log_span(row, "to", m->env.rcpt[0].addr);
	if (m->state == MSG_HELD) {
		log_span(row, "reason", m->hold_reason);
	} else if (last) {
		char text[REPLY_TEXT_MAX + 32];
		struct out t = out_of(text, sizeof(text));

		reply_line(last, &t);
		log_span(row, "reason", span_of(text, t.n > 300 ? 300 : t.n));
	}
}

static void row_rcpt(struct logline *row, const struct store_msg *m, uint32_t i)
{
	static const char *const name[] = { [RCPT_QUEUED] = "queued", [RCPT_DELIVERED] = "delivered", [RCPT_BOUNCED] = "bounced",
		[RCPT_DELETED] = "deleted", [RCPT_DROPPED] = "dropped" };
	const struct store_rcpt_state *r = &m->rcpt[i];
	char text[REPLY_TEXT_MAX + 32];
	struct out o = out_of(text, sizeof(text));

	row_begin(row);
	log_span(row, "rcpt", m->env.rcpt[i].addr);
	log_str(row, "state", r->busy ? "active" : r->state == RCPT_QUEUED && r->attempts ? "deferred" : name[r->state]);
	log_u64(row, "attempts", r->attempts);
	if (r->state == RCPT_QUEUED && r->attempts)
		log_seconds(row, "next_s", clock_steady_ns(), r->next_ns);
	if (r->last) {
		reply_line(r->last, &o);
		log_span(row, "reply", out_span(&o));
	}
}

static bool domain_matches(const struct store_msg *m, const char *domain)
{
	char at[ADDRESS_DOMAIN_MAX + 2];

	snprintf(at, sizeof(at), "@%s", domain);
	for (uint32_t i = 0; i < m->env.nrcpt; i++)
		if (m->rcpt[i].state == RCPT_QUEUED && span_ends_nocase(m->env.rcpt[i].addr, span_str(at)))
			return true;
	return false;
}

static bool msg_matches(const struct asker *a, const struct store_msg *m)
{
	const char *state = arg(a, "state"), *domain = arg(a, "domain"), *sender = arg(a, "sender");

	return m->open_rcpts && (!state || strcmp(state, state_name(m)) == 0) && (!domain || domain_matches(m, domain)) &&
		(!sender || span_eq_nocase(m->env.sender, span_str(sender)));
}

/* ---- commands ---- */

static const char *cmd_status(struct command *c, struct asker *a)
{
	struct worker *w = c->w;
	struct logline row;

	row_begin(&row);
	log_str(&row, "kind", "worker");
	log_u64(&row, "index", w->opt->index);
	log_u64(&row, "pid", (uint64_t)getpid());
	log_u64(&row, "generation", w->cfg->snap.h->generation);
	log_u64(&row, "tables", c->w->tables.h ? c->w->tables.h->generation : 0);
	log_str(&row, "transport", w->cfg->set->transport == NET_DPDK ? "dpdk" : "io_uring");
	log_str(&row, "defer_taskrun", w->uring.defer_taskrun ? "yes" : "no");
	log_u64(&row, "sessions", inbound_sessions(w));
	log_str(&row, "accepts", w->gate.aside ? "no, another worker does" : w->gate.closed ? "paused" : "yes");
	log_str(&row, "starttls", w->cfg->tls_server ? "yes" : "no");
	answer_row(a, &row);
	for (uint32_t i = 0; i < w->nstore; i++) {
		row_begin(&row);
		log_str(&row, "kind", "spool");
		store_describe(w->store[i], &row);
		answer_row(a, &row);
	}
	row_begin(&row);
	scan_describe(w->scan, &row);
	answer_row(a, &row);
	row_begin(&row);
	log_str(&row, "kind", "redis");
	log_str(&row, "up", shared_is_up(w->shared) ? "yes" : "no");
	log_u64(&row, "fallbacks", counter_get(C_REDIS_FALLBACKS));
	answer_row(a, &row);
	return NULL;
}

/* What is in the queue, as short as it can be said: for weirctl ledger, a slice a request. */
static const char *cmd_queue_index(struct command *c, struct asker *a)
{
	static const char *const name[] = { [MSG_PENDING] = "scanning", [MSG_QUEUED] = "queued", [MSG_HELD] = "held" };
	const char *which = arg(a, "store"), *from = arg(a, "pos");
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
	answer_row(a, &row);
	for (; n < INDEX_A_TURN && store_next(c->w->store[k], &pos, &r); n++) {
		char id[MSG_ID_TEXT + 1];

		msg_id_text(r.id, id);
		row_begin(&row);
		log_str(&row, "id", id);
		log_u64(&row, "open", r.open);
		log_str(&row, "state", name[r.state]);
		answer_row(a, &row);
	}
	if (n < INDEX_A_TURN)
		return NULL;
	row_begin(&row);
	log_u64(&row, "next", pos);
	answer_row(a, &row);
	return NULL;
}

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
	answer_row(a, &row);
}

static void show(struct asker *a, const struct store_msg *m)
{
	struct logline row;

	row_msg(&row, m);
	answer_row(a, &row);
	for (uint32_t i = 0; a->whole && i < m->env.nrcpt; i++) {
		row_rcpt(&row, m, i);
		answer_row(a, &row);
	}
}

static struct span by_of(const struct asker *a)
{
	const char *by = arg(a, "by");

	return span_str(by ? by : "operator");
}

/* What the asker wants of a message that is there to be seen; an order is carried out only on one that is awake. */
static void visit(struct asker *a, const struct store_msg *m)
{
	uint64_t id = m->id;

	if (!a->left || (!a->whole && !arg(a, "id") && !msg_matches(a, m)))
		return;
	a->left--;
	if (a->act)
		row_done(a, id, act_on(store_find(m->store, id), a->act, by_of(a)));
	else
		show(a, m);
}

static bool may_match(const struct asker *a, const struct store_row *row)
{
	const char *state = arg(a, "state");
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
	answer_row(a, &row);
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

static void asker_send(struct command *c, struct asker *a);

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
	answer_end(a, NULL);
	asker_send(c, a);
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

static const char *walk_begin(struct asker *a, const char *act)
{
	const char *limit = arg(a, "limit"), *after = arg(a, "after"), *id = arg(a, "id"), *error = NULL;

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

static void rate_row(struct asker *a, const struct rate_answer *ra)
{
	const struct rate_rule *rule = &a->rule;
	struct logline row;

	row_begin(&row);
	log_str(&row, "key", arg(a, "key"));
	log_f(&row, "limit", "%g", rule->limit);
	log_u64(&row, "period_s", rule->period_ns / NS_PER_S);
	log_str(&row, "source", rule->source);
	if (rule->line)
		log_u64(&row, "line", rule->line);
	log_str(&row, "mode", rule->mode);
	log_f(&row, "rate", "%.3f", ra->rate);
	log_f(&row, "next_allowed_s", "%.0f", rate_wait_s(&(struct rate_state){ .r = ra->rate, .known = true }, 0,
		(double)rule->period_ns / 1e9, rule->limit));
	log_str(&row, "backend", ra->local ? "local" : "redis");
	answer_row(a, &row);
}

static void on_rate(void *ctx, const struct rate_answer *ra)
{
	struct asker *a = ctx;

	a->query = NULL;
	rate_row(a, ra);
	answer_end(a, NULL);
	asker_send(a->command, a);
}

/* Messages of a client host, or of a user who logged in (A8). */
static void message_rule(const struct config *cfg, struct policy_facts *f, struct rate_rule *ret)
{
	const struct snap_settings *set = cfg->set;

	f->net = f->auth_user.n ? NULL : snap_find_net(f->snap, f->client_ip);
	*ret = (struct rate_rule){ .limit = policy_rate_limit(f), .period_ns = set->rate_period_ns, .source = "rates.limit",
		.mode = policy_mode_words[policy_mode(f, RULE_RATE)] };
	if (!f->auth_user.n && !f->net)
		ret->source = "none (outside client)";
	if (f->net && f->net->rate_limit >= 0)
		ret->source = "relay_clients";
	if (f->net)
		ret->line = f->net->line;
}

/* Fills the rule that a key counts for, and writes the key as it is counted. False: there is no such key. */
static bool rate_rule(const struct config *cfg, const char *key, struct rate_rule *ret, struct out *o)
{
	const struct snap_settings *set = cfg->set;
	const char *slash = strchr(key, '/');
	struct span kind = span_of(key, slash ? (size_t)(slash - key) : 0), what = span_str(slash ? slash + 1 : "");
	struct policy_facts f = { .snap = &cfg->snap };
	bool ip = ip_parse(what, f.client_ip) == ST_OK;

	*ret = (struct rate_rule){ .period_ns = set->auth_period_ns, .mode = "defer" };
	if (span_eq(kind, SPAN("auth-client")) && ip) {
		ret->limit = set->auth_client_limit;
		ret->source = "auth.failures_per_client";
		auth_client_key(f.client_ip, o);
	} else if (span_eq(kind, SPAN("auth-user")) && what.n) {
		ret->limit = set->auth_user_limit;
		ret->source = "auth.failures_per_user";
		auth_user_key(what, o);
	} else if (span_eq(kind, SPAN("bad")) && ip) {
		ret->limit = set->bad_refuse;
		ret->period_ns = set->bad_period_ns;
		ret->source = "dictionary.refuse_after";
		ret->mode = "reject";
		out_str(o, key);
	} else if ((span_eq(kind, SPAN("client")) && ip) || (span_eq(kind, SPAN("user")) && what.n)) {
		f.auth_user = span_eq(kind, SPAN("user")) ? what : SPAN_NONE;
		message_rule(cfg, &f, ret);
		out_str(o, key);
	} else {
		return false;
	}
	return !o->over;
}

static const char *cmd_rate_explain(struct command *c, struct asker *a)
{
	const char *key = arg(a, "key");
	char text[512];
	struct out o = out_of(text, sizeof(text));
	struct rate_answer ra;

	if (!key || !rate_rule(c->w->cfg, key, &a->rule, &o))
		return "key is client/ADDRESS, user/NAME, auth-client/ADDRESS, auth-user/NAME or bad/ADDRESS";
	if (shared_rate(c->w->shared, out_span(&o), 0, a->rule.limit, a->rule.period_ns, false, on_rate, a, &ra, &a->query) == ST_OK)
		rate_row(a, &ra);
	else
		a->waits = true;
	return NULL;
}

static void on_explained(void *ctx, struct logline *row)
{
	answer_row(ctx, row);
}

static void on_shown(void *ctx)
{
	struct asker *a = ctx;

	a->query = NULL;
	answer_end(a, NULL);
	asker_send(a->command, a);
}

static void on_dns(void *ctx, struct dns_answer *answer)
{
	struct asker *a = ctx;

	a->dns = NULL;
	ask_dns_rows(answer, on_explained, a);
	dns_answer_release(answer);
	answer_end(a, NULL);
	asker_send(a->command, a);
}

static const char *cmd_verify_show(struct command *c, struct asker *a)
{
	const char *error;

	a->show = (struct verify_show){ .row = on_explained, .end = on_shown, .ctx = a };
	error = verify_show_begin(c->w, arg(a, "what"), &a->show, &a->query);
	a->waits = !error;
	return error;
}

static const char *cmd_dns(struct command *c, struct asker *a)
{
	struct dns_answer *answer = NULL;
	const char *error = ask_dns(c->w->dns, arg(a, "type"), arg(a, "name"), on_dns, a, &answer, &a->dns);

	if (error)
		return error;
	if (!answer) {
		a->waits = true;
		return NULL;
	}
	ask_dns_rows(answer, on_explained, a);
	dns_answer_release(answer);
	return NULL;
}

/* What is behind the row of the request is the text. */
static const char *cmd_notice(struct command *c, struct asker *a)
{
	struct span text = span_of(a->request, a->request_len);

	span_cut(&text, '\n');
	return notice_send(c->w, arg(a, "to"), arg(a, "subject"), text);
}

static const char *dispatch(struct command *c, struct asker *a)
{
	const char *cmd = arg(a, "cmd");

	if (!cmd)
		return "no cmd= in the request";
	if (strcmp(cmd, "status") == 0)
		return cmd_status(c, a);
	if (strcmp(cmd, "queue.index") == 0)
		return cmd_queue_index(c, a);
	if (strcmp(cmd, "queue.list") == 0)
		return walk_begin(a, NULL);
	if (strcmp(cmd, "queue.show") == 0)
		return arg(a, "id") ? walk_begin(a, NULL) : "id is missing";
	for (const char *const *act = (const char *const[]){ "retry", "hold", "release", "delete", NULL }; *act; act++)
		if (strncmp(cmd, "queue.", 6) == 0 && strcmp(cmd + 6, *act) == 0)
			return arg(a, "id") || arg(a, "all") ? walk_begin(a, *act) : "id or all is missing";
	if (strcmp(cmd, "rate.explain") == 0)
		return cmd_rate_explain(c, a);
	if (strcmp(cmd, "verify.show") == 0)
		return cmd_verify_show(c, a);
	if (strcmp(cmd, "verify.forget") == 0)
		return verify_forget(c->w, arg(a, "what"));
	if (strcmp(cmd, "dns") == 0)
		return cmd_dns(c, a);
	if (strcmp(cmd, "notice") == 0)
		return cmd_notice(c, a);
	if (strcmp(cmd, "route") == 0)
		return explain_route(c->w, arg(a, "addr"), arg(a, "client"), on_explained, a);
	return "no such command";
}

/* ---- the socket ---- */

static void accept_arm(struct command *c)
{
	struct io_uring_sqe *sqe = uring_sqe(&c->w->uring);

	io_uring_prep_accept(sqe, c->listen_fd, NULL, NULL, SOCK_CLOEXEC);
	uring_tag(sqe, URING_CTL, OP_ACCEPT, 0, 0);
}

static void asker_new(struct command *c, int fd)
{
	struct io_uring_sqe *sqe;
	struct asker *a;
	uint32_t i;

	for (i = 0; i < ASKERS && c->asker[i].used; i++)
		;
	if (i == ASKERS) {
		close(fd);
		return;
	}
	a = &c->asker[i];
	*a = (struct asker){ .command = c, .fd = fd, .gen = a->gen, .used = true };
	sqe = uring_sqe(&c->w->uring);
	io_uring_prep_recv(sqe, fd, a->request, sizeof(a->request), 0);
	uring_tag(sqe, URING_CTL, OP_REQUEST, i, a->gen);
}

static void on_request(struct command *c, struct asker *a, int n)
{
	struct span text = span_of(a->request, n > 0 ? (size_t)n : 0);
	const char *error;

	if (n <= 0) {
		asker_close(a);
		return;
	}
	a->request_len = (size_t)n;
	error = parse_request(a, span_cut(&text, '\n')) ? dispatch(c, a) : "the request is not a row of key=value";
	if (a->waits)
		return;
	answer_end(a, error);
	asker_send(c, a);
}

static void on_completion(void *ctx, const struct uring_event *ev)
{
	struct command *c = ctx;
	struct asker *a = &c->asker[ev->slot % ASKERS];

	if (ev->op == OP_ACCEPT) {
		c->accept_rests = ev->res < 0;
		if (ev->res >= 0) {
			asker_new(c, ev->res);
			accept_arm(c);
		}
		return;
	}
	if (!a->used || (a->gen & 0xffffff) != ev->gen)
		return;
	if (ev->op == OP_REQUEST) {
		on_request(c, a, ev->res);
	} else if (ev->res < 0) {
		asker_close(a);
	} else {
		a->sent += a->packet;
		asker_send(c, a);
	}
}

void command_tick(struct worker *w)
{
	if (w->command->accept_rests)
		accept_arm(w->command);
	w->command->accept_rests = false;
}

enum status command_new(struct worker *w, struct command **ret)
{
	struct command *c = calloc(1, sizeof(*c));
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int n = snprintf(a.sun_path, sizeof(a.sun_path), "%s/command-%u", w->opt->run_dir, w->opt->index);
	enum status st;

	if (!c)
		return ST_NOMEM;
	c->w = w;
	c->listen_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (n < 0 || (size_t)n >= sizeof(a.sun_path))
		errno = ENAMETOOLONG;
	else if (c->listen_fd >= 0) {
		mode_t old = umask(0177);

		unlink(a.sun_path);
		n = bind(c->listen_fd, (struct sockaddr *)&a, sizeof(a));
		umask(old);
		if (n == 0 && listen(c->listen_fd, ASKERS) == 0) {
			uring_handle(&w->uring, URING_CTL, on_completion, c);
			accept_arm(c);
			*ret = c;
			return ST_OK;
		}
	}
	st = trail_errno(errno, "%s", a.sun_path);
	if (c->listen_fd >= 0)
		close(c->listen_fd);
	free(c);
	return st;
}

void command_free(struct command *c)
{
	if (!c)
		return;
	for (uint32_t i = 0; i < ASKERS; i++)
		if (c->asker[i].used)
			asker_close(&c->asker[i]);
	shutdown(c->listen_fd, SHUT_RDWR);
	close(c->listen_fd);
	free(c);
}
