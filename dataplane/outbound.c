#include "dataplane/outbound_internal.h"

#include <stdlib.h>
#include "dataplane/conns.h"
#include "dataplane/holds.h"
#include "dataplane/outcome.h"
#include "dataplane/recipient.h"
#include "dataplane/terms.h"
#include "dataplane/verify.h"
#include "spool/base/clock.h"
#include "spool/base/counters.h"

/* Deliveries that may wait for one destination; messages that are brought back for their next attempt in one turn, and that may be awake at all. */
enum { DEST_QUEUE_MAX = 1000, WAKES_A_TURN = 64, AWAKE_MAX = 20000 };
#define CONGESTED_NS (5 * NS_PER_S)
#define HOLD_LOOK_NS (30 * 86400 * NS_PER_S) /* a hold without an end; its change is noticed at once (holds.h) */

enum status outbound_new(struct worker *w, struct outbound **ret)
{
	struct outbound *o = calloc(1, sizeof(*o));

	if (!o)
		return ST_NOMEM;
	o->w = w;
	TAILQ_INIT(&o->dests);
	TAILQ_INIT(&o->dirty);
	if (map_new(&o->by_key) != ST_OK || map_new(&o->by_tag) != ST_OK) {
		map_free(o->by_key);
		free(o);
		return ST_NOMEM;
	}
	*ret = o;
	return ST_OK;
}

static void delivery_free(struct delivery *dl)
{
	dl->mail->deliveries--;
	free(dl);
}

/* ---- retry ---- */

/* When its earliest deferred recipient is due, monotonic; UINT64_MAX: none is, or it is held. */
static uint64_t next_attempt(const struct mail *mail)
{
	const struct store_msg *m = mail->m;
	uint64_t first = UINT64_MAX, now = clock_steady_ns();

	for (uint32_t i = 0; i < m->env.nrcpt; i++)
		if (m->rcpt[i].state == RCPT_QUEUED && !m->rcpt[i].busy && m->rcpt[i].next_ns < first)
			first = m->rcpt[i].next_ns;
	if (first == UINT64_MAX || m->state == MSG_HELD)
		return UINT64_MAX;
	return mail->w->now_ns + (first > now ? first - now : 0);
}

/* Where recipient i goes. Messages whose senders demand more or less of TLS than the route does (RFC 8689) share no connections with others. */
static enum status hop_of(const struct mail *mail, uint32_t i, char key[ROUTE_KEY_MAX], struct next_hop *ret)
{
	uint32_t flags = mail->m->env.flags;
	bool required = (flags & ENV_REQUIRETLS) && mail->m->env.sender.n; /* RFC 8689 5: a bounce is not lost for want of it */

	return route_rcpt(&mail->w->cfg->snap, &mail->w->tables, mail->m->env.rcpt[i].addr,
		required ? HOP_TLS_REQUIRED : flags & ENV_TLS_OPTIONAL ? HOP_TLS_OPTIONAL : HOP_TLS_ROUTE, key, ret);
}

const struct snap_route *outbound_route(const struct mail *mail, uint32_t i)
{
	char key[ROUTE_KEY_MAX];
	struct next_hop hop;

	return hop_of(mail, i, key, &hop) == ST_OK ? hop.route : NULL;
}

/* The hold that a message waits for, or where it goes when it has one recipient; 0: several places. */
static uint32_t mail_tag(const struct mail *mail)
{
	const struct snapshot *snap = &mail->w->cfg->snap;
	uint64_t now = clock_steady_ns();
	char key[ROUTE_KEY_MAX];
	struct next_hop hop;

	for (uint32_t i = 0; i < mail->m->env.nrcpt; i++) {
		const struct snap_route *r = mail->m->rcpt[i].state == RCPT_QUEUED ? outbound_route(mail, i) : NULL;

		if (terms_on_hold(r, now))
			return holds_tag(snap, r);
	}
	return mail->m->env.nrcpt == 1 && hop_of(mail, 0, key, &hop) == ST_OK ? dest_tag(hop.key) : 0;
}

/* Deferred while its destination was down, which is back: it is tried before its time, once. */
static bool is_back(const struct mail *mail, uint32_t i)
{
	char key[ROUTE_KEY_MAX];
	struct next_hop hop;
	const struct dest *d = mail->w->outbound->nback && hop_of(mail, i, key, &hop) == ST_OK ? map_get(mail->w->outbound->by_key, hop.key) : NULL;

	return d && d->back_ns && outcome_deferred_ns(mail, i) <= d->back_ns;
}

void outbound_rest(struct mail *mail)
{
	uint64_t due, report;

	if (outcome_report(mail))
		return;
	due = next_attempt(mail);
	report = outcome_report_due(mail);
	due = report < due ? report : due;

	if (!mail->m->open_rcpts) {
		mail_finish(mail);
		return;
	}
	if (mail_park(mail, due, mail_tag(mail)))
		return;
	if (due == UINT64_MAX)
		wheel_cancel(mail->w->wheel, &mail->retry);
	else
		wheel_set(mail->w->wheel, &mail->retry, due);
}

void outbound_timer(struct worker *w, struct timer *t)
{
	struct mail *mail = container_of(t, struct mail, retry);

	(void)w;
	if (mail->m->state == MSG_QUEUED)
		outbound_put(mail);
	else
		outbound_rest(mail);
}

void outbound_retry(struct mail *mail)
{
	struct store_msg *m = mail->m;
	struct dest *d;

	for (uint32_t i = 0; i < m->env.nrcpt; i++)
		m->rcpt[i].next_ns = 0;
	TAILQ_FOREACH(d, &mail->w->outbound->dests, entry)
		d->down_until_ns = 0;
	outbound_put(mail);
}

/* ---- outcomes ---- */

void outbound_result(struct delivery *dl, const struct reply *result, const struct reply *failure, struct remote remote)
{
	struct mail *mail = dl->mail;
	struct dest *d = dl->dest;
	struct outbound *o = mail->w->outbound;
	struct outcome oc = { 0 };
	bool delivered = false, slow = false;

	remote.final = d->final;
	for (uint32_t k = 0; k < dl->nrcpt; k++) {
		const struct reply *r = result && result[k].code ? &result[k] : failure;

		delivered = delivered || reply_is_ok(r);
		slow = slow || r->code == 421 || r->code == 451;
		if (r != failure)
			verify_delivered(mail->w, mail->m->env.rcpt[dl->rcpt[k]].addr, r);
		outcome_add(&oc, mail, dl->rcpt[k], r, remote);
	}
	if (delivered && d->failing)
		dest_back(d);
	if (remote.host.n) /* else nobody was asked */
		dest_learn(d, delivered, slow);
	o->nbusy--;
	delivery_free(dl);
	outcome_finish(mail, &oc);
}

/* ---- putting and picking ---- */

static void delivery_queue(struct delivery *dl, bool first)
{
	struct dest *d = dl->dest;

	if (first)
		TAILQ_INSERT_HEAD(&d->queue, dl, entry);
	else
		TAILQ_INSERT_TAIL(&d->queue, dl, entry);
	LIST_INSERT_HEAD(&dl->mail->waiting, dl, of_mail);
	d->nqueue++;
	if (arena_used(dl->mail->w->arena) > arena_bytes(dl->mail->w->arena) / 2)
		store_evict(dl->mail->m); /* the log has it, and new mail needs the room */
	outbound_wake(d);
}

static void delivery_unqueue(struct delivery *dl)
{
	TAILQ_REMOVE(&dl->dest->queue, dl, entry);
	LIST_REMOVE(dl, of_mail);
	dl->dest->nqueue--;
}

struct delivery *outbound_pick(struct dest *d)
{
	struct delivery *dl = TAILQ_FIRST(&d->queue);

	if (!dl)
		return NULL;
	delivery_unqueue(dl);
	d->outbound->nbusy++;
	return dl;
}

/* Nothing is under way for its recipients any more. */
static void release_rcpts(struct delivery *dl)
{
	for (uint32_t k = 0; k < dl->nrcpt; k++)
		dl->mail->m->rcpt[dl->rcpt[k]].busy = 0;
}

void outbound_unpick(struct delivery *dl)
{
	struct mail *mail = dl->mail;

	dl->dest->outbound->nbusy--;
	if (mail->m->state == MSG_QUEUED && !store_fenced(mail->m->store)) {
		delivery_queue(dl, true);
		return;
	}
	release_rcpts(dl);
	delivery_free(dl);
	outbound_rest(mail);
}

void outbound_split(struct delivery *dl, uint32_t n)
{
	uint32_t more = dl->nrcpt - n;
	struct delivery *rest = malloc(sizeof(*rest) + more * sizeof(rest->rcpt[0]));

	CHECK(n && n < dl->nrcpt && rest);
	*rest = (struct delivery){ .mail = dl->mail, .dest = dl->dest, .nrcpt = more, .cap = more };
	memcpy(rest->rcpt, dl->rcpt + n, more * sizeof(rest->rcpt[0]));
	dl->nrcpt = n;
	dl->mail->deliveries++;
	delivery_queue(rest, true);
}

/* Adds recipient i to the delivery that is being filled for its destination. False: no memory. */
static bool fill(struct mail *mail, struct dest *d, uint32_t i)
{
	struct delivery *dl = d->filling;

	if (dl && dl->nrcpt == DELIVERY_RCPT_MAX) {
		delivery_queue(dl, false);
		dl = d->filling = NULL;
	}
	if (!dl || dl->nrcpt == dl->cap) {
		uint32_t cap = dl ? dl->cap * 4 : 1;
		struct delivery *bigger = realloc(dl, sizeof(*dl) + cap * sizeof(dl->rcpt[0]));

		if (!bigger)
			return false;
		if (!dl) {
			*bigger = (struct delivery){ .mail = mail, .dest = d };
			mail->deliveries++;
		}
		dl = d->filling = bigger;
		dl->cap = cap;
	}
	dl->rcpt[dl->nrcpt++] = i;
	mail->m->rcpt[i].busy = 1;
	return true;
}

/* Where recipient i goes now: into a delivery, or straight to an outcome when its destination is down or cannot be. */
static void put_rcpt(struct mail *mail, uint32_t i, struct outcome *oc, struct dest **filled, uint32_t *nfilled)
{
	struct worker *w = mail->w;
	char key[ROUTE_KEY_MAX];
	struct next_hop hop;
	uint64_t now = clock_steady_ns();
	enum status st;
	struct dest *d;
	struct reply r;

	if (recipient_is_refused(w, mail->m->env.rcpt[i].addr, &r)) {
		outcome_add(oc, mail, i, &r, REMOTE_NONE);
		return;
	}
	st = hop_of(mail, i, key, &hop);
	if (st == ST_OK && terms_on_hold(hop.route, now)) { /* not an attempt: nothing is counted, and nobody told */
		mail->on_hold = true;
		mail->m->rcpt[i].next_ns = hop.route->hold_until_ns - now > HOLD_LOOK_NS ? now + HOLD_LOOK_NS : hop.route->hold_until_ns;
		return;
	}
	if (st != ST_OK)
		reply_set(&r, st == ST_AGAIN ? 451 : 550, st == ST_AGAIN ? "4.3.0" : "5.1.2", "No route to this recipient: %s", trail_text());
	if (st != ST_OK || !terms_takes(&w->cfg->snap, &w->tables, mail->m->env.rcpt[i].addr, mail->m->body_len, &r)) {
		outcome_add(oc, mail, i, &r, REMOTE_NONE);
		return;
	}
	d = outbound_dest(w, &hop);
	if (d && d->nqueue >= DEST_QUEUE_MAX) { /* it takes what it can: nothing is gained by more of them in memory */
		mail->m->rcpt[i].next_ns = clock_steady_ns() + CONGESTED_NS;
		return;
	}
	if (d && d->down_until_ns > w->now_ns) {
		outcome_add(oc, mail, i, d->down_reply, REMOTE_NONE);
		return;
	}
	if (!d || !fill(mail, d, i)) {
		reply_set(&r, 451, "4.3.0", "Out of memory");
		outcome_add(oc, mail, i, &r, REMOTE_NONE);
		return;
	}
	if (d->filling_for != mail) {
		d->filling_for = mail;
		filled[(*nfilled)++] = d;
	}
}

void outbound_put(struct mail *mail)
{
	struct store_msg *m = mail->m;
	struct outcome oc = { 0 };
	struct dest *one, **filled = &one;
	uint32_t nfilled = 0;
	uint64_t now = clock_steady_ns();
	bool was_on_hold = mail->on_hold;

	if (m->state != MSG_QUEUED || mail->w->outbound->stopping || store_fenced(m->store))
		return;
	if (m->env.nrcpt > 1 && !(filled = malloc(m->env.nrcpt * sizeof(struct dest *))))
		return; /* the timer of a later turn finds it again */
	mail->on_hold = false;
	for (uint32_t i = 0; i < m->env.nrcpt; i++)
		if (m->rcpt[i].state == RCPT_QUEUED && !m->rcpt[i].busy && (m->rcpt[i].next_ns <= now || was_on_hold || is_back(mail, i)))
			put_rcpt(mail, i, &oc, filled, &nfilled);
	for (uint32_t k = 0; k < nfilled; k++) {
		delivery_queue(filled[k]->filling, false);
		filled[k]->filling = NULL;
		filled[k]->filling_for = NULL;
	}
	if (m->env.nrcpt > 1)
		free(filled);
	outcome_finish(mail, &oc);
}

void outbound_withdraw(struct mail *mail)
{
	struct delivery *dl;

	while ((dl = LIST_FIRST(&mail->waiting))) {
		release_rcpts(dl);
		delivery_unqueue(dl);
		delivery_free(dl);
	}
}

/* What became of them could not be remembered: everybody would get them again after the restart. */
void outbound_fenced(struct store *s)
{
	struct store_row row;
	size_t pos = 0;

	while (store_next(s, &pos, &row))
		if (row.awake && row.awake->user)
			outbound_withdraw(row.awake->user);
}

/* ---- turning the wheel ---- */

static void pump(struct dest *d)
{
	struct outbound *o = d->outbound;
	const struct snap_settings *set = o->w->cfg->set;
	struct out_conn *c;

	while ((d->nqueue || probe_wanted(d)) && !o->stopping) {
		if ((c = TAILQ_FIRST(&d->idle)))
			conn_go(c);
		else if (o->nconns >= set->outbound_conns_max)
			break;
		else if (d->nconns < pace_limit(&d->pace, set->dest_conns_max) && d->nqueue > d->nconnecting)
			conn_open(d, false);
		else if (d->nconns < set->dest_conns_max && probe_wanted(d) > d->nprobe_opening)
			conn_open(d, true); /* RCPT waits for it: not for what a busy connection has to do first */
		else
			break;
	}
}

/* Brings back what is due, as long as there is room and its destination has not enough to do already. */
static void wake_due(struct worker *w, struct store *s)
{
	struct store_row row;
	uint32_t awake;

	for (unsigned k = 0; k < WAKES_A_TURN && store_due(s, w->now_ns, &row); k++) {
		const struct dest *d = row.tag ? dest_by_tag(w->outbound, row.tag) : NULL;
		enum status st = ST_AGAIN;

		if (store_count(s, &awake) && awake >= AWAKE_MAX)
			return;
		if (!d || d->nqueue < DEST_QUEUE_MAX)
			st = store_wake(s, row.id);
		if (st == ST_OK)
			continue;
		store_put_off(s, row.id, w->now_ns + CONGESTED_NS + (row.id & 1023) * NS_PER_MS);
		if (!d && st == ST_AGAIN)
			return;
	}
}

void outbound_turn(struct worker *w)
{
	struct dest *d;

	for (uint32_t i = 0; i < w->nstore && !w->outbound->stopping; i++)
		wake_due(w, w->store[i]);

	while ((d = TAILQ_FIRST(&w->outbound->dirty))) {
		TAILQ_REMOVE(&w->outbound->dirty, d, dirty_entry);
		d->dirty = false;
		pump(d);
	}
}

struct worker *outbound_worker(const struct dest *d)
{
	return d->outbound->w;
}

void outbound_count_conn(struct dest *d, int change)
{
	d->nconns += (uint32_t)change;
	d->outbound->nconns += (uint32_t)change;
	counter_set(C_OUT_CONNS_OPEN, d->outbound->nconns);
}

void outbound_count_report(struct worker *w, int change)
{
	w->outbound->nreports += (uint32_t)change;
}

uint32_t outbound_busy(const struct worker *w)
{
	return w->outbound->nbusy + w->outbound->nreports;
}

void outbound_shutdown(struct worker *w)
{
	struct dest *d;
	struct out_conn *c;

	w->outbound->stopping = true;
	TAILQ_FOREACH(d, &w->outbound->dests, entry)
		while ((c = TAILQ_FIRST(&d->idle)))
			conn_quit(c);
}
