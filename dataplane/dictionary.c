#include "dataplane/dictionary.h"

#include <stdlib.h>
#include "dataplane/rcpt_check.h"
#include "spool/base/clock.h"
#include "spool/base/counters.h"
#include "spool/mail/rule_counts.h"

/* Clients that this worker knows to be refused, by a hash of their address: who falls on another's place takes it, and the other one is looked up in Redis again. */
enum { PLACES = 4096 };
/* So long what Redis said is believed. */
#define BELIEVE_NS (60 * NS_PER_S)

struct place {
	uint8_t ip[16];
	uint64_t until_ns; /* monotonic */
};

struct dictionary {
	struct place place[PLACES];
};

enum status dictionary_new(struct dictionary **ret)
{
	*ret = calloc(1, sizeof(**ret));
	return *ret ? ST_OK : ST_NOMEM;
}

void dictionary_free(struct dictionary *d)
{
	free(d);
}

/* ---- who ---- */

/* An IPv6 host has a whole /64 to choose its address from. */
static void client_of(const struct policy_facts *f, uint8_t ip[16])
{
	static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };

	memcpy(ip, f->client_ip, 16);
	if (memcmp(ip, mapped, sizeof(mapped)) != 0)
		memset(ip + 8, 0, 8);
}

struct span dictionary_key(const struct policy_facts *f, char *buf, size_t cap)
{
	struct out o = out_of(buf, cap);
	uint8_t ip[16];

	client_of(f, ip);
	out_str(&o, "bad/");
	ip_write(ip, &o);
	return out_span(&o);
}

static struct place *place_of(struct dictionary *d, const uint8_t ip[16])
{
	uint64_t a, b;

	memcpy(&a, ip, 8);
	memcpy(&b, ip + 8, 8);
	return &d->place[((a ^ b) * 0x9e3779b97f4a7c15ull >> 32) % PLACES];
}

static void refuse_until(struct session *s, uint64_t until_ns)
{
	uint8_t ip[16];
	struct place *p;

	client_of(&s->facts, ip);
	p = place_of(s->w->dictionary, ip);
	memcpy(p->ip, ip, 16);
	p->until_ns = until_ns;
}

/* ---- refusing ---- */

/* Only clients from outside, unless the configuration says otherwise. */
static bool is_looked_at(const struct policy_facts *f)
{
	const struct snap_settings *set = &f->snap->h->settings;

	return policy_mode(f, RULE_DICTIONARY) != POLICY_OFF && (set->bad_refuse > 0 || set->bad_slow > 0);
}

bool dictionary_may_refuse(const struct policy_facts *f)
{
	return f->snap->h->settings.bad_refuse > 0 && policy_mode(f, RULE_DICTIONARY) >= POLICY_DEFER;
}

bool dictionary_refuses(const struct worker *w, const struct policy_facts *f)
{
	uint8_t ip[16];
	const struct place *p;

	client_of(f, ip);
	p = place_of(w->dictionary, ip);
	return dictionary_may_refuse(f) && memcmp(p->ip, ip, 16) == 0 && p->until_ns > w->now_ns;
}

void dictionary_refusal(const struct policy_facts *f, struct reply *r)
{
	reply_set(r, 421, "4.7.0", "%s: your host has tried too many unknown recipients, come back later", snap_cstr(f->snap, f->snap->h->settings.hostname));
}

static void on_refused(void *ctx, const struct span *values)
{
	struct session *s = ctx;

	s->check->query = NULL;
	if (values && values[0].p) {
		s->check->refused = true;
		refuse_until(s, s->w->now_ns + BELIEVE_NS);
	}
	recipient_go_on(s);
}

bool dictionary_look(struct session *s)
{
	struct span name = DICTIONARY_REFUSED;
	char buf[64];

	if (s->check->looked || s->rcpt_looked || !dictionary_may_refuse(&s->facts))
		return false;
	s->check->looked = s->rcpt_looked = true;
	s->check->refused = dictionary_refuses(s->w, &s->facts);
	return !s->check->refused && shared_get(s->w->shared, dictionary_key(&s->facts, buf, sizeof(buf)), &name, 1, on_refused, s, &s->check->query) == ST_AGAIN;
}

/* ---- counting ---- */

static void attack_log(const struct session *s, struct span client, uint64_t refused_ns)
{
	struct logline l;

	log_begin(&l, LOG_LVL_WARN, "dictionary-attack");
	log_str(&l, "rule", "B3");
	log_str(&l, "mode", policy_mode_words[policy_mode(&s->facts, RULE_DICTIONARY)]);
	log_span(&l, "client", client);
	log_u64(&l, "refused_s", refused_ns / NS_PER_S);
	log_emit(&l);
}

/* The recipient is refused in any case: in mode monitor as the unknown one that it is, else its client with it. */
static void refuse(struct session *s)
{
	uint64_t life = dictionary_may_refuse(&s->facts) ? s->cfg->set->bad_refuse_ns : 0;
	char buf[64];
	struct span key = dictionary_key(&s->facts, buf, sizeof(buf));

	attack_log(s, span_skip(key, 4), life);
	if (!life) {
		counter_add(C_POLICY_MONITORED, 1);
		rule_count(RULE_DICTIONARY, policy_class(&s->facts), POLICY_MONITOR);
		return;
	}
	refuse_until(s, s->w->now_ns + life);
	shared_put(s->w->shared, key, DICTIONARY_REFUSED, SPAN("1"), life);
	s->check->d.rule = RULE_DICTIONARY;
	counter_add(C_BAD_REFUSED, 1);
	dictionary_refusal(&s->facts, &s->check->d.reply);
}

/* True: the reply waits. */
static bool take_count(struct session *s, const struct rate_answer *a)
{
	const struct snap_settings *set = s->cfg->set;

	if (set->bad_refuse > 0 && a->rate >= set->bad_refuse) {
		refuse(s);
		return false;
	}
	if (policy_mode(&s->facts, RULE_DICTIONARY) < POLICY_DEFER || set->bad_slow <= 0 || a->rate < set->bad_slow || !set->bad_delay_ns)
		return false;
	counter_add(C_BAD_SLOWED, 1);
	s->check->timer.kind = TIMER_RCPT;
	wheel_set(s->w->wheel, &s->check->timer, s->w->now_ns + set->bad_delay_ns);
	return true;
}

static void on_counted(void *ctx, const struct rate_answer *a)
{
	struct session *s = ctx;

	s->check->query = NULL;
	if (!take_count(s, a))
		recipient_go_on(s);
}

bool dictionary_count(struct session *s)
{
	const struct snap_settings *set = s->cfg->set;
	struct rate_answer a;
	char buf[64];

	if (s->check->counted || !is_looked_at(&s->facts))
		return false;
	s->check->counted = true;
	if (shared_rate(s->w->shared, dictionary_key(&s->facts, buf, sizeof(buf)), 1, set->bad_refuse > 0 ? set->bad_refuse : set->bad_slow, set->bad_period_ns, false,
		on_counted, s, &a, &s->check->query) == ST_OK)
		return take_count(s, &a);
	return true;
}

void dictionary_timer(struct worker *w, struct timer *t)
{
	(void)w;
	recipient_go_on(container_of(t, struct rcpt_check, timer)->s);
}
