#include "dataplane/lookup/shared_internal.h"

#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include "dataplane/lookup/rate_lua.h"
#include "spool/base/clock.h"
#include "spool/base/counters.h"

#define RECONNECT_NS (1 * NS_PER_S)

enum { OP_IN, OP_OUT };

/* ---- local counting ---- */

static void local_rate(struct shared *s, const struct shared_query *q, struct rate_answer *ret)
{
	struct span key = span_of(q->key, q->key_len);
	struct local *l = map_get(s->local, key);
	double now = (double)clock_steady_ns() / 1e9;
	struct rate_state none = { 0 };

	if (l) {
		TAILQ_REMOVE(&s->lru, l, entry);
		TAILQ_INSERT_TAIL(&s->lru, l, entry);
	} else if (q->weight > 0 && (l = calloc(1, sizeof(*l) + key.n))) {
		memcpy(l->key, key.p, key.n);
		l->key_len = key.n;
		if (map_set(s->local, key, l) != ST_OK) {
			free(l);
			l = NULL;
		} else {
			TAILQ_INSERT_TAIL(&s->lru, l, entry);
		}
	}
	ret->rate = rate_event(l ? &l->state : &none, now, q->weight, (double)q->period_ns / 1e9, q->limit, q->leaky, &ret->over);
	ret->local = true;
	if (map_len(s->local) > s->cfg.local_max) {
		struct local *old = TAILQ_FIRST(&s->lru);

		TAILQ_REMOVE(&s->lru, old, entry);
		map_del(s->local, span_of(old->key, old->key_len));
		free(old);
	}
}

/* ---- polls ---- */

static void poll_arm(struct shared *s, bool out)
{
	struct io_uring_sqe *sqe;
	bool *armed = out ? &s->polling_out : &s->polling_in;

	if (*armed || !s->redis)
		return;
	*armed = true;
	sqe = uring_sqe(s->uring);
	io_uring_prep_poll_add(sqe, s->redis->c.fd, out ? POLLOUT : POLLIN);
	uring_tag(sqe, URING_REDIS, out ? OP_OUT : OP_IN, 0, s->gen);
}

static void add_read(void *p)
{
	struct shared *s = p;

	s->want_read = true;
	poll_arm(s, false);
}

static void del_read(void *p)
{
	((struct shared *)p)->want_read = false;
}

/* Commands are gathered and written once a turn (shared_turn); only while connecting, or when the socket is full, writability is waited for. */
static void add_write(void *p)
{
	struct shared *s = p;

	s->want_write = true;
	if (!s->up)
		poll_arm(s, true);
}

static void del_write(void *p)
{
	((struct shared *)p)->want_write = false;
}

static void forget_connection(struct shared *s)
{
	s->redis = NULL;
	s->up = s->connecting = s->want_read = s->want_write = false;
	s->polling_in = s->polling_out = false;
	s->gen = (s->gen + 1) & 0xffffff;
	s->retry_at_ns = clock_mono_ns() + RECONNECT_NS;
	counter_set(C_REDIS_UP, 0);
}

static void cleanup(void *p)
{
	(void)p;
}

static void on_completion(void *ctx, const struct uring_event *ev)
{
	struct shared *s = ctx;

	if (ev->gen != s->gen || !s->redis)
		return;
	if (ev->op == OP_IN)
		s->polling_in = false;
	else
		s->polling_out = false;
	if (ev->op == OP_IN && s->want_read)
		redisAsyncHandleRead(s->redis);
	else if (ev->op == OP_OUT && s->want_write)
		redisAsyncHandleWrite(s->redis);
	if (s->redis && s->want_read)
		poll_arm(s, false);
}

/* ---- connection ---- */

static void on_script(redisAsyncContext *c, void *reply, void *priv)
{
	struct shared *s = c->data;
	redisReply *r = reply;

	(void)priv;
	if (!r)
		return;
	if (r->type != REDIS_REPLY_STRING || r->len != 40) {
		redisAsyncDisconnect(c); /* not a Redis that runs scripts: tried again later */
		return;
	}
	memcpy(s->sha, r->str, 41);
	s->up = true;
	s->connecting = false;
	counter_set(C_REDIS_UP, 1);
}

static void on_connect(const redisAsyncContext *c, int status)
{
	struct shared *s = c->data;

	if (status != REDIS_OK) {
		forget_connection(s); /* hiredis frees the context */
		return;
	}
	redisAsyncCommand(s->redis, on_script, NULL, "SCRIPT LOAD %b", rate_lua, sizeof(rate_lua) - 1);
}

static void on_disconnect(const redisAsyncContext *c, int status)
{
	(void)status;
	forget_connection(c->data);
}

static void try_connect(struct shared *s)
{
	redisAsyncContext *c;

	if (strncmp(s->where, "unix:", 5) == 0) {
		c = redisAsyncConnectUnix(s->where + 5);
	} else {
		char host[256];
		const char *colon = strrchr(s->where, ':');

		snprintf(host, sizeof(host), "%.*s", (int)(colon ? colon - s->where : (long)strlen(s->where)), s->where);
		c = redisAsyncConnect(host, colon ? atoi(colon + 1) : 6379);
	}
	s->retry_at_ns = clock_mono_ns() + RECONNECT_NS;
	if (!c || c->err) {
		if (c)
			redisAsyncFree(c);
		return;
	}
	s->redis = c;
	s->connecting = true;
	c->data = s;
	c->ev.data = s;
	c->ev.addRead = add_read;
	c->ev.delRead = del_read;
	c->ev.addWrite = add_write;
	c->ev.delWrite = del_write;
	c->ev.cleanup = cleanup;
	redisAsyncSetConnectCallback(c, on_connect); /* arms a write */
	redisAsyncSetDisconnectCallback(c, on_disconnect);
}

enum status shared_new(struct uring *u, const struct shared_config *cfg, struct shared **ret)
{
	struct shared *s = calloc(1, sizeof(*s));

	if (!s)
		return ST_NOMEM;
	s->uring = u;
	s->cfg = *cfg;
	s->where = strdup(cfg->redis ? cfg->redis : "");
	TAILQ_INIT(&s->waiting);
	TAILQ_INIT(&s->lru);
	if (!s->where || map_new(&s->local) != ST_OK) {
		free(s->where);
		free(s);
		return ST_NOMEM;
	}
	uring_handle(u, URING_REDIS, on_completion, s);
	if (*s->where)
		try_connect(s);
	*ret = s;
	return ST_OK;
}

void shared_query_unwait(struct shared_query *q)
{
	if (!q->waiting)
		return;
	q->waiting = false;
	TAILQ_REMOVE(&q->s->waiting, q, entry);
}

void shared_query_wait(struct shared_query *q)
{
	q->waiting = true;
	TAILQ_INSERT_TAIL(&q->s->waiting, q, entry);
}

void shared_free(struct shared *s)
{
	struct shared_query *q;
	struct local *l;

	if (!s)
		return;
	while ((q = TAILQ_FIRST(&s->waiting)))
		shared_query_unwait(q); /* freed by hiredis's last callbacks */
	if (s->redis) {
		redisAsyncContext *c = s->redis;

		redisAsyncFree(c);
	}
	uring_handle(s->uring, URING_REDIS, NULL, NULL);
	while ((l = TAILQ_FIRST(&s->lru))) {
		TAILQ_REMOVE(&s->lru, l, entry);
		free(l);
	}
	map_free(s->local);
	free(s->where);
	free(s);
}

/* ---- queries ---- */

struct shared_query *shared_query_new(struct shared *s, struct span key, void *ctx)
{
	struct shared_query *q = calloc(1, sizeof(*q));

	if (!q)
		return NULL;
	q->s = s;
	q->ctx = ctx;
	q->key_len = key.n < SHARED_KEY_MAX ? key.n : SHARED_KEY_MAX;
	memcpy(q->key, key.p, q->key_len);
	q->deadline_ns = clock_mono_ns() + s->cfg.budget_ns;
	return q;
}

static void answer_locally(struct shared_query *q)
{
	struct rate_answer a;

	shared_query_unwait(q);
	counter_add(C_REDIS_FALLBACKS, 1);
	if (q->rate) {
		local_rate(q->s, q, &a);
		q->rate(q->ctx, &a);
	} else if (q->value) {
		q->value(q->ctx, NULL);
	} else {
		q->claim(q->ctx, SHARED_CLAIM_NOBODY);
	}
}

static void on_rate_reply(redisAsyncContext *c, void *reply, void *priv)
{
	struct shared_query *q = priv;
	redisReply *r = reply;
	struct rate_answer a = { 0 };

	(void)c;
	if (q->waiting) {
		if (r && r->type == REDIS_REPLY_ARRAY && r->elements == 2 && r->element[0]->type == REDIS_REPLY_STRING &&
			r->element[1]->type == REDIS_REPLY_INTEGER) {
			shared_query_unwait(q);
			a.rate = strtod(r->element[0]->str, NULL);
			a.over = r->element[1]->integer != 0;
			q->rate(q->ctx, &a);
		} else {
			if (r && r->type == REDIS_REPLY_ERROR && strncmp(r->str, "NOSCRIPT", 8) == 0)
				redisAsyncCommand(c, on_script, NULL, "SCRIPT LOAD %b", rate_lua, sizeof(rate_lua) - 1);
			answer_locally(q);
		}
	}
	free(q);
}

/* Runs the script for q; false when it cannot be said to Redis. */
static bool send_rate(struct shared *s, const struct shared_query *q, redisCallbackFn *fn, void *priv)
{
	char name[SHARED_KEY_MAX + 32], now[32], c[32], p[32], m[32];
	struct out o = out_of(name, sizeof(name));

	out_str(&o, "weir:rate:{");
	out_add(&o, span_of(q->key, q->key_len));
	out_char(&o, '}');
	snprintf(now, sizeof(now), "%.6f", (double)clock_steady_ns() / 1e9);
	snprintf(c, sizeof(c), "%.17g", q->weight);
	snprintf(p, sizeof(p), "%.17g", (double)q->period_ns / 1e9);
	snprintf(m, sizeof(m), "%.17g", q->limit);
	return redisAsyncCommand(s->redis, fn, priv, "EVALSHA %s 1 %b %s %s %s %s %s", s->sha, name, o.n, now, c, p, m, q->leaky ? "1" : "0") ==
		REDIS_OK;
}

void shared_rate_undo(struct shared *s, struct span key, double weight, uint64_t period_ns)
{
	struct shared_query q = { .weight = -weight, .period_ns = period_ns, .key_len = key.n < SHARED_KEY_MAX ? key.n : SHARED_KEY_MAX };
	struct rate_answer a;

	memcpy(q.key, key.p, q.key_len);
	local_rate(s, &q, &a);
	if (s->up && send_rate(s, &q, NULL, NULL))
		counter_add(C_REDIS_CALLS, 1);
}

enum status shared_rate(struct shared *s, struct span key, double weight, double limit, uint64_t period_ns, bool leaky, rate_fn *fn,
	void *ctx, struct rate_answer *ret, struct shared_query **ret_query)
{
	struct shared_query *q = shared_query_new(s, key, ctx);

	*ret_query = NULL;
	if (!q) {
		*ret = (struct rate_answer){ .local = true };
		return ST_OK;
	}
	q->rate = fn;
	q->weight = weight;
	q->limit = limit;
	q->period_ns = period_ns;
	q->leaky = leaky;
	if (!s->up || !send_rate(s, q, on_rate_reply, q))
		goto local;
	counter_add(C_REDIS_CALLS, 1);
	shared_query_wait(q);
	*ret_query = q;
	return ST_AGAIN;
local:
	if (*s->where)
		counter_add(C_REDIS_FALLBACKS, 1);
	local_rate(s, q, ret);
	free(q);
	return ST_OK;
}

void shared_cancel(struct shared_query *q)
{
	shared_query_unwait(q); /* the reply, or the end of the connection, frees it */
}

bool shared_is_up(const struct shared *s)
{
	return s->up;
}

void shared_turn(struct shared *s, uint64_t now_ns, uint64_t *ret_wait_ns)
{
	struct shared_query *q;

	*ret_wait_ns = UINT64_MAX;
	while ((q = TAILQ_FIRST(&s->waiting)) && q->deadline_ns <= now_ns)
		answer_locally(q);
	if (s->redis && s->up && s->want_write) {
		redisAsyncHandleWrite(s->redis);
		if (s->redis && s->want_write)
			poll_arm(s, true);
	}
	if (!s->redis && *s->where) {
		if (s->retry_at_ns <= now_ns)
			try_connect(s);
		if (!s->redis)
			*ret_wait_ns = s->retry_at_ns > now_ns ? s->retry_at_ns - now_ns : 0;
	}
	q = TAILQ_FIRST(&s->waiting);
	if (q) {
		uint64_t wait = q->deadline_ns > now_ns ? q->deadline_ns - now_ns : 0;

		*ret_wait_ns = wait < *ret_wait_ns ? wait : *ret_wait_ns;
	}
}
