#include "dataplane/lookup/shared_internal.h"

#include <stdlib.h>
#include "spool/base/clock.h"
#include "spool/base/counters.h"

enum { NAME_MAX_LEN = 2 * SHARED_KEY_MAX + 32 };

/* What comes back is as long as others have made it; what is longer than this is none of ours, and reads as empty. */
enum { VALUE_MAX = 4096 };

/* weir:{TAG}NAME. A brace in a tag shortens what the cluster hashes, for every name of the tag alike. */
static struct span key_of(char *buf, struct span tag, struct span name)
{
	struct out o = out_of(buf, NAME_MAX_LEN);

	out_str(&o, "weir:{");
	out_add(&o, tag);
	out_char(&o, '}');
	out_add(&o, name);
	return o.over ? SPAN_NONE : out_span(&o);
}

static struct span value_of(const redisReply *r)
{
	if (r->type != REDIS_REPLY_STRING)
		return SPAN_NONE;
	return r->len <= VALUE_MAX ? span_of(r->str, r->len) : SPAN("");
}

static void on_values(redisAsyncContext *c, void *reply, void *priv)
{
	struct shared_query *q = priv;
	const redisReply *r = reply;
	struct span v[SHARED_VALUES_MAX];

	(void)c;
	if (q->waiting) {
		bool good = r && r->type == REDIS_REPLY_ARRAY && r->elements == q->n;

		for (unsigned i = 0; good && i < q->n; i++)
			v[i] = value_of(r->element[i]);
		shared_query_unwait(q);
		q->value(q->ctx, good ? v : NULL);
	}
	free(q);
}

enum status shared_get(struct shared *s, struct span tag, const struct span *names, unsigned n, value_fn *fn, void *ctx, struct shared_query **ret_query)
{
	struct shared_query *q = s->up ? shared_query_new(s, tag, ctx) : NULL;
	char buf[SHARED_VALUES_MAX][NAME_MAX_LEN];
	const char *argv[SHARED_VALUES_MAX + 1] = { "MGET" };
	size_t len[SHARED_VALUES_MAX + 1] = { 4 };

	CHECK(n && n <= SHARED_VALUES_MAX);
	*ret_query = NULL;
	if (!q)
		return ST_NOT_FOUND;
	q->value = fn;
	q->n = n;
	for (unsigned i = 0; i < n; i++) {
		struct span key = key_of(buf[i], tag, names[i]);

		argv[i + 1] = key.p ? key.p : "";
		len[i + 1] = key.n;
	}
	if (redisAsyncCommandArgv(s->redis, on_values, q, (int)n + 1, argv, len) != REDIS_OK) {
		free(q);
		return ST_NOT_FOUND;
	}
	counter_add(C_REDIS_CALLS, 1);
	shared_query_wait(q);
	*ret_query = q;
	return ST_AGAIN;
}

void shared_put(struct shared *s, struct span tag, struct span name, struct span value, uint64_t life_ns)
{
	char buf[NAME_MAX_LEN];
	struct span key = key_of(buf, tag, name);

	if (!s->up || !key.n || life_ns < NS_PER_MS)
		return;
	counter_add(C_REDIS_CALLS, 1);
	redisAsyncCommand(s->redis, NULL, NULL, "SET %b %b PX %llu", key.p, key.n, value.p, value.n, (unsigned long long)(life_ns / NS_PER_MS));
}

void shared_delete(struct shared *s, struct span tag, struct span name)
{
	char buf[NAME_MAX_LEN];
	struct span key = key_of(buf, tag, name);

	if (s->up && key.n)
		redisAsyncCommand(s->redis, NULL, NULL, "DEL %b", key.p, key.n);
}

static void on_claim(redisAsyncContext *c, void *reply, void *priv)
{
	struct shared_query *q = priv;
	const redisReply *r = reply;

	(void)c;
	if (q->waiting) {
		enum shared_claim what = SHARED_CLAIM_NOBODY;

		if (r && r->type == REDIS_REPLY_STATUS)
			what = SHARED_CLAIM_WON;
		else if (r && r->type == REDIS_REPLY_NIL)
			what = SHARED_CLAIM_LOST;
		shared_query_unwait(q);
		q->claim(q->ctx, what);
	}
	free(q);
}

enum status shared_claim(struct shared *s, struct span tag, struct span name, struct span token, uint64_t life_ns, claim_fn *fn, void *ctx,
	struct shared_query **ret_query)
{
	struct shared_query *q = s->up ? shared_query_new(s, tag, ctx) : NULL;
	char buf[NAME_MAX_LEN];
	struct span key = key_of(buf, tag, name);

	*ret_query = NULL;
	if (!q || !key.n) {
		free(q);
		return ST_NOT_FOUND;
	}
	q->claim = fn;
	if (redisAsyncCommand(s->redis, on_claim, q, "SET %b %b NX PX %llu", key.p, key.n, token.p, token.n,
		(unsigned long long)(life_ns / NS_PER_MS)) != REDIS_OK) {
		free(q);
		return ST_NOT_FOUND;
	}
	counter_add(C_REDIS_CALLS, 1);
	shared_query_wait(q);
	*ret_query = q;
	return ST_AGAIN;
}

void shared_release(struct shared *s, struct span tag, struct span name, struct span token)
{
	static const char script[] = "if redis.call('GET',KEYS[1])==ARGV[1] then return redis.call('DEL',KEYS[1]) end return 0";
	char buf[NAME_MAX_LEN];
	struct span key = key_of(buf, tag, name);

	if (s->up && key.n)
		redisAsyncCommand(s->redis, NULL, NULL, "EVAL %s 1 %b %b", script, key.p, key.n, token.p, token.n);
}
