#include "control/sts_server.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include "control/sts_cache.h"
#include "control/sts_fetch.h"
#include "spool/base/log.h"
#include "spool/mail/address.h"
#include "spool/store/snapshot.h"
#include "spool/store/sts_ask.h"

enum { WORKERS_MAX = 64, REQUEST_MAX = 2048 };

/* One worker's connection. */
struct asker {
	int fd;       /* -1: free */
	uint64_t gen; /* counts its connections: an answer for an old one is dropped */
};

struct request {
	char domain[256];
	char id[MTA_STS_ID_MAX + 1];
	char address[64];
	uint16_t port;
};

/* A policy that is being fetched, and who waits for it. */
struct job {
	TAILQ_ENTRY(job) entry;
	struct request r;
	unsigned nwaiting;
	struct {
		unsigned asker;
		uint64_t gen;
	} waiting[WORKERS_MAX];
};

static char run[4096];
static int listener = -1;
static struct asker asker[WORKERS_MAX];
static TAILQ_HEAD(, job) jobs = TAILQ_HEAD_INITIALIZER(jobs);

/* ---- answers ---- */

static void send_answer(unsigned i, const char *domain, const struct sts_cached *c, const char *fault, const char *detail)
{
	char packet[STS_ASK_PACKET];
	struct out o = out_of(packet, sizeof(packet));
	struct logline row;

	row_begin(&row);
	log_str(&row, "domain", domain);
	log_str(&row, "result", c ? "policy" : "none");
	log_u64(&row, "left_s", c ? c->left_s : 0);
	if (fault) {
		log_str(&row, "fault", fault);
		log_str(&row, "detail", detail);
	}
	out_add(&o, row_text(&row));
	if (c) {
		out_char(&o, '\n');
		out_add(&o, span_of(c->text, c->len));
	}
	if (send(asker[i].fd, o.p, o.n, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 && errno != EPIPE)
		log_msg(LOG_LVL_WARN, "mta-sts-answer", "%s", strerror(errno));
}

static void log_fetched(const char *domain, const struct sts_cached *c, const char *fault, const char *detail)
{
	struct logline l;
	struct mta_sts_policy p;

	log_begin(&l, fault ? LOG_LVL_WARN : LOG_LVL_INFO, "mta-sts-policy");
	log_str(&l, "domain", domain);
	if (fault) {
		log_str(&l, "fault", fault);
		log_str(&l, "detail", detail);
	}
	if (c && mta_sts_parse(span_of(c->text, c->len), &p) == ST_OK) {
		log_str(&l, "mode", mta_sts_mode_name(p.mode));
		log_u64(&l, "left_s", c->left_s);
	}
	log_emit(&l);
}

/* A new policy replaces what was kept; a fault leaves it in force (RFC 8461 3.3). */
static void on_fetched(void *ctx, const struct mta_sts_policy *p, const char *fault, const char *detail)
{
	struct job *j = ctx;
	struct sts_cached c = { 0 };
	bool have;

	if (p) {
		struct out o = out_of(c.text, sizeof(c.text));

		if (sts_cache_put(j->r.domain, j->r.id, p) != ST_OK)
			log_msg(LOG_LVL_WARN, "mta-sts-cache", "%s", trail_text());
		mta_sts_write(p, &o);
		c.len = o.n;
		c.left_s = p->max_age_s;
	}
	have = p || sts_cache_get(j->r.domain, &c);
	log_fetched(j->r.domain, have ? &c : NULL, fault, detail);
	for (unsigned k = 0; k < j->nwaiting; k++)
		if (asker[j->waiting[k].asker].gen == j->waiting[k].gen && asker[j->waiting[k].asker].fd >= 0)
			send_answer(j->waiting[k].asker, j->r.domain, have ? &c : NULL, fault, detail);
	TAILQ_REMOVE(&jobs, j, entry);
	free(j);
}

/* ---- requests ---- */

static bool read_request(struct span row, struct request *r)
{
	struct span k, v;
	uint64_t port = 443;
	uint8_t ip[16];
	char buf[512];

	*r = (struct request){ 0 };
	while (row_next(&row, &k, &v, buf, sizeof(buf))) {
		struct out o = span_eq(k, SPAN("domain")) ? out_of(r->domain, sizeof(r->domain) - 1) :
			span_eq(k, SPAN("id")) ? out_of(r->id, sizeof(r->id) - 1) :
			span_eq(k, SPAN("address")) ? out_of(r->address, sizeof(r->address) - 1) : out_of(NULL, 0);

		out_add(&o, v);
		if (span_eq(k, SPAN("port")) && !span_u64(v, 65535, &port))
			return false;
	}
	r->port = (uint16_t)port;
	return address_domain_ok(span_str(r->domain), false) && (!r->address[0] || ip_parse(span_str(r->address), ip) == ST_OK);
}

static struct job *find_job(const char *domain)
{
	struct job *j;

	TAILQ_FOREACH(j, &jobs, entry)
		if (strcmp(j->r.domain, domain) == 0)
			return j;
	return NULL;
}

static enum status fetch(struct job *j)
{
	char path[4200];
	struct snapshot s;
	enum status st;

	snprintf(path, sizeof(path), "%s/snapshot", run);
	st = snapshot_open(path, &s);
	if (st != ST_OK)
		return st;
	st = sts_fetch(&(struct sts_fetch_order){ .domain = j->r.domain, .address = span_str(j->r.address), .port = j->r.port,
		.ca_file = snap_cstr(&s, s.h->settings.ca_file) }, on_fetched, j);
	snapshot_close(&s);
	return st;
}

static void wait_for(struct job *j, unsigned i)
{
	if (j->nwaiting == WORKERS_MAX)
		return; /* more questions about one domain than workers: theirs end by their time */
	j->waiting[j->nwaiting].asker = i;
	j->waiting[j->nwaiting++].gen = asker[i].gen;
}

static void begin_fetch(unsigned i, const struct request *r, const struct sts_cached *old)
{
	struct job *j = find_job(r->domain);

	if (j) {
		wait_for(j, i);
		return;
	}
	j = calloc(1, sizeof(*j));
	if (!j) {
		send_answer(i, r->domain, old, "fetch", "out of memory");
		return;
	}
	j->r = *r;
	if (fetch(j) != ST_OK) {
		send_answer(i, r->domain, old, "fetch", trail_text());
		free(j);
		return;
	}
	TAILQ_INSERT_TAIL(&jobs, j, entry);
	wait_for(j, i);
}

static void on_request(unsigned i, struct span row)
{
	struct request r;
	struct sts_cached c;
	bool have;

	if (!read_request(row, &r)) {
		log_msg(LOG_LVL_WARN, "mta-sts-request", "a worker's question is not understood");
		return;
	}
	have = sts_cache_get(r.domain, &c);
	if (!r.id[0] || (have && strcmp(c.id, r.id) == 0 && !c.old))
		send_answer(i, r.domain, have ? &c : NULL, NULL, "");
	else if (!r.address[0])
		send_answer(i, r.domain, have ? &c : NULL, "fetch", "the policy host has no address");
	else
		begin_fetch(i, &r, have ? &c : NULL);
}

/* ---- sockets ---- */

static void take_asker(void)
{
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	for (unsigned i = 0; fd >= 0 && i < WORKERS_MAX; i++)
		if (asker[i].fd < 0) {
			asker[i].fd = fd;
			asker[i].gen++;
			return;
		}
	if (fd >= 0)
		close(fd);
}

static void serve_asker(unsigned i)
{
	char packet[REQUEST_MAX];
	ssize_t n;

	while ((n = recv(asker[i].fd, packet, sizeof(packet), 0)) > 0)
		on_request(i, span_of(packet, (size_t)n));
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	close(asker[i].fd);
	asker[i].fd = -1;
}

bool sts_server_wait(int fd, int other, int timeout_ms)
{
	struct curl_waitfd w[WORKERS_MAX + 3] = { { .fd = fd, .events = CURL_WAIT_POLLIN }, { .fd = listener, .events = CURL_WAIT_POLLIN } };
	unsigned who[WORKERS_MAX + 3], n = 2, askers;

	for (unsigned i = 0; i < WORKERS_MAX; i++)
		if (asker[i].fd >= 0) {
			who[n] = i;
			w[n++] = (struct curl_waitfd){ .fd = asker[i].fd, .events = CURL_WAIT_POLLIN };
		}
	askers = n;
	if (other >= 0)
		w[n++] = (struct curl_waitfd){ .fd = other, .events = CURL_WAIT_POLLIN };
	web_wait(w, n, timeout_ms);
	for (unsigned k = 2; k < askers; k++)
		if (w[k].revents)
			serve_asker(who[k]);
	if (w[1].revents)
		take_asker();
	return w[0].revents != 0;
}

enum status sts_server_start(const char *run_dir)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	mode_t old = umask(0177);
	int n = snprintf(a.sun_path, sizeof(a.sun_path), "%s/" STS_ASK_SOCKET, run_dir);
	enum status st = ST_OK;

	snprintf(run, sizeof(run), "%s", run_dir);
	for (unsigned i = 0; i < WORKERS_MAX; i++)
		asker[i].fd = -1;
	unlink(a.sun_path);
	listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (listener < 0 || n >= (int)sizeof(a.sun_path) || bind(listener, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(listener, 64) < 0)
		st = trail_errno(errno, "%s", a.sun_path);
	umask(old);
	return st == ST_OK ? sts_cache_open(run_dir) : st;
}

void sts_server_stop(void)
{
	for (unsigned i = 0; i < WORKERS_MAX; i++)
		if (asker[i].fd >= 0)
			close(asker[i].fd);
	if (listener >= 0)
		close(listener);
	listener = -1;
}
