#include "dataplane/clients.h"

#include <stdlib.h>
#include <sys/queue.h>
#include "dataplane/session.h"
#include "spool/base/clock.h"
#include "spool/base/counters.h"
#include "spool/store/evidence.h"

enum { STRANGERS, REGISTERED, NQUEUE };

struct client {
	TAILQ_ENTRY(client) entry;
	uint8_t queue;
};

struct clients {
	struct evidence_table table;
	struct client *client; /* one a row of the table */
	struct map *by_ip;     /* address -> struct client */
	uint32_t used;         /* rows that were ever used: the first so many */
	TAILQ_HEAD(queue, client) queue[NQUEUE]; /* the one that was seen last is at the end */
	struct evidence_listener *listener[WORKER_LISTENERS_MAX];
};

static struct evidence *row_of(struct clients *c, const struct client *k)
{
	return &c->table.row[k - c->client];
}

static void enqueue(struct clients *c, struct client *k, unsigned queue)
{
	k->queue = (uint8_t)queue;
	TAILQ_INSERT_TAIL(&c->queue[queue], k, entry);
}

/* ---- begin and end ---- */

/* Rows of before are in order, the newest first; which of them are registered shows when they come again. */
static enum status take_rows(struct clients *c)
{
	while (c->used < c->table.rows && c->table.row[c->used].first_s)
		c->used++;
	for (uint32_t i = c->used; i > 0; i--) {
		if (map_set(c->by_ip, span_of((const char *)c->table.row[i - 1].ip, 16), &c->client[i - 1]) != ST_OK)
			return ST_NOMEM;
		enqueue(c, &c->client[i - 1], STRANGERS);
	}
	return ST_OK;
}

static const char *listener_name(const struct worker *w, uint32_t i, struct out *o)
{
	const struct snap_listener *l = &w->listener[i];

	if (l->name[0])
		return l->name;
	ip_write(l->ip, o);
	out_fmt(o, ":%u", l->port);
	out_char(o, '\0');
	return o->p;
}

static void take_listeners(struct clients *c, const struct worker *w)
{
	uint32_t n;

	snap_listeners(&w->cfg->snap, &n);
	for (uint32_t i = 0; i < n && i < WORKER_LISTENERS_MAX; i++) {
		char name[EVIDENCE_NAME];
		struct out o = out_of(name, sizeof(name));

		c->listener[i] = evidence_listener(&c->table, listener_name(w, i, &o));
	}
}

struct clients *clients_new(struct worker *w)
{
	const struct snap_settings *set = w->cfg->set;
	struct clients *c = calloc(1, sizeof(*c));
	enum status st = c ? evidence_open(w->opt->run_dir, snap_cstr(&w->cfg->snap, set->clients_dir), w->opt->index, set->clients_evidence, &c->table) :
			     trail(ST_NOMEM, "no memory");

	if (st == ST_OK) {
		TAILQ_INIT(&c->queue[STRANGERS]);
		TAILQ_INIT(&c->queue[REGISTERED]);
		c->client = calloc(c->table.rows + 1, sizeof(*c->client));
		st = c->client ? map_new(&c->by_ip) : trail(ST_NOMEM, "no memory");
	}
	if (st == ST_OK)
		st = take_rows(c);
	if (st == ST_OK) {
		take_listeners(c, w);
		return c;
	}
	log_msg(LOG_LVL_WARN, "no-evidence", "nothing is noted about clients: %s", trail_text());
	clients_free(c);
	return NULL;
}

void clients_free(struct clients *c)
{
	if (!c)
		return;
	if (c->by_ip)
		map_free(c->by_ip);
	free(c->client);
	evidence_close(&c->table);
	free(c);
}

/* ---- rows ---- */

/* A row for a client that has none: a free one, or that of whoever can be spared. */
static struct client *make_room(struct clients *c)
{
	struct client *k;

	if (c->used < c->table.rows)
		return &c->client[c->used++];
	k = TAILQ_FIRST(&c->queue[STRANGERS]);
	if (!k)
		k = TAILQ_FIRST(&c->queue[REGISTERED]);
	if (!k)
		return NULL;
	TAILQ_REMOVE(&c->queue[k->queue], k, entry);
	map_del(c->by_ip, span_of((const char *)row_of(c, k)->ip, 16));
	counter_add(C_EVIDENCE_DROPPED, 1);
	return k;
}

static struct client *client_new(struct clients *c, const uint8_t ip[16], uint64_t now_s)
{
	struct client *k = make_room(c);
	struct evidence *e;

	if (!k)
		return NULL;
	e = row_of(c, k);
	evidence_begin(e);
	memset((char *)e + offsetof(struct evidence, ip), 0, sizeof(*e) - offsetof(struct evidence, ip));
	memcpy(e->ip, ip, 16);
	e->first_s = e->last_s = now_s;
	evidence_end(e);
	enqueue(c, k, STRANGERS); /* without memory below: nobody finds it, and it is the first to go in its turn */
	return map_set(c->by_ip, span_of((const char *)ip, 16), k) == ST_OK ? k : NULL;
}

/* The row of a client, which is there when its session began; it may have gone to another since. */
static struct evidence *begin(struct worker *w, const uint8_t ip[16])
{
	struct client *k = w->clients ? map_get(w->clients->by_ip, span_of((const char *)ip, 16)) : NULL;
	struct evidence *e = k ? row_of(w->clients, k) : NULL;

	if (e)
		evidence_begin(e);
	return e;
}

static struct evidence_listener *listener_of(const struct session *s)
{
	return s->w->clients ? s->w->clients->listener[s->listener] : NULL;
}

static void count(_Atomic uint64_t *to, uint64_t n)
{
	atomic_store_explicit(to, atomic_load_explicit(to, memory_order_relaxed) + n, memory_order_relaxed);
}

/* ---- what is noted ---- */

static void note_session(struct clients *c, struct session *s, uint64_t now_s)
{
	struct client *k = map_get(c->by_ip, span_of((const char *)s->facts.client_ip, 16));
	struct evidence *e;

	if (!k)
		k = client_new(c, s->facts.client_ip, now_s);
	if (!k)
		return;
	TAILQ_REMOVE(&c->queue[k->queue], k, entry);
	enqueue(c, k, s->facts.net || s->facts.expired ? REGISTERED : STRANGERS);
	e = row_of(c, k);
	evidence_begin(e);
	e->last_s = now_s;
	e->sessions++;
	evidence_end(e);
	if (c->listener[s->listener])
		count(&c->listener[s->listener]->sessions, 1);
}

void clients_session(struct session *s)
{
	uint64_t now_s = clock_wall_ns() / NS_PER_S;

	s->facts.net = snap_find_client(s->facts.snap, s->facts.client_ip, now_s, &s->facts.expired);
	counter_add(C_CLIENTS_EXPIRED, s->facts.expired != NULL);
	if (s->w->clients)
		note_session(s->w->clients, s, now_s);
}

void clients_tls(struct session *s)
{
	struct evidence *e = begin(s->w, s->facts.client_ip);

	if (!e)
		return;
	e->tls_sessions++;
	evidence_end(e);
}

void clients_sender(struct session *s, bool valid)
{
	struct evidence *e = begin(s->w, s->facts.client_ip);

	if (!e)
		return;
	e->senders++;
	e->senders_bad += !valid;
	evidence_end(e);
}

void clients_message(struct session *s)
{
	struct evidence *e = begin(s->w, s->facts.client_ip);
	struct evidence_listener *l = listener_of(s);
	struct span helo = s->smtp.helo;

	if (l) {
		count(&l->messages, 1);
		count(&l->recipients, s->smtp.env.nrcpt);
	}
	if (!e)
		return;
	e->last_s = clock_wall_ns() / NS_PER_S;
	e->messages++;
	e->recipients += s->smtp.env.nrcpt;
	e->tls_messages += s->smtp.tls;
	if (helo.n >= sizeof(e->helo))
		helo.n = sizeof(e->helo) - 1;
	memset(e->helo, 0, sizeof(e->helo));
	memcpy(e->helo, helo.p, helo.n);
	evidence_end(e);
}

void clients_content(struct worker *w, const uint8_t ip[16], enum rule r)
{
	struct evidence *e = begin(w, ip);

	if (!e)
		return;
	e->hits[r] += e->hits[r] < UINT32_MAX;
	evidence_end(e);
}

void clients_finding(struct session *s, enum rule r, bool refused)
{
	struct evidence_listener *l = listener_of(s);

	if (refused && l)
		count(&l->refused, 1);
	clients_content(s->w, s->facts.client_ip, r);
}
