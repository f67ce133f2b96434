#include "dataplane/net/net_dpdk_flow.h"

#include <lwip/priv/tcp_priv.h>
#include <string.h>
#include <sys/queue.h>
#include "dataplane/net/net_dpdk_filter.h"
#include "dataplane/net/net_dpdk_seed.h"
#include "dataplane/net/net_dpdk_stack.h"

enum { BUCKETS = 8192, ALL = BUCKETS, NONE = BUCKETS + 1, PORT_FIRST = 1024, PORT_COUNT = 65536 - PORT_FIRST, PORT_TRIES = 512 };
enum { FIRST_TIMEOUT_MS = 1000 }; /* RFC 6298 2.1 */
enum { TIME_WAIT_SHORT_TICKS = 1000 / TCP_SLOW_INTERVAL, TIME_WAIT_ROUNDS = 16 };

/* A connection between SYN and ACK; oldest first. */
struct half {
	struct tcp_pcb *pcb;
	uint32_t bucket;
	TAILQ_ENTRY(half) entry;
};

static struct tcp_pcb *active[BUCKETS], *time_wait[BUCKETS];
static uint32_t time_wait_len[BUCKETS]; /* when the timers last saw it */
static uint32_t loaded = ALL;
static struct half half_pool[FLOW_HALF_OPEN_MAX];
static TAILQ_HEAD(, half) half_free = TAILQ_HEAD_INITIALIZER(half_free), half_open = TAILQ_HEAD_INITIALIZER(half_open);
static uint8_t ext_id;
static struct flow_stats stats;

/* ---- lists ---- */

uint32_t flow_bucket(const uint8_t remote_ip[16], uint16_t remote_port, uint16_t local_port)
{
	uint8_t key[20];

	memcpy(key, remote_ip, 16);
	memcpy(key + 16, &remote_port, 2);
	memcpy(key + 18, &local_port, 2);
	return (uint32_t)seed_hash(key, sizeof(key)) % BUCKETS;
}

static uint32_t bucket_of(const struct tcp_pcb *pcb)
{
	uint8_t ip[16];

	stack_ip(&pcb->remote_ip, ip);
	return flow_bucket(ip, pcb->remote_port, pcb->local_port);
}

/* Deals one list out into the buckets. */
static void deal(struct tcp_pcb *list, struct tcp_pcb **to)
{
	while (list) {
		struct tcp_pcb *pcb = list, **bucket = &to[bucket_of(pcb)];

		list = pcb->next;
		pcb->next = *bucket;
		*bucket = pcb;
	}
}

/* Takes what is in lwIP's lists back. */
static void unload(void)
{
	if (loaded == ALL) {
		deal(tcp_active_pcbs, active);
		deal(tcp_tw_pcbs, time_wait);
	} else if (loaded != NONE) {
		active[loaded] = tcp_active_pcbs;
		time_wait[loaded] = tcp_tw_pcbs;
	}
	tcp_active_pcbs = tcp_tw_pcbs = NULL;
	loaded = NONE;
}

void flow_load(uint32_t bucket)
{
	if (loaded == bucket)
		return;
	unload();
	tcp_active_pcbs = active[bucket];
	tcp_tw_pcbs = time_wait[bucket];
	active[bucket] = time_wait[bucket] = NULL;
	loaded = bucket;
}

void flow_load_pcb(const struct tcp_pcb *pcb)
{
	if (loaded != ALL)
		flow_load(bucket_of(pcb));
}

static struct tcp_pcb *join(struct tcp_pcb **from)
{
	struct tcp_pcb *all = NULL, **end = &all;

	for (uint32_t i = 0; i < BUCKETS; i++) {
		*end = from[i];
		from[i] = NULL;
		while (*end)
			end = &(*end)->next;
	}
	return all;
}

void flow_load_all(void)
{
	if (loaded == ALL)
		return;
	unload();
	tcp_active_pcbs = join(active);
	tcp_tw_pcbs = join(time_wait);
	loaded = ALL;
}

/* ---- half-open connections ---- */

/* lwIP would wait three seconds before it sends a first segment again. */
void flow_begin(struct tcp_pcb *pcb)
{
	pcb->rto = pcb->sv = FIRST_TIMEOUT_MS / TCP_SLOW_INTERVAL;
}

static void half_done(struct half *h)
{
	TAILQ_REMOVE(&half_open, h, entry);
	TAILQ_INSERT_TAIL(&half_free, h, entry);
	stats.half_open--;
}

static err_t on_passive_open(uint8_t id, struct tcp_pcb_listen *listening, struct tcp_pcb *pcb);

static void on_destroy(uint8_t id, void *data)
{
	(void)id;
	if (data)
		half_done(data);
}

static const struct tcp_ext_arg_callbacks ext_callbacks = { .destroy = on_destroy, .passive_open = on_passive_open };

static err_t on_passive_open(uint8_t id, struct tcp_pcb_listen *listening, struct tcp_pcb *pcb)
{
	struct half *h = TAILQ_FIRST(&half_free);

	(void)listening;
	if (!h)
		return ERR_MEM;
	TAILQ_REMOVE(&half_free, h, entry);
	TAILQ_INSERT_TAIL(&half_open, h, entry);
	flow_begin(pcb);
	h->pcb = pcb;
	h->bucket = bucket_of(pcb);
	stats.half_open++;
	tcp_ext_arg_set(pcb, id, h);
	tcp_ext_arg_set_callbacks(pcb, id, &ext_callbacks);
	return ERR_OK;
}

void flow_count_half_open(struct tcp_pcb *listening)
{
	tcp_ext_arg_set_callbacks(listening, ext_id, &ext_callbacks);
}

void flow_accepted(struct tcp_pcb *pcb)
{
	struct half *h = tcp_ext_arg_get(pcb, ext_id);

	tcp_ext_arg_set(pcb, ext_id, NULL);
	if (h)
		half_done(h);
}

/* Without a RST: its address is most likely not the sender's. */
static void drop_oldest_half_open(void)
{
	struct half *h = TAILQ_FIRST(&half_open);

	flow_load(h->bucket);
	stats.half_open_dropped++;
	tcp_abandon(h->pcb, 0);
}

/* ---- SYNs and ports ---- */

static bool same_flow(const struct tcp_pcb *pcb, const uint8_t remote_ip[16], uint16_t remote_port, uint16_t local_port)
{
	uint8_t ip[16];

	stack_ip(&pcb->remote_ip, ip);
	return pcb->remote_port == remote_port && pcb->local_port == local_port && memcmp(ip, remote_ip, 16) == 0;
}

static struct tcp_pcb *in_list(struct tcp_pcb *pcb, const uint8_t remote_ip[16], uint16_t remote_port, uint16_t local_port)
{
	while (pcb && !same_flow(pcb, remote_ip, remote_port, local_port))
		pcb = pcb->next;
	return pcb;
}

struct tcp_pcb *flow_find(const uint8_t remote_ip[16], uint16_t remote_port, uint16_t local_port)
{
	return in_list(tcp_active_pcbs, remote_ip, remote_port, local_port);
}

bool flow_in_time_wait(const uint8_t remote_ip[16], uint16_t remote_port, uint16_t local_port)
{
	return in_list(tcp_tw_pcbs, remote_ip, remote_port, local_port) != NULL;
}

bool flow_syn(const uint8_t remote_ip[16], uint16_t remote_port, uint16_t local_port, uint32_t seq)
{
	struct tcp_pcb *pcb = in_list(tcp_tw_pcbs, remote_ip, remote_port, local_port);

	if (pcb && TCP_SEQ_GT(seq, pcb->rcv_nxt)) {
		stats.time_wait_recycled++;
		tcp_abort(pcb);
		pcb = NULL;
	}
	return pcb || !TAILQ_EMPTY(&half_free) || flow_find(remote_ip, remote_port, local_port);
}

void flow_make_room(uint32_t bucket)
{
	if (TAILQ_EMPTY(&half_free))
		drop_oldest_half_open();
	flow_load(bucket);
}

/* From a place that differs for each peer, upwards (RFC 6056, 3.3.3): a port comes back as late as possible. */
uint16_t flow_new_port(const uint8_t remote_ip[16], uint16_t remote_port)
{
	static uint32_t next;
	uint8_t key[18];
	uint32_t base;

	memcpy(key, remote_ip, 16);
	memcpy(key + 16, &remote_port, 2);
	base = (uint32_t)seed_hash(key, sizeof(key));
	for (int i = 0; i < PORT_TRIES; i++) {
		uint16_t port = (uint16_t)(PORT_FIRST + (base + next++) % PORT_COUNT);

		if (!filter_may_use(stack_is_v4(remote_ip), port))
			continue;
		flow_load(flow_bucket(remote_ip, remote_port, port));
		if (!in_list(tcp_active_pcbs, remote_ip, remote_port, port) && !in_list(tcp_tw_pcbs, remote_ip, remote_port, port))
			return port;
	}
	return 0;
}

/* ---- time ---- */

static uint32_t length(const struct tcp_pcb *list)
{
	uint32_t n = 0;

	for (; list; list = list->next)
		n++;
	return n;
}

/* Too many: those go that have waited a second, by when the peer's last segment would have been sent again. */
static void shorten_time_wait(struct tcp_pcb *pcb)
{
	for (; pcb; pcb = pcb->next)
		if (tcp_ticks - pcb->tmr > TIME_WAIT_SHORT_TICKS)
			pcb->tmr = tcp_ticks - (uint32_t)(2 * TCP_MSL / TCP_SLOW_INTERVAL) - 1; /* the next timer removes it */
}

/* The slow timer for the loaded bucket. Those in TIME_WAIT are many and have nothing to do but to go some day: each is looked at in one of some rounds, or in each when there are too many. */
static void slow_timer(uint32_t bucket, uint32_t round)
{
	bool too_many = stats.time_wait > FLOW_TIME_WAIT_MAX;
	struct tcp_pcb *kept = NULL;

	if (!too_many && bucket % TIME_WAIT_ROUNDS != round % TIME_WAIT_ROUNDS) {
		kept = tcp_tw_pcbs;
		tcp_tw_pcbs = NULL;
	} else if (too_many) {
		shorten_time_wait(tcp_tw_pcbs);
	}
	tcp_slowtmr();
	if (kept) {
		tcp_tw_pcbs = kept; /* the timer never adds one */
		return;
	}
	stats.time_wait -= time_wait_len[bucket];
	stats.time_wait += time_wait_len[bucket] = length(tcp_tw_pcbs);
}

/* lwIP's timers bucket by bucket, where the connections are: joined to one list they would have to be dealt out again ten times a second. Each call is the next
 * moment to lwIP's clock, which is set back; and it passes a connection over whose last call has the same number, of 8 bits: so there is one call more than buckets. */
static void all_buckets(bool slow, uint32_t round)
{
	uint32_t before = tcp_ticks;

	for (uint32_t i = 0; i < BUCKETS; i++) {
		flow_load(i);
		tcp_ticks = before;
		if (slow)
			slow_timer(i, round);
		else
			tcp_fasttmr();
		stats.active += length(tcp_active_pcbs);
	}
	unload();
	tcp_ticks = before;
	if (slow)
		tcp_slowtmr();
	else
		tcp_fasttmr();
}

void flow_tick(void)
{
	static uint32_t ticks;

	stats.active = 0;
	all_buckets(false, 0);
	if (ticks++ % 2)
		return;
	stats.active = 0;
	all_buckets(true, ticks / 2);
}

void flow_stats(struct flow_stats *ret)
{
	*ret = stats;
}

void flow_init(void)
{
	ext_id = tcp_ext_arg_alloc_id();
	for (int i = 0; i < FLOW_HALF_OPEN_MAX; i++)
		TAILQ_INSERT_TAIL(&half_free, &half_pool[i], entry);
}
