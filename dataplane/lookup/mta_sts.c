/* One entry a domain. Its look-up goes TXT -> address of the policy host -> weir-control; all who ask meanwhile wait for the same one. */
#include "dataplane/lookup/mta_sts.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/queue.h>
#include "dataplane/lookup/rr.h"
#include "dataplane/lookup/sts_answer.h"
#include "dataplane/lookup/sts_link.h"
#include "spool/base/clock.h"
#include "spool/base/counters.h"
#include "spool/base/log.h"
#include "spool/base/map.h"
#include "spool/mail/address.h"

enum { ENTRIES_MAX = 50000 };
#define FRESH_NS (300 * NS_PER_S)        /* RFC 8461 3.3: not more often than every five minutes */
#define FRESH_UNKNOWN_NS (30 * NS_PER_S)

enum phase { STS_IDLE, STS_TXT, STS_ADDRESS, STS_ASKING };

struct sts_query {
	TAILQ_ENTRY(sts_query) entry;
	sts_fn *fn; /* NULL: cancelled */
	void *ctx;
};

struct entry {
	TAILQ_ENTRY(entry) busy; /* in sts->busy unless STS_IDLE, oldest first */
	struct sts *sts;
	enum phase phase;
	struct sts_answer *answer; /* NULL: none yet */
	uint64_t fresh_until_ns, policy_until_ns, deadline_ns;
	uint16_t port;
	struct dns_query *dns;
	TAILQ_HEAD(, sts_query) waiting;
	char id[MTA_STS_ID_MAX + 1]; /* of the answer's policy; empty when it is not the newest */
	char domain[];
};

struct sts {
	struct dns *dns;
	struct sts_link *link;
	struct map *by_domain;
	TAILQ_HEAD(, entry) busy;
};

/* ---- entries and their answers ---- */

static bool has_policy(const struct entry *e)
{
	return e->answer && e->answer->result == STS_POLICY && e->policy_until_ns > clock_mono_ns();
}

/* In the second half of its life a policy is fetched again even when its id is the same: who blocks fetches has that long to do it (RFC 8461 10.2). */
static bool is_old(const struct entry *e)
{
	return e->policy_until_ns - clock_mono_ns() < e->answer->policy->max_age_s * NS_PER_S / 2;
}

/* The look-up is over. What is there is good for that long. */
static void finish(struct entry *e, uint64_t fresh_ns)
{
	struct sts_query *q;

	if (e->phase != STS_IDLE)
		TAILQ_REMOVE(&e->sts->busy, e, busy);
	e->phase = STS_IDLE;
	e->fresh_until_ns = clock_mono_ns() + fresh_ns;
	if (has_policy(e) && e->policy_until_ns < e->fresh_until_ns)
		e->fresh_until_ns = e->policy_until_ns;
	while ((q = TAILQ_FIRST(&e->waiting))) {
		TAILQ_REMOVE(&e->waiting, q, entry);
		if (q->fn) {
			e->answer->refs++;
			q->fn(q->ctx, e->answer);
		}
		free(q);
	}
}

static void replace_answer(struct entry *e, struct sts_answer *a)
{
	CHECK(a); /* a few KiB; without them nothing goes on */
	sts_release(e->answer);
	e->answer = a;
}

/* weir-control did not say. A policy that still holds stays in force. */
static void finish_unknown(struct entry *e)
{
	counter_add(C_STS_UNKNOWN, 1);
	e->id[0] = '\0';
	if (!has_policy(e))
		replace_answer(e, sts_answer_new(STS_UNKNOWN));
	finish(e, FRESH_UNKNOWN_NS);
}

/* ---- weir-control ---- */

/* It may come when nobody waits any more. */
static void on_answer(void *ctx, struct span packet)
{
	struct sts *s = ctx;
	char domain[ADDRESS_DOMAIN_MAX + 1];
	uint64_t left_s;
	struct sts_answer *a = sts_answer_read(packet, domain, sizeof(domain), &left_s);
	struct entry *e = a ? map_get(s->by_domain, span_str(domain)) : NULL;

	if (!e || (e->phase != STS_ASKING && e->phase != STS_IDLE)) {
		sts_release(a);
		return;
	}
	if (a->fault != STS_FAULT_NONE)
		e->id[0] = '\0';
	replace_answer(e, a);
	e->policy_until_ns = clock_mono_ns() + left_s * NS_PER_S;
	finish(e, FRESH_NS);
}

/* The link broke: nobody answers what was asked. */
static void on_broken(void *ctx)
{
	struct sts *s = ctx;
	struct entry *e, *next;

	for (e = TAILQ_FIRST(&s->busy); e; e = next) {
		next = TAILQ_NEXT(e, busy);
		if (e->phase == STS_ASKING)
			finish_unknown(e);
	}
}

static void ask_control(struct entry *e, const struct dns_answer *addr)
{
	struct logline row;
	char ip[64] = "";
	struct out o = out_of(ip, sizeof(ip) - 1);

	if (addr && addr->result == DNS_FOUND)
		ip_write(addr->addr[0], &o);
	row_begin(&row);
	log_str(&row, "domain", e->domain);
	log_str(&row, "id", e->id);
	log_span(&row, "address", out_span(&o));
	log_u64(&row, "port", e->port);
	e->phase = STS_ASKING;
	if (!sts_link_send(e->sts->link, row_text(&row)))
		finish_unknown(e);
}

/* ---- DNS ---- */

static void on_address(void *ctx, struct dns_answer *a)
{
	struct entry *e = ctx;

	e->dns = NULL;
	ask_control(e, a);
	dns_answer_release(a);
}

/* The one record that is about MTA-STS; several are none (RFC 8461 3.1). */
static void read_id(struct entry *e, const struct dns_answer *a)
{
	unsigned found = 0;

	e->id[0] = '\0';
	for (uint32_t i = 0; i < a->nrr; i++) {
		char text[512];
		struct out o = out_of(text, sizeof(text));
		struct span id;
		enum status st;

		rr_txt(a->rr[i], &o);
		st = mta_sts_record(out_span(&o), &id);
		found += st != ST_NOT_FOUND;
		if (st == ST_OK)
			snprintf(e->id, sizeof(e->id), "%.*s", SPAN_FMT(id));
	}
	if (found != 1)
		e->id[0] = '\0';
}

static void on_txt(void *ctx, struct dns_answer *a)
{
	struct entry *e = ctx;
	char name[280], before[MTA_STS_ID_MAX + 1];
	struct out o = out_of(name, sizeof(name));
	struct dns_answer *addr = NULL;
	enum status st;

	e->dns = NULL;
	memcpy(before, e->id, sizeof(before));
	read_id(e, a);
	dns_answer_release(a);
	if (has_policy(e) && (!e->id[0] || (strcmp(e->id, before) == 0 && !is_old(e)))) { /* it is still the newest, or nobody can say */
		memcpy(e->id, before, sizeof(before));
		finish(e, FRESH_NS);
		return;
	}
	if (!e->id[0]) {
		ask_control(e, NULL);
		return;
	}
	e->phase = STS_ADDRESS;
	out_fmt(&o, "mta-sts.%s", e->domain);
	st = dns_addr(e->sts->dns, out_span(&o), on_address, e, &addr, &e->dns);
	if (st == ST_OK)
		on_address(e, addr);
	else if (st != ST_AGAIN)
		ask_control(e, NULL);
}

static void begin(struct entry *e, const struct sts_ask *ask)
{
	char name[280];
	struct out o = out_of(name, sizeof(name));
	struct dns_answer *txt = NULL;
	enum status st;

	e->phase = STS_TXT;
	e->port = ask->port;
	e->deadline_ns = clock_mono_ns() + ask->timeout_ns;
	TAILQ_INSERT_TAIL(&e->sts->busy, e, busy);
	out_fmt(&o, "_mta-sts.%s", e->domain);
	st = dns_txt(e->sts->dns, out_span(&o), on_txt, e, &txt, &e->dns);
	if (st == ST_OK)
		on_txt(e, txt);
	else if (st != ST_AGAIN)
		ask_control(e, NULL);
}

/* ---- making and forgetting ---- */

static void entry_free(struct entry *e)
{
	struct sts_query *q;

	if (e->dns)
		dns_cancel(e->dns);
	while ((q = TAILQ_FIRST(&e->waiting))) {
		TAILQ_REMOVE(&e->waiting, q, entry);
		free(q);
	}
	sts_release(e->answer);
	free(e);
}

/* Makes room: first what is stale, then everything that nobody waits for. */
static void sweep(struct sts *s, bool all)
{
	uint64_t now = clock_mono_ns();
	struct span key;
	size_t pos = 0;
	void *v;

	while (map_next(s->by_domain, &pos, &key, &v)) {
		struct entry *e = v;

		if (e->phase != STS_IDLE || (!all && (e->fresh_until_ns > now || has_policy(e))))
			continue;
		map_del(s->by_domain, key);
		entry_free(e);
	}
}

static struct entry *entry_get(struct sts *s, struct span domain)
{
	struct entry *e = map_get(s->by_domain, domain);

	if (e || domain.n > ADDRESS_DOMAIN_MAX)
		return e;
	if (map_len(s->by_domain) >= ENTRIES_MAX)
		sweep(s, false);
	if (map_len(s->by_domain) >= ENTRIES_MAX)
		sweep(s, true);
	e = calloc(1, sizeof(*e) + domain.n + 1);
	if (!e)
		return NULL;
	e->sts = s;
	TAILQ_INIT(&e->waiting);
	memcpy(e->domain, domain.p, domain.n);
	if (map_set(s->by_domain, domain, e) != ST_OK) {
		free(e);
		return NULL;
	}
	return e;
}

/* ---- the public part ---- */

enum status sts_new(struct uring *u, struct dns *dns, const char *run_dir, struct sts **ret)
{
	struct sts *s = calloc(1, sizeof(*s));

	if (!s)
		return ST_NOMEM;
	s->dns = dns;
	TAILQ_INIT(&s->busy);
	if (map_new(&s->by_domain) != ST_OK || sts_link_new(u, run_dir, on_answer, on_broken, s, &s->link) != ST_OK) {
		map_free(s->by_domain);
		free(s);
		return ST_NOMEM;
	}
	*ret = s;
	return ST_OK;
}

void sts_free(struct sts *s)
{
	struct span key;
	size_t pos = 0;
	void *v;

	if (!s)
		return;
	while (map_next(s->by_domain, &pos, &key, &v)) {
		struct entry *e = v;

		e->dns = NULL; /* DNS is gone already */
		entry_free(e);
	}
	map_free(s->by_domain);
	sts_link_free(s->link);
	free(s);
}

enum status sts_get(struct sts *s, const struct sts_ask *ask, sts_fn *fn, void *ctx, struct sts_answer **ret_answer, struct sts_query **ret_query)
{
	struct entry *e = entry_get(s, ask->domain);
	struct sts_query *q;

	*ret_answer = NULL;
	*ret_query = NULL;
	if (!e)
		return trail(ST_NOMEM, "no memory for the policy of %.*s", SPAN_FMT(ask->domain));
	if (e->phase == STS_IDLE && !(e->answer && e->fresh_until_ns > clock_mono_ns()))
		begin(e, ask);
	if (e->phase == STS_IDLE) {
		e->answer->refs++;
		*ret_answer = e->answer;
		return ST_OK;
	}
	q = calloc(1, sizeof(*q));
	if (!q)
		return trail(ST_NOMEM, "out of memory");
	q->fn = fn;
	q->ctx = ctx;
	TAILQ_INSERT_TAIL(&e->waiting, q, entry);
	*ret_query = q;
	return ST_AGAIN;
}

void sts_cancel(struct sts_query *q)
{
	q->fn = NULL;
}

void sts_turn(struct sts *s, uint64_t now_ns, uint64_t *ret_wait_ns)
{
	struct entry *e;

	/* near enough in order of deadlines: they differ only while the setting changes */
	while ((e = TAILQ_FIRST(&s->busy)) && e->deadline_ns <= now_ns) {
		if (e->dns)
			dns_cancel(e->dns);
		e->dns = NULL;
		finish_unknown(e);
	}
	*ret_wait_ns = e ? e->deadline_ns - now_ns : UINT64_MAX;
}
