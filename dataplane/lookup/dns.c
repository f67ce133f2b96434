#include "dataplane/lookup/dns.h"

#include <ares.h>
#include <arpa/nameser.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/queue.h>
#include <unistd.h>
#include "dataplane/lookup/answer.h"
#include "dataplane/lookup/rr.h"
#include "spool/base/clock.h"
#include "spool/base/counters.h"
#include "spool/base/map.h"

enum { EDNS_SIZE = 1232, SOCKS = 64, TTL_MAX_S = 86400, TTL_NEGATIVE_S = 60 };

/* What is asked for; also the first letter of the cache's key. */
enum kind { KIND_MX = 'm', KIND_ADDR = 'a', KIND_TXT = 't', KIND_TLSA = 'l', KIND_PTR = 'p' };
enum { TYPE_TLSA = 52 };

struct dns_query {
	TAILQ_ENTRY(dns_query) entry; /* among the finished */
	struct dns *dns;
	dns_fn *fn;               /* NULL: cancelled */
	void *ctx;
	struct dns_answer *answer;
	uint32_t pending, ttl_s;
	enum kind kind;
	bool temporary, nxdomain;
	bool secure; /* every message so far had the AD bit */
	char name[256];
};

struct cached {
	struct dns_answer *answer;
	uint64_t until_ns;
};

struct sock {
	int fd;
	uint32_t gen;
	uint64_t poll; /* user_data of the poll under way */
	bool used, in, out, polling;
};

struct dns {
	struct uring *uring;
	ares_channel channel;
	struct dns_config cfg;
	struct map *cache;
	struct sock sock[SOCKS];
	uint32_t next_gen;
	TAILQ_HEAD(, dns_query) finished;
	uint32_t running;
	bool has_v6, freeing;
};

/* ---- sockets of c-ares on the loop ---- */

static void sock_arm(struct dns *d, struct sock *k)
{
	struct io_uring_sqe *sqe;

	if (k->polling || !k->used)
		return;
	k->polling = true;
	sqe = uring_sqe(d->uring);
	io_uring_prep_poll_add(sqe, k->fd, (k->in ? POLLIN : 0) | (k->out ? POLLOUT : 0));
	uring_tag(sqe, URING_DNS, 0, (uint32_t)(k - d->sock), k->gen);
	k->poll = sqe->user_data;
}

/* Takes a poll back: it would keep a socket that c-ares closes, and does not know what is waited for now. A completion that comes yet dies by its generation. */
static void sock_disarm(struct dns *d, struct sock *k)
{
	struct io_uring_sqe *sqe;

	if (k->polling && !d->freeing) {
		sqe = uring_sqe(d->uring);
		io_uring_prep_cancel64(sqe, k->poll, 0);
		uring_tag(sqe, URING_NONE, 0, 0, 0);
	}
	k->polling = false;
	k->gen = ++d->next_gen & 0xffffff;
}

static void on_sock_state(void *data, ares_socket_t fd, int readable, int writable)
{
	struct dns *d = data;
	struct sock *k = NULL;

	for (int i = 0; i < SOCKS; i++)
		if (d->sock[i].used && d->sock[i].fd == fd)
			k = &d->sock[i];
	if (!readable && !writable) { /* it is being closed */
		if (k) {
			sock_disarm(d, k);
			*k = (struct sock){ .gen = k->gen };
		}
		return;
	}
	for (int i = 0; i < SOCKS && !k; i++)
		if (!d->sock[i].used) {
			k = &d->sock[i];
			*k = (struct sock){ .fd = fd, .used = true, .gen = ++d->next_gen & 0xffffff };
		}
	if (!k)
		return; /* more sockets than servers: those queries end by their time */
	if (k->in != (bool)readable || k->out != (bool)writable)
		sock_disarm(d, k); /* TCP: first for what comes, then also for when the question can go */
	k->in = readable;
	k->out = writable;
	sock_arm(d, k);
}

static void on_completion(void *ctx, const struct uring_event *ev)
{
	struct dns *d = ctx;
	struct sock *k = &d->sock[ev->slot % SOCKS];
	int fd = k->fd;

	if (!k->used || k->gen != ev->gen)
		return;
	k->polling = false;
	ares_process_fd(d->channel, (ev->res & (POLLIN | POLLERR | POLLHUP)) ? fd : ARES_SOCKET_BAD,
		(ev->res & (POLLOUT | POLLERR)) ? fd : ARES_SOCKET_BAD);
	if (k->used && k->gen == ev->gen)
		sock_arm(d, k);
}

/* ---- queries ---- */

static void cache_put(struct dns *d, struct dns_query *q)
{
	char key[260];
	int n = snprintf(key, sizeof(key), "%c:%s", (char)q->kind, q->name);
	uint32_t ttl = q->answer->result == DNS_FOUND ? q->ttl_s : TTL_NEGATIVE_S;
	struct cached *c, *old;

	if (q->answer->result == DNS_TEMPFAIL || map_len(d->cache) >= d->cfg.cache_max)
		return;
	c = malloc(sizeof(*c));
	if (!c)
		return;
	*c = (struct cached){ .answer = q->answer, .until_ns = clock_mono_ns() + ttl * NS_PER_S };
	old = map_get(d->cache, span_of(key, (size_t)n));
	if (map_set(d->cache, span_of(key, (size_t)n), c) != ST_OK) {
		free(c);
		return;
	}
	q->answer->refs++;
	if (old) {
		dns_answer_release(old->answer);
		free(old);
	}
}

static void cache_sweep(struct dns *d, bool all)
{
	uint64_t now = clock_mono_ns();
	struct span key;
	size_t pos = 0;
	void *v;

	while (map_next(d->cache, &pos, &key, &v)) {
		struct cached *c = v;

		if (!all && c->until_ns > now)
			continue;
		dns_answer_release(c->answer);
		map_del(d->cache, key);
		free(c);
	}
}

static bool cache_get(struct dns *d, char kind, const char *name, struct dns_answer **ret)
{
	char key[260];
	int n = snprintf(key, sizeof(key), "%c:%s", kind, name);
	struct cached *c = map_get(d->cache, span_of(key, (size_t)n));

	if (!c || c->until_ns <= clock_mono_ns())
		return false;
	c->answer->refs++;
	*ret = c->answer;
	counter_add(C_DNS_CACHE_HITS, 1);
	return true;
}

/* All parts of the question are answered. */
static void finish(struct dns_query *q)
{
	struct dns_answer *a = q->answer;
	bool is_mx = q->kind == KIND_MX, found = is_mx ? a->nmx > 0 : q->kind == KIND_ADDR ? a->naddr > 0 : a->nrr > 0;

	a->secure = q->secure && q->dns->cfg.validates;
	counter_add(C_DNS_SECURE, a->secure);
	if (q->kind == KIND_ADDR)
		answer_interleave(a, q->dns->has_v6);
	if (found) {
		a->result = DNS_FOUND;
	} else if (a->result == DNS_NULL_MX) {
		snprintf(a->text, sizeof(a->text), "null MX");
	} else if (q->temporary) {
		a->result = DNS_TEMPFAIL;
		counter_add(C_DNS_FAILURES, 1);
	} else if (q->nxdomain) {
		a->result = DNS_NXDOMAIN;
		snprintf(a->text, sizeof(a->text), "the domain does not exist");
	} else if (is_mx && (a->mx = realloc(a->mx, sizeof(*a->mx)))) {
		a->result = DNS_FOUND; /* implicit MX: whether it has an address shows when that is looked up */
		snprintf(a->mx[0].name, sizeof(a->mx[0].name), "%s", q->name);
		a->mx[0].preference = 0;
		a->nmx = 1;
		a->implicit_mx = true;
		q->ttl_s = TTL_NEGATIVE_S;
	} else {
		a->result = DNS_NODATA;
		snprintf(a->text, sizeof(a->text), q->kind == KIND_ADDR ? "no address record" : "no such record");
	}
	if (!q->dns->freeing)
		cache_put(q->dns, q);
	TAILQ_INSERT_TAIL(&q->dns->finished, q, entry);
}

static void part_failed(struct dns_query *q, int status)
{
	q->temporary = true;
	snprintf(q->answer->text, sizeof(q->answer->text), "%s", ares_strerror(status));
}

/* A message came. The AD bit is about its absences too. */
static void part_taken(struct dns_query *q, const unsigned char *buf, int len, int type)
{
	struct span m = span_of(buf, (size_t)len);
	uint32_t ttl;

	q->secure = q->secure && rr_authentic(m);
	if (rr_rcode(m) == ns_r_nxdomain) {
		q->nxdomain = true;
		return;
	}
	if (rr_rcode(m) != ns_r_noerror) {
		part_failed(q, rr_rcode(m) == ns_r_refused ? ARES_EREFUSED : ARES_ESERVFAIL);
		return;
	}
	if (!rr_count(m))
		return;
	ttl = answer_ttl_s(m, TTL_MAX_S);
	q->ttl_s = ttl < q->ttl_s ? ttl : q->ttl_s;
	if (type == ns_t_mx)
		answer_take_mx(q->answer, m);
	else if (q->kind == KIND_ADDR)
		answer_take_addr(q->answer, m, q->name, type == ns_t_aaaa);
	else if (q->kind == KIND_PTR)
		answer_take_ptr(q->answer, m);
	else
		answer_take_rr(q->answer, m, (uint16_t)type);
}

static void part_done(struct dns_query *q, int status, const unsigned char *buf, int len, int type)
{
	if (status == ARES_SUCCESS)
		part_taken(q, buf, len, type);
	else if (status == ARES_ENOTFOUND || status == ARES_EBADNAME)
		q->nxdomain = true;
	else
		part_failed(q, status);
	if (--q->pending == 0)
		finish(q);
}

static void on_mx(void *arg, int status, int timeouts, unsigned char *buf, int len)
{
	part_done(arg, status, buf, len, ns_t_mx);
}

static void on_a(void *arg, int status, int timeouts, unsigned char *buf, int len)
{
	part_done(arg, status, buf, len, ns_t_a);
}

static void on_aaaa(void *arg, int status, int timeouts, unsigned char *buf, int len)
{
	part_done(arg, status, buf, len, ns_t_aaaa);
}

static void on_txt(void *arg, int status, int timeouts, unsigned char *buf, int len)
{
	part_done(arg, status, buf, len, ns_t_txt);
}

static void on_tlsa(void *arg, int status, int timeouts, unsigned char *buf, int len)
{
	part_done(arg, status, buf, len, TYPE_TLSA);
}

static void on_ptr(void *arg, int status, int timeouts, unsigned char *buf, int len)
{
	part_done(arg, status, buf, len, ns_t_ptr);
}

/* Sends one question. c-ares's own ares_query would hide the header of the answer; and to a validating resolver AD (RFC 6840 5.7) and DO are set
 * by hand: the library knows neither. */
static void send_question(struct dns_query *q, int type, ares_callback fn)
{
	struct dns *d = q->dns;
	unsigned char *buf = NULL;
	int len = 0, r;

	r = ares_create_query(q->name, ns_c_in, type, (unsigned short)arc4random(), 1, &buf, &len, d->cfg.validates ? EDNS_SIZE : 0);
	if (r != ARES_SUCCESS) {
		fn(q, r, 0, NULL, 0);
		return;
	}
	if (d->cfg.validates) {
		buf[3] |= 0x20;
		buf[len - 4] |= 0x80; /* OPT is last: the upper half of its TTL's flags (RFC 6891 6.1.3) */
	}
	ares_send(d->channel, buf, len, fn, q);
	ares_free_string(buf);
}

static enum status ask(struct dns *d, enum kind kind, struct span name, dns_fn *fn, void *ctx, struct dns_answer **ret_answer,
	struct dns_query **ret_query)
{
	struct dns_query *q;
	char z[256];

	*ret_answer = NULL;
	*ret_query = NULL;
	if (name.n >= sizeof(z) || memchr(name.p, 0, name.n))
		return trail(ST_INVALID, "the name is too long");
	memcpy(z, name.p, name.n);
	z[name.n] = '\0';
	if (cache_get(d, (char)kind, z, ret_answer))
		return ST_OK;
	q = calloc(1, sizeof(*q));
	if (!q || !(q->answer = calloc(1, sizeof(*q->answer)))) {
		free(q);
		return trail(ST_NOMEM, "out of memory");
	}
	memcpy(q->name, z, name.n + 1);
	q->dns = d;
	q->fn = fn;
	q->ctx = ctx;
	q->kind = kind;
	q->secure = true;
	q->ttl_s = TTL_MAX_S;
	q->answer->refs = 1;
	q->pending = kind == KIND_ADDR ? 2 : 1;
	d->running++;
	counter_add(C_DNS_QUERIES, q->pending);
	*ret_query = q; /* before asking: the answer may come at once, into the list of the finished */
	switch (kind) {
	case KIND_MX:
		send_question(q, ns_t_mx, on_mx);
		break;
	case KIND_ADDR:
		send_question(q, ns_t_aaaa, on_aaaa);
		send_question(q, ns_t_a, on_a);
		break;
	case KIND_TXT:
		send_question(q, ns_t_txt, on_txt);
		break;
	case KIND_TLSA:
		send_question(q, TYPE_TLSA, on_tlsa);
		break;
	case KIND_PTR:
		send_question(q, ns_t_ptr, on_ptr);
		break;
	}
	return ST_AGAIN;
}

enum status dns_mx(struct dns *d, struct span domain, dns_fn *fn, void *ctx, struct dns_answer **ret_answer, struct dns_query **ret_query)
{
	return ask(d, KIND_MX, domain, fn, ctx, ret_answer, ret_query);
}

enum status dns_addr(struct dns *d, struct span host, dns_fn *fn, void *ctx, struct dns_answer **ret_answer, struct dns_query **ret_query)
{
	return ask(d, KIND_ADDR, host, fn, ctx, ret_answer, ret_query);
}

enum status dns_txt(struct dns *d, struct span name, dns_fn *fn, void *ctx, struct dns_answer **ret_answer, struct dns_query **ret_query)
{
	return ask(d, KIND_TXT, name, fn, ctx, ret_answer, ret_query);
}

enum status dns_tlsa(struct dns *d, struct span name, dns_fn *fn, void *ctx, struct dns_answer **ret_answer, struct dns_query **ret_query)
{
	return ask(d, KIND_TLSA, name, fn, ctx, ret_answer, ret_query);
}

enum status dns_ptr(struct dns *d, const uint8_t ip[16], dns_fn *fn, void *ctx, struct dns_answer **ret_answer, struct dns_query **ret_query)
{
	char name[80];
	struct out o = out_of(name, sizeof(name));

	answer_reverse_name(ip, &o);
	return ask(d, KIND_PTR, out_span(&o), fn, ctx, ret_answer, ret_query);
}

bool dns_validates(const struct dns *d)
{
	return d->cfg.validates;
}

void dns_cancel(struct dns_query *q)
{
	q->fn = NULL;
}

static void deliver(struct dns *d, bool call)
{
	struct dns_query *q;

	while ((q = TAILQ_FIRST(&d->finished))) {
		TAILQ_REMOVE(&d->finished, q, entry);
		d->running--;
		if (q->fn && call)
			q->fn(q->ctx, q->answer);
		else
			dns_answer_release(q->answer);
		free(q);
	}
}

void dns_turn(struct dns *d, uint64_t now_ns, uint64_t *ret_wait_ns)
{
	struct timeval tv, *t;

	deliver(d, true);
	*ret_wait_ns = UINT64_MAX;
	if (map_len(d->cache) >= d->cfg.cache_max)
		cache_sweep(d, false);
	if (map_len(d->cache) >= d->cfg.cache_max)
		cache_sweep(d, true);
	if (!d->running)
		return;
	ares_process_fd(d->channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
	deliver(d, true);
	t = d->running ? ares_timeout(d->channel, NULL, &tv) : NULL;
	if (t)
		*ret_wait_ns = (uint64_t)t->tv_sec * NS_PER_S + (uint64_t)t->tv_usec * NS_PER_US + NS_PER_MS;
	(void)now_ns;
}

/* Whether the kernel has a route to the IPv6 Internet: connecting a datagram socket sends nothing. */
static bool has_v6_route(void)
{
	struct sockaddr_in6 a = { .sin6_family = AF_INET6, .sin6_port = htons(53), .sin6_addr = { { { 0x20, 0x01, 0x0d, 0xb8 } } } };
	int fd = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	bool ok = fd >= 0 && connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0;

	if (fd >= 0)
		close(fd);
	return ok;
}

enum status dns_new(struct uring *u, const struct dns_config *cfg, struct dns **ret)
{
	struct dns *d = calloc(1, sizeof(*d));
	struct ares_options o = { .flags = ARES_FLAG_NOSEARCH | ARES_FLAG_NOALIASES, .tries = 2, .sock_state_cb = on_sock_state };
	int r;

	if (!d)
		return ST_NOMEM;
	d->uring = u;
	d->cfg = *cfg;
	TAILQ_INIT(&d->finished);
	d->has_v6 = has_v6_route();
	o.sock_state_cb_data = d;
	/* two tries, the second waits twice as long: together the whole budget */
	o.timeout = (int)(cfg->timeout_ns / NS_PER_MS / 3);
	if (map_new(&d->cache) != ST_OK || ares_library_init(ARES_LIB_INIT_ALL) != ARES_SUCCESS) {
		free(d);
		return ST_NOMEM;
	}
	if (cfg->validates) { /* lets c-ares take answers of that size by UDP */
		o.flags |= ARES_FLAG_EDNS;
		o.ednspsz = EDNS_SIZE;
	}
	r = ares_init_options(&d->channel, &o, ARES_OPT_FLAGS | ARES_OPT_TRIES | ARES_OPT_TIMEOUTMS | ARES_OPT_SOCK_STATE_CB |
		(cfg->validates ? ARES_OPT_EDNSPSZ : 0));
	if (r == ARES_SUCCESS && cfg->servers && *cfg->servers)
		r = ares_set_servers_ports_csv(d->channel, cfg->servers);
	if (r != ARES_SUCCESS) {
		map_free(d->cache);
		free(d);
		return trail(ST_INVALID, "DNS servers \"%s\": %s", cfg->servers ? cfg->servers : "", ares_strerror(r));
	}
	counter_set(C_DNS_VALIDATES, cfg->validates);
	uring_handle(u, URING_DNS, on_completion, d);
	*ret = d;
	return ST_OK;
}

void dns_free(struct dns *d)
{
	if (!d)
		return;
	d->freeing = true;
	ares_destroy(d->channel); /* ends every query */
	uring_handle(d->uring, URING_DNS, NULL, NULL);
	deliver(d, false);
	cache_sweep(d, true);
	map_free(d->cache);
	ares_library_cleanup();
	free(d);
}
