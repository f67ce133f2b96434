#include "dataplane/handshakes.h"

#include <stdlib.h>
#include <sys/queue.h>
#include "spool/base/clock.h"
#include "spool/base/map.h"

enum { MAX_CLIENTS = 65536 };
#define MINUTE_NS (60 * NS_PER_S)

struct client {
	TAILQ_ENTRY(client) entry;
	uint8_t ip[16];
	uint64_t full_ns; /* when it has its whole minute again */
};

struct handshakes {
	struct map *by_ip;
	TAILQ_HEAD(clients, client) all; /* the one that was quiet for longest first */
};

enum status handshakes_new(struct handshakes **ret)
{
	struct handshakes *h = calloc(1, sizeof(*h));

	if (!h)
		return ST_NOMEM;
	TAILQ_INIT(&h->all);
	if (map_new(&h->by_ip) != ST_OK) {
		free(h);
		return ST_NOMEM;
	}
	*ret = h;
	return ST_OK;
}

static void forget(struct handshakes *h, struct client *c)
{
	map_del(h->by_ip, span_of(c->ip, sizeof(c->ip)));
	TAILQ_REMOVE(&h->all, c, entry);
	free(c);
}

void handshakes_free(struct handshakes *h)
{
	struct client *c;

	if (!h)
		return;
	while ((c = TAILQ_FIRST(&h->all)))
		forget(h, c);
	map_free(h->by_ip);
	free(h);
}

static struct client *client_of(struct handshakes *h, const uint8_t ip[16], uint64_t now_ns)
{
	static const uint8_t mapped[12] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff };
	uint8_t key[16] = { 0 };
	struct client *c, *old;

	memcpy(key, ip, memcmp(ip, mapped, sizeof(mapped)) == 0 ? 16 : 8);
	c = map_get(h->by_ip, span_of(key, sizeof(key)));
	if (c) {
		TAILQ_REMOVE(&h->all, c, entry);
		TAILQ_INSERT_TAIL(&h->all, c, entry);
		return c;
	}
	while ((old = TAILQ_FIRST(&h->all)) && (old->full_ns <= now_ns || map_len(h->by_ip) >= MAX_CLIENTS))
		forget(h, old);
	c = calloc(1, sizeof(*c));
	if (!c)
		return NULL;
	memcpy(c->ip, key, sizeof(c->ip));
	if (map_set(h->by_ip, span_of(key, sizeof(key)), c) != ST_OK) {
		free(c);
		return NULL;
	}
	TAILQ_INSERT_TAIL(&h->all, c, entry);
	return c;
}

bool handshakes_allow(struct handshakes *h, const uint8_t ip[16], uint32_t a_minute, uint64_t now_ns)
{
	struct client *c = a_minute ? client_of(h, ip, now_ns) : NULL;
	uint64_t from, cost;

	if (!c)
		return true;
	cost = MINUTE_NS / a_minute;
	from = c->full_ns > now_ns ? c->full_ns : now_ns;
	if (from + cost > now_ns + MINUTE_NS)
		return false;
	c->full_ns = from + cost;
	return true;
}

size_t handshakes_clients(const struct handshakes *h)
{
	return map_len(h->by_ip);
}
