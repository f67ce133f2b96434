#include "dataplane/holds.h"

#include <stdlib.h>
#include "dataplane/flush.h"
#include "dataplane/terms.h"
#include "spool/base/clock.h"
#include "spool/base/counters.h"
#include "spool/base/map.h"

struct tally {
	uint32_t tag, messages;
	uint64_t bytes, oldest_ns; /* since it was empty */
};

struct holds {
	struct map *by_tag;
	uint64_t state; /* of all holds, as it was a second ago */
};

static struct span key_of(const uint32_t *tag)
{
	return span_of(tag, sizeof(*tag));
}

enum status holds_new(struct holds **ret)
{
	struct holds *h = calloc(1, sizeof(*h));

	if (!h || map_new(&h->by_tag) != ST_OK) {
		free(h);
		return ST_NOMEM;
	}
	*ret = h;
	return ST_OK;
}

static uint64_t mix(uint64_t h, const void *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		h = (h ^ ((const uint8_t *)p)[i]) * 0x100000001b3ull;
	return h;
}

uint32_t holds_tag(const struct snapshot *snap, const struct snap_route *route)
{
	struct span name = snap_span(snap, route->name);

	return (uint32_t)(mix(0xcbf29ce484222325ull, name.p, name.n) >> 16) | HOLD_TAG;
}

void holds_parked(struct holds *h, uint32_t tag, uint64_t bytes, uint64_t arrived_ns)
{
	struct tally *t = map_get(h->by_tag, key_of(&tag));

	if (!t) {
		t = calloc(1, sizeof(*t));
		if (t)
			t->tag = tag;
		if (!t || map_set(h->by_tag, key_of(&t->tag), t) != ST_OK) {
			free(t); /* it is not counted, but waits like the others */
			return;
		}
	}
	if (!t->messages++ || arrived_ns < t->oldest_ns)
		t->oldest_ns = arrived_ns;
	t->bytes += bytes;
}

void holds_woken(struct holds *h, uint32_t tag, uint64_t bytes)
{
	struct tally *t = map_get(h->by_tag, key_of(&tag));

	if (!t || !t->messages)
		return;
	t->messages--;
	t->bytes = t->bytes > bytes ? t->bytes - bytes : 0;
}

/* Which routes are on hold, and until when. */
static uint64_t state_now(const struct worker *w, uint32_t *ret_n)
{
	uint32_t n, on = 0;
	const struct snap_route *r = snap_routes(&w->cfg->snap, &n);
	uint64_t h = 0xcbf29ce484222325ull, now = clock_steady_ns();

	for (uint32_t i = 0; i < n; i++) {
		struct span name = snap_span(&w->cfg->snap, r[i].name);

		if (!terms_on_hold(&r[i], now))
			continue;
		on++;
		h = mix(mix(h, name.p, name.n), &r[i].hold_until_ns, sizeof(r[i].hold_until_ns));
	}
	*ret_n = on;
	return h;
}

void holds_tick(struct worker *w)
{
	struct holds *h = w->holds;
	uint32_t n;
	uint64_t state = state_now(w, &n);

	counter_set(C_ROUTES_ON_HOLD, n);
	if (state == h->state)
		return;
	if (h->state)
		flush_begin(w->flush, HOLD_TAG);
	h->state = state;
}

void holds_rows(struct worker *w, holds_row_fn *emit, void *ctx)
{
	const struct snapshot *snap = &w->cfg->snap;
	uint32_t n;
	const struct snap_route *r = snap_routes(snap, &n);
	uint64_t now = clock_steady_ns();

	for (uint32_t i = 0; i < n; i++) {
		uint32_t tag = holds_tag(snap, &r[i]);
		const struct tally *t = map_get(w->holds->by_tag, key_of(&tag));
		char text[300];
		struct out o = out_of(text, sizeof(text));
		struct logline row;

		if (!terms_on_hold(&r[i], now))
			continue;
		terms_hold_text(snap, &r[i], &o);
		row_begin(&row);
		log_str(&row, "kind", "hold");
		log_span(&row, "route", snap_span(snap, r[i].name));
		log_span(&row, "state", out_span(&o));
		log_u64(&row, "messages", t ? t->messages : 0);
		log_u64(&row, "bytes", t ? t->bytes : 0);
		log_u64(&row, "oldest_s", t && t->messages && now > t->oldest_ns ? (now - t->oldest_ns) / NS_PER_S : 0);
		log_u64(&row, "config_line", r[i].line);
		emit(ctx, &row);
	}
}
