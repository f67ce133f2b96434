#include "dataplane/lookup/answer.h"

#include <ares.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include "dataplane/lookup/rr.h"
#include "spool/mail/address.h"

enum { TYPE_PTR = 12, MX_USED = 20, ADDR_USED = 32, RR_USED = 32, RR_LEN_MAX = 4096, TTL_MIN_S = 1 };

void dns_answer_release(struct dns_answer *a)
{
	if (!a || --a->refs)
		return;
	for (uint32_t i = 0; i < a->nrr; i++)
		free((void *)(uintptr_t)a->rr[i].p);
	free(a->rr);
	free(a->mx);
	free(a->addr);
	free(a->canonical);
	free(a);
}

uint32_t answer_ttl_s(struct span message, uint32_t most)
{
	uint32_t ttl = most;
	struct rr_walk w;
	struct rr rr;

	rr_begin(&w, message);
	while (rr_next(&w, &rr))
		ttl = rr.ttl_s < ttl ? rr.ttl_s : ttl;
	return ttl < TTL_MIN_S ? TTL_MIN_S : ttl;
}

static int by_preference(const void *a, const void *b)
{
	const struct dns_mx_host *x = a, *y = b;

	return (int)x->preference - (int)y->preference;
}

/* Equal preferences in random order (RFC 5321 5.1). */
static void shuffle_equal(struct dns_answer *a)
{
	for (uint32_t i = a->nmx; i > 1; i--) {
		uint32_t k = (uint32_t)random() % i;
		struct dns_mx_host t = a->mx[i - 1];

		a->mx[i - 1] = a->mx[k];
		a->mx[k] = t;
	}
	/* a stable sort is not needed: the order among equals is random anyway */
	qsort(a->mx, a->nmx, sizeof(*a->mx), by_preference);
	if (a->nmx > MX_USED)
		a->nmx = MX_USED;
}

void answer_take_mx(struct dns_answer *a, struct span message)
{
	struct ares_mx_reply *list = NULL, *m;
	uint32_t n = 0;

	if (ares_parse_mx_reply((const unsigned char *)message.p, (int)message.n, &list) != ARES_SUCCESS)
		return;
	for (m = list; m; m = m->next)
		n++;
	a->mx = calloc(n ? n : 1, sizeof(*a->mx));
	for (m = list; m && a->mx; m = m->next) {
		if (!m->host[0] || strcmp(m->host, ".") == 0) { /* RFC 7505 when it is the only one; else it is nothing */
			a->result = n == 1 ? DNS_NULL_MX : a->result;
			continue;
		}
		snprintf(a->mx[a->nmx].name, sizeof(a->mx[0].name), "%s", m->host);
		a->mx[a->nmx++].preference = m->priority;
	}
	ares_free_data(list);
	if (a->nmx)
		shuffle_equal(a);
}

static void add_addr(struct dns_answer *a, const uint8_t ip[16])
{
	uint8_t(*bigger)[16];

	if (a->naddr == ADDR_USED)
		return;
	bigger = realloc(a->addr, (a->naddr + 1) * sizeof(*bigger));
	if (!bigger)
		return;
	a->addr = bigger;
	memcpy(a->addr[a->naddr++], ip, 16);
}

void answer_take_addr(struct dns_answer *a, struct span message, const char *name, bool v6)
{
	const unsigned char *buf = (const unsigned char *)message.p;
	int len = (int)message.n;
	struct hostent *h = NULL;
	int st = v6 ? ares_parse_aaaa_reply(buf, len, &h, NULL, NULL) : ares_parse_a_reply(buf, len, &h, NULL, NULL);

	if (st != ARES_SUCCESS)
		return;
	for (char **p = h->h_addr_list; *p; p++) {
		uint8_t ip[16] = { [10] = 0xff, [11] = 0xff };

		memcpy(v6 ? ip : ip + 12, *p, v6 ? 16 : 4);
		add_addr(a, ip);
	}
	if (h->h_name && !a->canonical && strcasecmp(h->h_name, name) != 0)
		a->canonical = strdup(h->h_name);
	ares_free_hostent(h);
}

void answer_take_rr(struct dns_answer *a, struct span message, uint16_t type)
{
	struct rr_walk w;
	struct rr rr;

	a->rr = calloc(RR_USED, sizeof(*a->rr));
	rr_begin(&w, message);
	while (a->rr && a->nrr < RR_USED && rr_next(&w, &rr)) {
		char *copy = rr.type == type && rr.data.n && rr.data.n <= RR_LEN_MAX ? malloc(rr.data.n) : NULL;

		if (!copy)
			continue;
		memcpy(copy, rr.data.p, rr.data.n);
		a->rr[a->nrr++] = span_of(copy, rr.data.n);
	}
}

/* The name that begins at data, which lies in the message, in look-up form. False: it is not a host name. */
static bool host_name(struct span message, struct span data, struct out *o)
{
	char *name = NULL;
	long used;
	bool ok = ares_expand_name((const unsigned char *)data.p, (const unsigned char *)message.p, (int)message.n, &name, &used) == ARES_SUCCESS &&
		address_domain_ok(span_str(name), false) && address_domain_key(span_str(name), o) == ST_OK;

	ares_free_string(name);
	return ok;
}

void answer_take_ptr(struct dns_answer *a, struct span message)
{
	struct rr_walk w;
	struct rr rr;

	a->rr = calloc(DNS_PTR_USED, sizeof(*a->rr));
	rr_begin(&w, message);
	while (a->rr && a->nrr < DNS_PTR_USED && rr_next(&w, &rr)) {
		char name[ADDRESS_DOMAIN_MAX + 1];
		struct out o = out_of(name, sizeof(name) - 1);
		char *copy;

		if (rr.type != TYPE_PTR || !host_name(message, rr.data, &o))
			continue;
		name[o.n] = '\0';
		copy = strdup(name);
		if (copy)
			a->rr[a->nrr++] = span_of(copy, o.n);
	}
}

static bool is_v6(const uint8_t ip[16])
{
	static const uint8_t mapped[12] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff };

	return memcmp(ip, mapped, sizeof(mapped)) != 0;
}

void answer_interleave(struct dns_answer *a, bool v6_first)
{
	uint8_t(*out)[16] = calloc(a->naddr ? a->naddr : 1, 16);
	bool want = v6_first;
	uint32_t n = 0, i;

	if (!out)
		return;
	while (n < a->naddr) {
		bool found = false;

		for (i = 0; i < a->naddr && !found; i++) {
			bool taken = a->addr[i][0] == 0xff && a->addr[i][1] == 0xff; /* multicast: never a host; used as the mark */

			if (taken || is_v6(a->addr[i]) != want)
				continue;
			memcpy(out[n++], a->addr[i], 16);
			a->addr[i][0] = a->addr[i][1] = 0xff;
			found = true;
		}
		if (!found) {
			bool any = false;

			for (i = 0; i < a->naddr; i++)
				any = any || !(a->addr[i][0] == 0xff && a->addr[i][1] == 0xff);
			if (!any)
				break;
		}
		want = !want;
	}
	free(a->addr);
	a->addr = out;
	a->naddr = n;
}

void answer_reverse_name(const uint8_t ip[16], struct out *o)
{
	if (!is_v6(ip)) {
		out_fmt(o, "%u.%u.%u.%u.in-addr.arpa", ip[15], ip[14], ip[13], ip[12]);
		return;
	}
	for (int i = 15; i >= 0; i--)
		out_fmt(o, "%x.%x.", ip[i] & 15, ip[i] >> 4);
	out_str(o, "ip6.arpa");
}
