/* What is known of an address or a domain, for operators. */
#include "dataplane/lookup/known_cache.h"
#include "dataplane/verify.h"
#include "spool/base/clock.h"
#include "spool/base/counters.h"

static void log_age(struct logline *row, const char *key, uint64_t at_ms)
{
	uint64_t now = clock_steady_ns() / NS_PER_MS;

	if (at_ms)
		log_u64(row, key, now > at_ms ? (now - at_ms) / 1000 : 0);
}

static void show_record(const struct verify_show *s, const char *where, struct span what, const struct known *k)
{
	char text[REPLY_TEXT_MAX + 32];
	struct out o = out_of(text, sizeof(text));
	struct logline row;

	row_begin(&row);
	log_str(&row, "where", where);
	log_span(&row, "what", what);
	log_str(&row, "known", known_name(k->kind));
	log_age(&row, "age_s", k->at_ms);
	log_age(&row, "asked_in_vain_s", k->tried_ms);
	if (k->reply.code) {
		reply_line(&k->reply, &o);
		log_span(&row, "reply", out_span(&o));
	}
	s->row(s->ctx, &row);
}

static void show_here(const struct verify_show *s)
{
	struct known k;
	uint64_t at;

	known_cache_get(verify_cache(s->w), s->n.key, &k, &at);
	if (at && s->n.name.n)
		show_record(s, "worker", s->n.key, &k);
	known_cache_get(verify_cache(s->w), s->n.domain, &k, &at);
	if (at)
		show_record(s, "worker", s->n.domain, &k);
}

static void show_value(const struct verify_show *s, struct span what, struct span value)
{
	struct logline row;
	struct known k;

	if (!value.p)
		return;
	if (known_parse(value, &k) == ST_OK) {
		show_record(s, "redis", what, &k);
		return;
	}
	row_begin(&row);
	log_str(&row, "where", "redis");
	log_span(&row, "what", what);
	log_str(&row, "known", "nothing: the record is malformed and is not believed");
	s->row(s->ctx, &row);
}

static void on_values(void *ctx, const struct span *values)
{
	struct verify_show *s = ctx;
	struct logline row;

	if (values) {
		show_value(s, s->n.domain, values[0]);
		show_value(s, s->n.domain, values[1]);
		if (s->n.name.n)
			show_value(s, s->n.key, values[2]);
	} else {
		row_begin(&row);
		log_str(&row, "where", "redis");
		log_str(&row, "known", "not to be had: Redis does not answer");
		s->row(s->ctx, &row);
	}
	s->end(s->ctx);
}

const char *verify_show_begin(struct worker *w, const char *what, struct verify_show *s, struct shared_query **ret_query)
{
	struct span names[3] = { VERIFY_DOMAIN_NAME, VERIFY_FORGET_NAME };

	*ret_query = NULL;
	s->w = w;
	if (!what || verify_name(span_str(what), true, &s->n) != ST_OK)
		return "what is wanted is an address or a domain";
	names[2] = s->n.name;
	show_here(s);
	if (shared_get(w->shared, s->n.domain, names, s->n.name.n ? 3 : 2, on_values, s, ret_query) != ST_AGAIN)
		on_values(s, NULL);
	return NULL;
}

const char *verify_forget(struct worker *w, const char *what)
{
	struct known forget = { .kind = KNOWN_FORGET, .at_ms = clock_steady_ns() / NS_PER_MS };
	char text[KNOWN_MAX];
	struct out o = out_of(text, sizeof(text));
	struct verify_name n;

	if (!what || verify_name(span_str(what), true, &n) != ST_OK)
		return "what is wanted is an address or a domain";
	if (n.name.n) {
		known_cache_forget(verify_cache(w), n.key);
		shared_delete(w->shared, n.domain, n.name);
		return NULL;
	}
	known_cache_forget_domain(verify_cache(w), n.domain);
	known_write(&forget, &o);
	shared_put(w->shared, n.domain, VERIFY_FORGET_NAME, out_span(&o), recipient_life_ns(w->cfg->set, &forget, true, forget.at_ms));
	shared_delete(w->shared, n.domain, VERIFY_DOMAIN_NAME);
	return NULL;
}
