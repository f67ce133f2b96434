/* Recipient verification: the names under which things are known, and the records in this worker's cache and in Redis. */
#include "dataplane/lookup/known_cache.h"
#include "dataplane/verify.h"
#include "spool/base/clock.h"
#include "spool/base/counters.h"

uint64_t verify_now_ms(void)
{
	return clock_steady_ns() / NS_PER_MS;
}

enum status verify_name(struct span addr, bool or_domain, struct verify_name *ret)
{
	struct out key = out_of(ret->key_buf, sizeof(ret->key_buf)), name = out_of(ret->name_buf, sizeof(ret->name_buf));
	struct address a = { .domain = addr };
	size_t at = 0;
	enum status st;

	if (!or_domain || memchr(addr.p ? addr.p : "", '@', addr.n)) {
		st = address_parse(addr, ADDRESS_UTF8 | ADDRESS_ALLOW_BARE, &a);
		if (st != ST_OK)
			return st;
		if (!a.domain.n || a.is_literal)
			return trail(ST_INVALID, "there is nobody to ask for this address");
		out_add(&key, a.local);
		out_char(&key, '@');
		at = key.n;
		out_str(&name, ":addr:");
		out_add(&name, a.local);
	}
	st = address_domain_key(a.domain, &key);
	ret->key = out_span(&key);
	ret->domain = span_skip(ret->key, at);
	ret->name = out_span(&name);
	return st;
}

bool verify_wanted(const struct worker *w, struct span addr)
{
	char key[ADDRESS_DOMAIN_MAX + 1];
	struct out o = out_of(key, sizeof(key));
	struct address a;

	return address_parse(addr, ADDRESS_UTF8 | ADDRESS_ALLOW_BARE, &a) == ST_OK && a.domain.n && !a.is_literal && address_domain_key(a.domain, &o) == ST_OK &&
		snap_wants_verified(&w->cfg->snap, out_span(&o));
}

void verify_write(struct worker *w, const struct verify_name *n, bool of_domain, const struct known *k)
{
	char text[KNOWN_MAX];
	struct out o = out_of(text, sizeof(text));
	uint64_t life = recipient_life_ns(w->cfg->set, k, of_domain, verify_now_ms());

	known_cache_put(verify_cache(w), of_domain ? n->domain : n->key, k, w->now_ns);
	known_write(k, &o);
	shared_put(w->shared, n->domain, of_domain ? VERIFY_DOMAIN_NAME : n->name, out_span(&o), life);
}

/* Nodes' clocks differ by less than this: what is from later was not written by one of them. */
enum { CLOCKS_DIFFER_MS = 300 * 1000 };

void verify_read(struct span value, struct known *ret)
{
	uint64_t latest = verify_now_ms() + CLOCKS_DIFFER_MS;

	*ret = (struct known){ 0 };
	if (!value.p)
		return;
	if (known_parse(value, ret) == ST_OK && ret->at_ms <= latest && ret->tried_ms <= latest)
		return;
	*ret = (struct known){ 0 };
	counter_add(C_VERIFY_BAD_RECORDS, 1);
}

/* What is older than the domain's forgetting was not heard. */
void verify_drop_forgotten(struct known *k, const struct known *forget)
{
	if (forget->at_ms && k->at_ms <= forget->at_ms && k->tried_ms <= forget->at_ms)
		*k = (struct known){ 0 };
}
