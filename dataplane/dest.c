/* Destinations: where deliveries wait, whether they can be reached, and that they are forgotten when nothing goes there. */
#include "dataplane/outbound_internal.h"

#include <stdlib.h>
#include "dataplane/flush.h"
#include "dataplane/holds.h"
#include "spool/base/clock.h"
#include "spool/base/counters.h"

#define SOURCE_ABSENT_NS (600 * NS_PER_S)
#define BACK_NS (600 * NS_PER_S) /* for what is awake, or on its way from the log, when a destination is back */

static struct span tag_key(const uint32_t *tag)
{
	return span_of(tag, sizeof(*tag));
}

struct dest *dest_by_tag(const struct outbound *o, uint32_t tag)
{
	return map_get(o->by_tag, tag_key(&tag));
}

static void dest_free(struct outbound *o, struct dest *d)
{
	o->nback -= d->back_ns != 0;
	if (d->dirty)
		TAILQ_REMOVE(&o->dirty, d, dirty_entry);
	map_del(o->by_key, span_str(d->key));
	if (map_get(o->by_tag, tag_key(&d->tag)) == d)
		map_del(o->by_tag, tag_key(&d->tag));
	TAILQ_REMOVE(&o->dests, d, entry);
	config_release(d->cfg);
	free(d->down_reply);
	free(d);
}

uint32_t dest_tag(struct span key)
{
	uint32_t h = 2166136261u;

	for (size_t i = 0; i < key.n; i++)
		h = (h ^ (uint8_t)key.p[i]) * 16777619u;
	h &= ~HOLD_TAG;
	return h ? h : 1;
}

static struct dest *dest_get(struct outbound *o, const struct next_hop *hop)
{
	struct dest *d = map_get(o->by_key, hop->key);

	if (!d) {
		d = calloc(1, sizeof(*d));
		if (!d)
			return NULL;
		d->outbound = o;
		memcpy(d->key, hop->key.p, hop->key.n);
		TAILQ_INIT(&d->queue);
		pace_init(&d->pace, o->w->cfg->set->dest_conns_start);
		TAILQ_INIT(&d->idle);
		TAILQ_INIT(&d->probes);
		d->tag = dest_tag(hop->key);
		if (map_set(o->by_tag, tag_key(&d->tag), d) != ST_OK || map_set(o->by_key, hop->key, d) != ST_OK) {
			map_del(o->by_tag, tag_key(&d->tag));
			free(d);
			return NULL;
		}
		TAILQ_INSERT_TAIL(&o->dests, d, entry);
	}
	if (d->cfg != o->w->cfg) {
		config_release(d->cfg);
		d->cfg = config_hold(o->w->cfg);
		d->kind = hop->kind;
		d->final = hop->final;
		d->tls_demand = hop->demand;
		d->tls = hop->tls;
		d->route = hop->route;
		d->domain = hop->domain.n ? span_of(d->key + (hop->domain.p - hop->key.p), hop->domain.n) : SPAN_NONE;
	}
	return d;
}

struct dest *outbound_dest(struct worker *w, const struct next_hop *hop)
{
	return dest_get(w->outbound, hop);
}

void outbound_wake(struct dest *d)
{
	if (d->dirty)
		return;
	d->dirty = true;
	TAILQ_INSERT_TAIL(&d->outbound->dirty, d, dirty_entry);
}

/* ---- up and down ---- */

void dest_learn(struct dest *d, bool delivered, bool slow)
{
	struct worker *w = d->outbound->w;

	if (slow && pace_slow_down(&d->pace, w->now_ns))
		counter_add(C_OUT_SLOWED, 1);
	else if (!slow && delivered)
		pace_success(&d->pace, d->nconns, w->cfg->set->dest_conns_max);
}

void dest_back(struct dest *d)
{
	struct outbound *o = d->outbound;
	struct logline l;

	o->nback += d->back_ns == 0;
	d->back_ns = clock_steady_ns();
	d->failing = false;
	d->down_until_ns = 0;
	log_begin(&l, LOG_LVL_INFO, "destination-back");
	log_str(&l, "dest", d->key);
	log_emit(&l);
	flush_begin(o->w->flush, d->tag);
}

void outbound_conn_refused(struct dest *d)
{
	if (pace_refused(&d->pace, d->nconns - d->nconnecting, d->outbound->w->now_ns))
		counter_add(C_OUT_SLOWED, 1);
}

void outbound_dest_failed(struct dest *d, const struct reply *why)
{
	struct delivery *dl;
	struct outbound *o = d->outbound;

	pace_init(&d->pace, o->w->cfg->set->dest_conns_start); /* what it bore before says nothing about what it bears when it is back */
	if (reply_is_temporary(why)) {
		d->failing = true;
		d->down_until_ns = o->w->now_ns + o->w->cfg->set->retry_first_ns;
		if (!d->down_reply)
			d->down_reply = malloc(sizeof(*d->down_reply));
		if (d->down_reply)
			*d->down_reply = *why;
		else
			d->down_until_ns = 0;
	}
	while ((dl = outbound_pick(d)))
		outbound_result(dl, NULL, why, REMOTE_NONE);
	probe_dest_failed(d, why);
}

/* ---- time ---- */

void outbound_tick(struct worker *w)
{
	struct outbound *o = w->outbound;
	struct dest *d, *next;

	counter_set(C_SOURCE_ABSENT, w->source_absent_ns && w->now_ns - w->source_absent_ns < SOURCE_ABSENT_NS);
	for (d = TAILQ_FIRST(&o->dests); d; d = next) {
		next = TAILQ_NEXT(d, entry);
		if (d->back_ns && clock_steady_ns() - d->back_ns > BACK_NS) {
			d->back_ns = 0;
			o->nback--;
		}
		if (d->nqueue || d->nprobes)
			outbound_wake(d); /* the limit on all connections may have kept it waiting */
		else if (!d->nconns && d->down_until_ns <= w->now_ns && d->no_bdat_until_ns <= w->now_ns && !d->back_ns && pace_is_stale(&d->pace, w->now_ns))
			dest_free(o, d);
	}
}
