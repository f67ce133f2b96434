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
#include "spool/base/clock.h"
#include "spool/base/counters.h"
#include "spool/base/map.h"

enum { MX_USED = 20, ADDR_USED = 32, SOCKS = 64, TTL_MAX_S = 86400, TTL_NEGATIVE_S = 60, TTL_MIN_S = 1 };

struct dns_query {
	TAILQ_ENTRY(dns_query) entry; /* among the finished */
	struct dns *dns;
	dns_fn *fn;               /* NULL: cancelled */
	void *ctx;
	struct dns_answer *answer;
	uint32_t pending, ttl_s;
	bool is_mx, temporary, nxdomain;
	char name[256];
};

struct cached {
	struct dns_answer *answer;
	uint64_t until_ns;
};

struct sock {
	int fd;
	uint32_t gen;
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
}

static void on_sock_state(void *data, ares_socket_t fd, int readable, int writable)
{
	struct dns *d = data;
	struct sock *k = NULL;

	for (int i = 0; i < SOCKS; i++)
		if (d->sock[i].used && d->sock[i].fd == fd)
			k = &d->sock[i];
	if (!readable && !writable) { /* it is being closed: a poll under way belongs to an old generation now */
		if (k)
			*k = (struct sock){ .gen = ++d->next_gen & 0xffffff };
		return;
	}
	for (int i = 0; i < SOCKS && !k; i++)
		if (!d->sock[i].used) {
			k = &d->sock[i];
			*k = (struct sock){ .fd = fd, .used = true, .gen = ++d->next_gen & 0xffffff };
		}
	if (!k)
		return; /* more sockets than servers: those queries end by their time */
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

/* ---- answers ---- */

void dns_answer_release(struct dns_answer *a)
{
	if (!a || --a->refs)
		return;
	free(a->mx);
	free(a->addr);
	free(a);
}

/* The smallest TTL of the answer section; c-ares does not give that of MX records. Bounded by the packet. */
static uint32_t answer_ttl(const unsigned char *buf, int len)
{
	const unsigned char *p = buf + HFIXEDSZ;
	uint32_t ttl = TTL_MAX_S;
	unsigned count;
	char *name;
	long n;

	if (len < HFIXEDSZ)
		return TTL_MIN_S;
	if (ares_expand_name(p, buf, len, &name, &n) != ARES_SUCCESS)
		return TTL_MIN_S;
	ares_free_string(name);
	p += n + QFIXEDSZ;
	for (count = (unsigned)(buf[6] << 8 | buf[7]); count; count--) {
		uint32_t t;

		if (p >= buf + len || ares_expand_name(p, buf, len, &name, &n) != ARES_SUCCESS)
			break;
		ares_free_string(name);
		p += n;
		if (p + RRFIXEDSZ > buf + len)
			break;
		t = (uint32_t)p[4] << 24 | (uint32_t)p[5] << 16 | (uint32_t)p[6] << 8 | p[7];
		ttl = t < ttl ? t : ttl;
		p += RRFIXEDSZ + (p[8] << 8 | p[9]);
	}
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

static void take_mx(struct dns_query *q, const unsigned char *buf, int len)
{
	struct ares_mx_reply *list = NULL, *m;
	struct dns_answer *a = q->answer;
	uint32_t n = 0;

	if (ares_parse_mx_reply(buf, len, &list) != ARES_SUCCESS)
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

static void take_addr(struct dns_query *q, const unsigned char *buf, int len, bool v6)
{
	struct hostent *h = NULL;
	int st = v6 ? ares_parse_aaaa_reply(buf, len, &h, NULL, NULL) : ares_parse_a_reply(buf, len, &h, NULL, NULL);

	if (st != ARES_SUCCESS)
		return;
	for (char **p = h->h_addr_list; *p; p++) {
		uint8_t ip[16] = { [10] = 0xff, [11] = 0xff };

		memcpy(v6 ? ip : ip + 12, *p, v6 ? 16 : 4);
		add_addr(q->answer, ip);
	}
	ares_free_hostent(h);
}

static bool is_v6(const uint8_t ip[16])
{
	static const uint8_t mapped[12] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff };

	return memcmp(ip, mapped, sizeof(mapped)) != 0;
}

/* The family that the node can reach first, then one of each in turn. */
static void interleave(struct dns_answer *a, bool v6_first)
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

/* ---- queries ---- */

static void cache_put(struct dns *d, struct dns_query *q)
{
	char key[260];
	int n = snprintf(key, sizeof(key), "%c:%s", q->is_mx ? 'm' : 'a', q->name);
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
	bool found = q->is_mx ? a->nmx > 0 : a->naddr > 0;

	if (!q->is_mx)
		interleave(a, q->dns->has_v6);
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
	} else if (q->is_mx && (a->mx = realloc(a->mx, sizeof(*a->mx)))) {
		a->result = DNS_FOUND; /* implicit MX: whether it has an address shows when that is looked up */
		snprintf(a->mx[0].name, sizeof(a->mx[0].name), "%s", q->name);
		a->mx[0].preference = 0;
		a->nmx = 1;
		q->ttl_s = TTL_NEGATIVE_S;
	} else {
		a->result = DNS_NODATA;
		snprintf(a->text, sizeof(a->text), "no address record");
	}
	if (!q->dns->freeing)
		cache_put(q->dns, q);
	TAILQ_INSERT_TAIL(&q->dns->finished, q, entry);
}

static void part_done(struct dns_query *q, int status, const unsigned char *buf, int len, int type)
{
	uint32_t ttl;

	switch (status) {
	case ARES_SUCCESS:
		ttl = answer_ttl(buf, len);
		q->ttl_s = ttl < q->ttl_s ? ttl : q->ttl_s;
		if (type == ns_t_mx)
			take_mx(q, buf, len);
		else
			take_addr(q, buf, len, type == ns_t_aaaa);
		break;
	case ARES_ENODATA:
		break;
	case ARES_ENOTFOUND:
	case ARES_EBADNAME:
		q->nxdomain = true;
		break;
	default:
		q->temporary = true;
		snprintf(q->answer->text, sizeof(q->answer->text), "%s", ares_strerror(status));
		break;
	}
	if (--q->pending == 0)
		finish(q);
}

static void on_mx(void *arg, int status, int timeouts, unsigned char *buf, int len)
{
	(void)timeouts;
	part_done(arg, status, buf, len, ns_t_mx);
}

static void on_a(void *arg, int status, int timeouts, unsigned char *buf, int len)
{
	(void)timeouts;
	part_done(arg, status, buf, len, ns_t_a);
}

static void on_aaaa(void *arg, int status, int timeouts, unsigned char *buf, int len)
{
	(void)timeouts;
	part_done(arg, status, buf, len, ns_t_aaaa);
}

static enum status ask(struct dns *d, bool is_mx, struct span name, dns_fn *fn, void *ctx, struct dns_answer **ret_answer,
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
	if (cache_get(d, is_mx ? 'm' : 'a', z, ret_answer))
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
	q->is_mx = is_mx;
	q->ttl_s = TTL_MAX_S;
	q->answer->refs = 1;
	q->pending = is_mx ? 1 : 2;
	d->running++;
	counter_add(C_DNS_QUERIES, q->pending);
	*ret_query = q; /* before asking: the answer may come at once, into the list of the finished */
	if (is_mx) {
		ares_query(d->channel, z, ns_c_in, ns_t_mx, on_mx, q);
	} else {
		ares_query(d->channel, z, ns_c_in, ns_t_aaaa, on_aaaa, q);
		ares_query(d->channel, z, ns_c_in, ns_t_a, on_a, q);
	}
	return ST_AGAIN;
}

enum status dns_mx(struct dns *d, struct span domain, dns_fn *fn, void *ctx, struct dns_answer **ret_answer, struct dns_query **ret_query)
{
	return ask(d, true, domain, fn, ctx, ret_answer, ret_query);
}

enum status dns_addr(struct dns *d, struct span host, dns_fn *fn, void *ctx, struct dns_answer **ret_answer, struct dns_query **ret_query)
{
	return ask(d, false, host, fn, ctx, ret_answer, ret_query);
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
	r = ares_init_options(&d->channel, &o, ARES_OPT_FLAGS | ARES_OPT_TRIES | ARES_OPT_TIMEOUTMS | ARES_OPT_SOCK_STATE_CB);
	if (r == ARES_SUCCESS && cfg->servers && *cfg->servers)
		r = ares_set_servers_ports_csv(d->channel, cfg->servers);
	if (r != ARES_SUCCESS) {
		map_free(d->cache);
		free(d);
		return trail(ST_INVALID, "DNS servers \"%s\": %s", cfg->servers ? cfg->servers : "", ares_strerror(r));
	}
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
