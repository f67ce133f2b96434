#include "dataplane/worker.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "dataplane/auth.h"
#include "dataplane/bounce.h"
#include "dataplane/clients.h"
#include "dataplane/command.h"
#include "dataplane/conns.h"
#include "dataplane/dictionary.h"
#include "dataplane/facts.h"
#include "dataplane/gate.h"
#include "dataplane/generation.h"
#include "dataplane/handshakes.h"
#include "dataplane/flush.h"
#include "dataplane/holds.h"
#include "dataplane/inbound.h"
#include "dataplane/mail.h"
#include "dataplane/outbound.h"
#include "dataplane/report_limits.h"
#include "dataplane/scan.h"
#include "dataplane/tls_report.h"
#include "dataplane/verify.h"
#include "spool/base/clock.h"
#include "spool/base/counters.h"

/* A message in the middle has STOP_HURRY_S to come to its end; then its session is told to go, and has the rest of the time for that. */
enum { URING_ENTRIES = 4096, STOP_GRACE_S = 8, STOP_HURRY_S = 5, TLS_REPORT_S = 5 };

struct store *worker_store(const struct worker *w)
{
	for (uint32_t i = 0; i < w->nstore; i++)
		if (!store_fenced(w->store[i]))
			return w->store[i];
	return NULL;
}

/* ---- events ---- */

static void on_net(void *ctx, struct net_event *ev)
{
	struct worker *w = ctx;
	const struct owner *o = ev->user;

	if (ev->type == NET_ACCEPTED || o->kind == OWNER_SESSION)
		inbound_net_event(w, ev);
	else
		conn_net_event(w, ev);
}

/* Cookies of readers are their owners' addresses; a bounce marks its own with the lowest bit. */
static void on_read(struct worker *w, uint64_t cookie)
{
	if (cookie & 1)
		bounce_read(w, cookie);
	else
		conn_read(w, cookie);
}

/* Kept in the index, so that the postmaster hears of it. */
static void unreadable(struct worker *w, uint64_t id)
{
	char text[MSG_ID_TEXT + 1];

	msg_id_text(id, text);
	log_msg(LOG_LVL_ERROR, "spool-damaged", "the record of message %s cannot be read; it stays in the spool", text);
	command_unreadable(w, id);
}

static void store_events(struct worker *w)
{
	struct store_event ev;

	for (uint32_t i = 0; i < w->nstore; i++)
		while (store_event(w->store[i], &ev))
			switch (ev.type) {
			case STORE_DURABLE:
				mail_durable(ev.msg->user);
				break;
			case STORE_FAILED:
				mail_failed(ev.msg->user, ev.reason);
				break;
			case STORE_READ:
				on_read(w, ev.cookie);
				break;
			case STORE_WOKEN:
				command_woken(w, ev.msg);
				break;
			case STORE_PEEKED:
				command_peeked(w, ev.msg, ev.cookie);
				store_peek_done(ev.msg);
				break;
			case STORE_UNREADABLE:
				unreadable(w, ev.cookie);
				break;
			case STORE_ROOM:
				inbound_room(w);
				break;
			case STORE_FENCED:
				log_msg(LOG_LVL_ERROR, "spool-fenced", "the partition takes no more mail: %s", ev.reason);
				outbound_fenced(w->store[i]);
				inbound_room(w); /* none will come: they are answered */
				break;
			}
}

/* ---- time ---- */

/* True when the file is another one under the same name. */
static bool is_new(const struct worker *w, const char *name, uint64_t *stamp)
{
	uint64_t was;
	char path[4096];
	struct stat st;

	snprintf(path, sizeof(path), "%s/%s", w->opt->run_dir, name);
	if (stat(path, &st) < 0)
		return false;
	was = *stamp;
	*stamp = (uint64_t)st.st_ino * NS_PER_S + (uint64_t)st.st_mtim.tv_nsec; /* two renewals later the number may be the first one's */
	return *stamp != was;
}

/* A new snapshot, or new certificates and ticket keys: sessions keep what they began with, all but the certificate (begin_tls). */
static void config_watch(struct worker *w)
{
	bool snapshot = is_new(w, "snapshot", &w->snapshot_stamp), secrets = is_new(w, "tls", &w->tls_stamp);
	struct config *c;

	if (!snapshot && !secrets)
		return;
	if (config_load(w->opt->run_dir, &c) != ST_OK) {
		counter_add(C_SNAPSHOT_REFUSED, 1);
		log_msg(LOG_LVL_ERROR, "configuration-refused", "the last good one stays in use: %s", trail_text());
		return;
	}
	config_release(w->cfg);
	w->cfg = c;
	counter_set(C_SNAPSHOT_GENERATION, c->snap.h->generation);
	log_msg(LOG_LVL_INFO, "configuration", "generation %llu%s", (unsigned long long)c->snap.h->generation, snapshot ? "" : ", new certificates, ticket keys or passwords");
}

/* A trouble of the transport is said once, until another one comes. */
static void net_watch(struct worker *w)
{
	const char *trouble = net_tick(w->net);

	if (trouble && trouble != w->net_trouble)
		log_msg(LOG_LVL_WARN, "network", "%s", trouble);
	w->net_trouble = trouble ? trouble : w->net_trouble;
}

/* jemalloc gives memory back only while it is asked for more; a worker that has become quiet is to be small again (P7). The builds with sanitizers have another allocator. */
extern int mallctl(const char *name, void *old, size_t *old_len, void *value, size_t value_len) __attribute__((weak));

static void give_memory_back(void)
{
	if (mallctl)
		mallctl("arena.4096.decay", NULL, NULL, NULL, 0); /* of all arenas, what has been unused for its time */
}

static void tick(struct worker *w, struct timer *t)
{
	give_memory_back();
	wheel_set(w->wheel, t, w->now_ns + NS_PER_S);
	atomic_store_explicit(&counters_self->beat_ns, w->now_ns, memory_order_relaxed);
	config_watch(w);
	generation_tick(w);
	auth_tick(w);
	scan_tick(w->scan);
	command_tick(w);
	holds_tick(w);
	outbound_tick(w);
	inbound_room(w);
	gate_tick(w);
	if (++w->ticks % TLS_REPORT_S == 0)
		tls_report_flush(w->tls_report);
	net_watch(w);
	counter_set(C_REDIS_UP, shared_is_up(w->shared));
	counter_set(C_ARENA_USED, arena_used(w->arena));
}

typedef void timer_fn(struct worker *w, struct timer *t);

static timer_fn *const on_timer[TIMER_NKIND] = {
	[TIMER_TICK] = tick,
	[TIMER_SESSION] = inbound_timer,
	[TIMER_SCAN] = scan_timer,
	[TIMER_MAIL] = outbound_timer,
	[TIMER_CONN] = conn_timer,
	[TIMER_VERIFY] = verify_timer,
	[TIMER_VERIFY_WAIT] = verify_wait_timer,
	[TIMER_RCPT] = dictionary_timer,
	[TIMER_FACTS] = facts_timer,
	[TIMER_AUTH] = auth_timer,
};

static uint64_t timers(struct worker *w)
{
	uint64_t wait, dns, redis, sts, dovecot = UINT64_MAX;
	struct timer *t;

	while ((t = wheel_expire(w->wheel, w->now_ns)))
		on_timer[t->kind](w, t);
	dns_turn(w->dns, w->now_ns, &dns);
	shared_turn(w->shared, w->now_ns, &redis);
	sts_turn(w->sts, w->now_ns, &sts);
	if (w->dovecot)
		dovecot_turn(w->dovecot, w->now_ns, &dovecot);
	wait = wheel_wait_ns(w->wheel, w->now_ns);
	wait = dns < wait ? dns : wait;
	wait = dovecot < wait ? dovecot : wait;
	wait = sts < wait ? sts : wait;
	for (uint32_t i = 0; i < w->nstore; i++) {
		uint64_t due = store_next_due(w->store[i]);

		due = due > w->now_ns ? due - w->now_ns : 0;
		wait = due < wait ? due : wait;
	}
	return redis < wait ? redis : wait;
}

/* ---- the loop ---- */

static bool may_stop(const struct worker *w)
{
	bool busy = inbound_sessions(w) || outbound_busy(w);

	for (uint32_t i = 0; i < w->nstore && !busy; i++)
		busy = store_busy(w->store[i]);
	return !busy || w->now_ns >= w->stop_by_ns;
}

static void begin_stop(struct worker *w)
{
	if (w->stop_by_ns)
		return;
	w->stop_by_ns = w->now_ns + STOP_GRACE_S * NS_PER_S;
	log_msg(LOG_LVL_INFO, "stopping", "sessions in the middle of a message may end it");
	inbound_shutdown(w, false);
	outbound_shutdown(w);
}

static void stop_turn(struct worker *w)
{
	begin_stop(w);
	if (w->stop_hurried || w->now_ns + (STOP_GRACE_S - STOP_HURRY_S) * NS_PER_S < w->stop_by_ns)
		return;
	w->stop_hurried = true;
	inbound_shutdown(w, true);
}

/* One turn: what came, what follows from it, what is to be written, then sleep until something comes. */
void worker_loop(struct worker *w)
{
	for (;;) {
		uint64_t wait;

		w->now_ns = clock_mono_ns();
		scan_poll(w->scan);
		store_events(w);
		wait = timers(w);
		if (w->stopping)
			stop_turn(w);
		gate_turn(w);
		outbound_turn(w);
		if (!w->stopping && flush_turn(w->flush))
			wait = 0;
		if (command_turn(w))
			wait = 0;
		for (uint32_t i = 0; i < w->nstore; i++)
			store_commit(w->store[i]);
		net_poll(w->net);
		log_flush();
		if (w->stop_by_ns) { /* not w->stopping: a signal may have come since it was looked at */
			if (may_stop(w))
				return;
			wait = wait < 50 * NS_PER_MS ? wait : 50 * NS_PER_MS;
		}
		wait = net_turn(w->net, wait);
		if (!scan_sleep(w->scan))
			wait = 0;
		if (uring_wait(&w->uring, wait) != ST_OK) {
			log_msg(LOG_LVL_ERROR, "io_uring", "%s", trail_text());
			return;
		}
		scan_awake(w->scan);
	}
}

/* ---- begin and end ---- */

/* Partition k belongs to worker k modulo the number of workers: fewer workers after a restart adopt the others' partitions. */
static enum status open_spool(struct worker *w)
{
	const struct snap_settings *set = w->cfg->set;
	char dir[4096];
	enum status st = ST_OK;

	for (uint32_t k = w->opt->index; k < set->partitions && st == ST_OK && w->nstore < WORKER_PARTITIONS_MAX; k += set->workers) {
		struct store_config sc = { .dir = dir, .partition = k, .segment_bytes = set->segment_bytes,
			.max_bytes = set->spool_max_bytes / set->partitions, .spill_bytes = set->spill_bytes, .ledger_keep_ns = set->ledger_keep_ns, .direct = set->spool_direct };

		snprintf(dir, sizeof(dir), "%s/p%u", snap_cstr(&w->cfg->snap, set->spool_dir), k);
		st = store_open(&w->uring, w->arena, &sc, &w->store[w->nstore]);
		if (st == ST_OK)
			w->nstore++;
	}
	if (st == ST_OK && !w->nstore)
		return trail(ST_INVALID, "worker %u has no partition: there are %u", w->opt->index, set->partitions);
	return st;
}

static void count_recovered(struct worker *w)
{
	for (uint32_t i = 0; i < w->nstore; i++) {
		struct store_row row;
		size_t pos = 0, n = 0;

		for (; store_next(w->store[i], &pos, &row); n++)
			mail_count_recovered(&row);
		log_msg(LOG_LVL_INFO, "recovered", "%zu messages in %llu ms", n,
			(unsigned long long)(counter_get(C_SPOOL_RECOVERY_NS) / NS_PER_MS));
	}
}

static enum status open_lookups(struct worker *w)
{
	const struct snap_settings *set = w->cfg->set;
	const struct snap_host *h;
	char servers[1024];
	struct out o = out_of(servers, sizeof(servers) - 1);
	uint32_t n;
	enum status st;

	h = snap_hosts(&w->cfg->snap, set->dns_servers, &n);
	for (uint32_t i = 0; i < n; i++) {
		struct span name = snap_span(&w->cfg->snap, h[i].name);
		bool v6 = memchr(name.p, ':', name.n) != NULL;

		out_fmt(&o, "%s%s%.*s%s:%u", i ? "," : "", v6 ? "[" : "", SPAN_FMT(name), v6 ? "]" : "", h[i].port);
	}
	servers[o.n] = '\0';
	st = dns_new(&w->uring, &(struct dns_config){ .servers = servers, .timeout_ns = set->dns_timeout_ns, .cache_max = 100000,
		.validates = set->dns_validates }, &w->dns);
	if (st != ST_OK || (st = sts_new(&w->uring, w->dns, w->opt->run_dir, &w->sts)) != ST_OK ||
		(st = tls_report_new(w->opt->run_dir, w->opt->index, &w->tls_report)) != ST_OK)
		return st;
	return shared_new(&w->uring, &(struct shared_config){ .redis = snap_cstr(&w->cfg->snap, set->redis), .budget_ns = set->redis_budget_ns,
		.local_max = 100000 }, &w->shared);
}

/* Only of io_uring there are sockets to inherit: with DPDK the addresses are lwIP's. */
static enum status listen_one(struct worker *w, const struct snap_listener *l, uint32_t i)
{
	struct net_listen to = { .fd = i < w->opt->nlisten ? w->opt->listen_fds[i] : -1, .port = l->port };

	memcpy(to.ip, l->ip, sizeof(to.ip));
	return net_listen(w->net, &to, i);
}

static enum status listen_all(struct worker *w)
{
	uint32_t n;
	const struct snap_listener *l = snap_listeners(&w->cfg->snap, &n);
	enum status st;

	if (w->opt->nlisten != n && w->cfg->set->transport == NET_URING)
		return trail(ST_INVALID, "%u listening sockets were given, the configuration has %u", w->opt->nlisten, n);
	st = gate_open(w);
	for (uint32_t i = 0; i < n && st == ST_OK; i++) {
		w->listener[i] = l[i];
		if ((l[i].tls_implicit || snap_role_is_submission(l[i].role)) && !w->cfg->tls_server)
			return trail(ST_INVALID, "the listener on port %u needs TLS: set tls.certificate and tls.key", l[i].port);
		st = listen_one(w, &l[i], i); /* sessions begin TLS with the certificate of their own configuration */
	}
	return st;
}

static enum status open_parts(struct worker *w)
{
	enum status st;

	if ((st = handshakes_new(&w->handshakes)) != ST_OK || (st = report_limits_new(&w->report_limits)) != ST_OK)
		return st;
	if ((st = inbound_new(w, &w->inbound)) != ST_OK || (st = outbound_new(w, &w->outbound)) != ST_OK || (st = flush_new(w, &w->flush)) != ST_OK ||
		(st = holds_new(&w->holds)) != ST_OK)
		return st;
	if ((st = verify_new(w)) != ST_OK || (st = dictionary_new(&w->dictionary)) != ST_OK)
		return st;
	if ((st = scan_new(w, &w->scan)) != ST_OK || (st = command_new(w, &w->command)) != ST_OK)
		return st;
	return net_new(&w->uring, &(struct net_config){ .transport = w->cfg->set->transport,
		.dpdk = &w->opt->dpdk, .conns_max = w->cfg->set->conns_max + w->cfg->set->outbound_conns_max, .handler = on_net, .ctx = w }, &w->net);
}

enum status worker_prepare(struct worker_options *opt)
{
	char path[4096];
	struct snapshot s;
	enum status st;

	snprintf(path, sizeof(path), "%s/snapshot", opt->run_dir);
	st = snapshot_open(path, &s);
	if (st != ST_OK)
		return st;
	if (s.h->settings.transport == NET_DPDK) {
		st = snap_dpdk(&s, opt->index, &opt->dpdk);
		if (st == ST_OK)
			st = net_dpdk_open(&opt->dpdk, opt->run_dir);
	}
	snapshot_close(&s);
	return st;
}

enum status worker_init(struct worker *w, const struct worker_options *opt)
{
	char dir[4096];
	enum status st;

	*w = (struct worker){ .opt = opt, .now_ns = clock_mono_ns(), .tick.kind = TIMER_TICK };
	(void)is_new(w, "snapshot", &w->snapshot_stamp); /* looked at before they are read: what comes in between is new */
	(void)is_new(w, "tls", &w->tls_stamp);
	st = config_load(opt->run_dir, &w->cfg);
	if (st != ST_OK)
		return st;
	snprintf(dir, sizeof(dir), "%s/stats", opt->run_dir);
	if ((st = counters_open(dir, "dataplane", (int)opt->index)) != ST_OK || (st = uring_init(&w->uring, URING_ENTRIES)) != ST_OK)
		return st;
	if ((st = generation_new(w, &w->generation)) != ST_OK)
		return st;
	w->wheel = wheel_new(w->now_ns);
	if (!w->wheel)
		return ST_NOMEM;
	if ((st = arena_new(w->cfg->set->arena_bytes, &w->arena)) != ST_OK || (st = open_spool(w)) != ST_OK)
		return st;
	if ((st = open_lookups(w)) != ST_OK || (st = auth_open(w)) != ST_OK || (st = open_parts(w)) != ST_OK)
		return st;
	count_recovered(w);
	counter_set(C_SNAPSHOT_GENERATION, w->cfg->snap.h->generation);
	counter_set(C_ARENA_BYTES, arena_bytes(w->arena));
	counter_set(C_ARENA_HUGE, arena_is_huge(w->arena));
	counter_set(C_TAKES_MAIL, worker_store(w) != NULL);
	wheel_set(w->wheel, &w->tick, w->now_ns);
	st = listen_all(w);
	if (st == ST_OK)
		w->clients = clients_new(w);
	return st;
}

/* The spool first: what is pending is committed while everything else is still there. Then the process ends, and with it its memory. */
void worker_done(struct worker *w)
{
	for (uint32_t i = 0; i < w->nstore; i++)
		store_close(w->store[i]);
	net_stop(w->net);
	gate_done(w);
	command_free(w->command);
	clients_free(w->clients);
	report_limits_free(w->report_limits);
	scan_free(w->scan);
	verify_free(w->verify);
	dictionary_free(w->dictionary);
	passwords_free(w->passwords);
	dovecot_free(w->dovecot);
	shared_free(w->shared);
	dns_free(w->dns);
	tls_report_free(w->tls_report);
	counters_close();
	uring_done(&w->uring);
	sts_free(w->sts);
	log_flush();
}
