#include "control/nodes.h"

#include <hiredis/hiredis.h>
#include <stdio.h>
#include <stdlib.h>
#include <xxhash.h>
#include "spool/base/clock.h"
#include "spool/base/log.h"

enum { EVERY_S = 10, LIMIT_US = 100000 };

/* One key for all, so that one server of a Redis cluster has it; Redis' clock, so that those of nodes need not agree. Forgotten a week after the last node spoke. */
static const char key[] = "weir:{nodes}";
static const char put_lua[] = "redis.call('HSET', KEYS[1], ARGV[1], redis.call('TIME')[1] .. ' ' .. ARGV[2]) "
			      "redis.call('EXPIRE', KEYS[1], 604800) return 1";
static const char all_lua[] = "local a = redis.call('HGETALL', KEYS[1]) table.insert(a, 1, redis.call('TIME')[1]) return a";

/* ---- what tables say ---- */

static void add(XXH3_state_t *x, struct span s)
{
	XXH3_64bits_update(x, s.p, s.n);
	XXH3_64bits_update(x, "\n", 1);
}

static void add_targets(XXH3_state_t *x, const struct tables *t, uint32_t first, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		add(x, tables_span(t, t->target[first + i].addr));
}

uint64_t nodes_digest(const struct tables *t)
{
	XXH3_state_t *x = XXH3_createState();
	uint64_t digest;

	CHECK(x && XXH3_64bits_reset(x) == XXH_OK);
	for (uint64_t i = 0; t->h && i < t->h->domains.n; i++) {
		const struct tables_domain *d = &t->domain[i];
		char kind[2] = { (char)('A' + d->kind), (char)('0' + d->deliver_unlisted) };

		add(x, tables_span(t, d->name));
		add(x, span_of(kind, sizeof(kind)));
		add(x, d->kind == DOMAIN_LONG_FORM ? tables_span(t, t->domain[d->short_form].name) : tables_span(t, d->text));
		add_targets(x, t, d->first_target, d->ntargets);
		for (uint32_t k = 0; k < d->naliases; k++) {
			const struct tables_alias *a = &t->alias[d->first_alias + k];

			add(x, tables_span(t, a->name));
			add_targets(x, t, a->first_target, a->ntargets);
			XXH3_64bits_update(x, "\n", 1);
		}
	}
	digest = t->h ? XXH3_64bits_digest(x) : 0;
	XXH3_freeState(x);
	return digest;
}

/* ---- Redis ---- */

static redisContext *redis_open(const struct snapshot *s)
{
	const char *where = snap_cstr(s, s->h->settings.redis), *colon = strrchr(where, ':');
	struct timeval limit = { .tv_usec = LIMIT_US };
	redisContext *c;
	char host[256];

	if (strncmp(where, "unix:", 5) == 0) {
		c = redisConnectUnixWithTimeout(where + 5, limit);
	} else {
		snprintf(host, sizeof(host), "%.*s", (int)(colon ? colon - where : (long)strlen(where)), where);
		c = redisConnectWithTimeout(host, colon ? atoi(colon + 1) : 6379, limit);
	}
	if (c && !c->err && redisSetTimeout(c, limit) == REDIS_OK)
		return c;
	if (c)
		redisFree(c);
	return NULL;
}

static void tell(const struct snapshot *s, const struct node_row *own)
{
	redisContext *c = redis_open(s);
	char text[128];

	if (!c) /* weirctl status says so already */
		return;
	snprintf(text, sizeof(text), "%llu %llu %llu", (unsigned long long)own->generation, (unsigned long long)own->digest, (unsigned long long)own->made_s);
	freeReplyObject(redisCommand(c, "EVAL %s 1 %s %s %s", put_lua, key, own->name, text));
	redisFree(c);
}

void nodes_turn(const char *run_dir, const struct snapshot *s)
{
	static struct node_row own;
	static uint64_t next_ns;
	uint64_t current = tables_current(run_dir);
	struct tables t;

	if (!s->h || (clock_mono_ns() < next_ns && own.generation == current))
		return;
	next_ns = clock_mono_ns() + EVERY_S * NS_PER_S;
	snprintf(own.name, sizeof(own.name), "%s", snap_cstr(s, s->h->settings.node));
	if (own.generation != current || !own.digest) {
		if (!current || tables_open_current(run_dir, &t) != ST_OK)
			t = (struct tables){ 0 };
		own.generation = current;
		own.digest = nodes_digest(&t);
		own.made_s = t.h ? t.h->made_wall_ns / NS_PER_S : 0;
		if (t.h)
			tables_close(&t);
	}
	tell(s, &own);
}

/* ---- all nodes ---- */

static bool read_row(const redisReply *name, const redisReply *value, uint64_t now, struct node_row *ret)
{
	struct span rest = span_of(value->str, value->len), field[4];
	uint64_t number[4];

	for (int i = 0; i < 4; i++) {
		field[i] = span_cut(&rest, ' ');
		if (!span_u64(field[i], UINT64_MAX, &number[i]))
			return false;
	}
	snprintf(ret->name, sizeof(ret->name), "%.*s", (int)name->len, name->str);
	for (char *p = ret->name; *p; p++)
		if (*p < ' ' || *p > '~')
			*p = '?'; /* it goes to terminals */
	ret->silent_s = now > number[0] ? now - number[0] : 0;
	ret->generation = number[1];
	ret->digest = number[2];
	ret->made_s = number[3];
	return true;
}

static void take_all(const redisReply *r, node_fn *fn, void *ctx)
{
	struct node_row row;
	uint64_t now;

	if (!r->elements || r->element[0]->type != REDIS_REPLY_STRING || !span_u64(span_of(r->element[0]->str, r->element[0]->len), UINT64_MAX, &now))
		return;
	for (size_t i = 1; i + 1 < r->elements; i += 2)
		if (r->element[i]->type == REDIS_REPLY_STRING && r->element[i + 1]->type == REDIS_REPLY_STRING &&
			read_row(r->element[i], r->element[i + 1], now, &row))
			fn(ctx, &row);
}

enum status nodes_each(const struct snapshot *s, node_fn *fn, void *ctx)
{
	redisContext *c = redis_open(s);
	redisReply *r = c ? redisCommand(c, "EVAL %s 1 %s", all_lua, key) : NULL;
	bool ok = r && r->type == REDIS_REPLY_ARRAY;

	if (ok)
		take_all(r, fn, ctx);
	freeReplyObject(r);
	if (c)
		redisFree(c);
	return ok ? ST_OK : trail(ST_IO, "Redis does not answer");
}
