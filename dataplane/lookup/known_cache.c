#include "dataplane/lookup/known_cache.h"

#include <stdlib.h>
#include <sys/queue.h>
#include "spool/base/map.h"

/* Most entries are a yes of a few octets: they are kept in their text form. */
struct entry {
	TAILQ_ENTRY(entry) entry; /* least recently used first */
	uint64_t read_ns;
	uint16_t key_len, value_len;
	char text[];              /* key, value; value_len 0: it is known that nothing is known */
};

struct known_cache {
	struct map *map;
	TAILQ_HEAD(, entry) lru;
	uint32_t max;
};

enum status known_cache_new(uint32_t max, struct known_cache **ret)
{
	struct known_cache *c = calloc(1, sizeof(*c));

	if (!c)
		return ST_NOMEM;
	if (map_new(&c->map) != ST_OK) {
		free(c);
		return ST_NOMEM;
	}
	TAILQ_INIT(&c->lru);
	c->max = max;
	*ret = c;
	return ST_OK;
}

static struct span key_of(const struct entry *e)
{
	return span_of(e->text, e->key_len);
}

static void entry_free(struct known_cache *c, struct entry *e)
{
	if (map_get(c->map, key_of(e)) == e)
		map_del(c->map, key_of(e));
	TAILQ_REMOVE(&c->lru, e, entry);
	free(e);
}

void known_cache_free(struct known_cache *c)
{
	struct entry *e;

	if (!c)
		return;
	while ((e = TAILQ_FIRST(&c->lru)))
		entry_free(c, e);
	map_free(c->map);
	free(c);
}

void known_cache_get(struct known_cache *c, struct span key, struct known *ret, uint64_t *ret_read_ns)
{
	struct entry *e = map_get(c->map, key);

	*ret = (struct known){ 0 };
	*ret_read_ns = 0;
	if (!e)
		return;
	TAILQ_REMOVE(&c->lru, e, entry);
	TAILQ_INSERT_TAIL(&c->lru, e, entry);
	*ret_read_ns = e->read_ns;
	if (e->value_len)
		(void)known_parse(span_of(e->text + e->key_len, e->value_len), ret); /* what is not understood is nothing */
}

void known_cache_put(struct known_cache *c, struct span key, const struct known *k, uint64_t now_ns)
{
	char value[KNOWN_MAX];
	struct out o = out_of(value, sizeof(value));
	struct entry *old = map_get(c->map, key), *e;

	if (k->kind != KNOWN_NOTHING || k->tried_ms)
		known_write(k, &o);
	CHECK(!o.over);
	if (old)
		entry_free(c, old);
	e = key.n <= UINT16_MAX ? malloc(sizeof(*e) + key.n + o.n) : NULL;
	if (!e)
		return;
	*e = (struct entry){ .read_ns = now_ns, .key_len = (uint16_t)key.n, .value_len = (uint16_t)o.n };
	memcpy(e->text, key.p, key.n);
	memcpy(e->text + key.n, value, o.n);
	if (map_set(c->map, key, e) != ST_OK) {
		free(e);
		return;
	}
	TAILQ_INSERT_TAIL(&c->lru, e, entry);
	if (map_len(c->map) > c->max)
		entry_free(c, TAILQ_FIRST(&c->lru));
}

void known_cache_forget(struct known_cache *c, struct span key)
{
	struct entry *e = map_get(c->map, key);

	if (e)
		entry_free(c, e);
}

static bool is_of(struct span key, struct span domain)
{
	return key.n > domain.n && key.p[key.n - domain.n - 1] == '@' && span_eq(span_skip(key, key.n - domain.n), domain);
}

void known_cache_forget_domain(struct known_cache *c, struct span domain)
{
	struct entry *e, *next;

	known_cache_forget(c, domain);
	for (e = TAILQ_FIRST(&c->lru); e; e = next) {
		next = TAILQ_NEXT(e, entry);
		if (is_of(key_of(e), domain))
			entry_free(c, e);
	}
}

size_t known_cache_len(const struct known_cache *c)
{
	return map_len(c->map);
}
