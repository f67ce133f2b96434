/* TCP by lwIP over a DPDK port: the operations of the transport, and its turn in the worker's loop. */
#include "dataplane/net/net_dpdk.h"

#include <lwip/priv/tcp_priv.h>
#include <stdlib.h>
#include "dataplane/net/net_dpdk_filter.h"
#include "dataplane/net/net_dpdk_flow.h"
#include "dataplane/net/net_dpdk_kernel.h"
#include "dataplane/net/net_dpdk_port.h"
#include "dataplane/net/net_dpdk_share.h"
#include "dataplane/net/net_dpdk_stack.h"
#include "spool/base/clock.h"

enum { BURSTS_A_TURN = 2, POLLS_BEFORE_SLEEP = 250, SLEEP_SHARE = 32 };
#define SLEEP_LEAST_NS (50 * NS_PER_US)
#define SLEEP_MOST_NS (500 * NS_PER_US)
#define LAST_WORDS_NS (NS_PER_S)

struct dpdk_net dn;

/* ---- the turn ---- */

/* Polling is for when there is something to poll for: an idle worker sleeps between looks. Nobody waits for it longer than a small part of the time for which he was silent. */
static uint64_t sleep_ns(bool busy, uint64_t now)
{
	uint64_t sleep = (now - dn.busy_ns) / SLEEP_SHARE;

	if (busy) {
		dn.idle_polls = 0;
		dn.busy_ns = now;
		return 0;
	}
	if (++dn.idle_polls < POLLS_BEFORE_SLEEP)
		return 0;
	dn.sleeps++;
	return sleep < SLEEP_LEAST_NS ? SLEEP_LEAST_NS : sleep < SLEEP_MOST_NS ? sleep : SLEEP_MOST_NS;
}

/* A deadline may be late by as long as the loop sleeps. */
static bool wake_if_due(struct net *n, uint64_t now)
{
	if (now < dn.wake_ns)
		return false;
	dn.wake_ns = UINT64_MAX;
	up_wake(n);
	return true;
}

static uint64_t turn(struct net *n, uint64_t wait_ns)
{
	uint64_t now = clock_mono_ns(), sleep;
	unsigned got = 0;
	bool busy;

	port_flush();
	for (int i = 0; i < BURSTS_A_TURN; i++) {
		unsigned burst = stack_receive();

		got += burst;
		if (burst < PORT_BURST)
			break;
	}
	got += kernel_turn(now);
	stack_timers(now);
	busy = dpdk_run() || got;
	busy |= wake_if_due(n, now);
	port_flush();
	sleep = sleep_ns(busy, now);
	return sleep < wait_ns ? sleep : wait_ns;
}

/* ---- operations ---- */

static enum status start(struct net *n)
{
	enum status st;

	CHECK(!dn.n);
	dn.n = n;
	n->transport = &dn;
	dn.busy_ns = clock_mono_ns();
	dn.wake_ns = UINT64_MAX;
	st = stack_start(n->cfg.dpdk, dn.busy_ns);
	dpdk_init();
	return st;
}

static void let_all_go(struct net *n)
{
	for (uint32_t i = 0; i < n->nslots; i++) {
		struct dpdk_conn *d = n->slot[i] ? conn_io(n->slot[i]) : NULL;

		if (d && d->pcb)
			dpdk_let_go(d, false);
	}
}

/* What was written last is still on its way, or not acknowledged: there is no kernel that would see to it when the process has ended. */
static void last_words(void)
{
	uint64_t now = clock_mono_ns(), until = now + LAST_WORDS_NS;
	struct flow_stats f = { .active = 1 };

	filter_accept(false);
	while (now < until && f.active) {
		stack_receive();
		stack_timers(now = clock_mono_ns());
		port_flush();
		flow_stats(&f);
	}
	flow_load_all();
	while (tcp_active_pcbs)
		tcp_abort(tcp_active_pcbs);
	port_flush();
}

static void stop(struct net *n)
{
	let_all_go(n);
	dpdk_run();
	last_words();
	kernel_close();
	port_close();
	free(dn.event);
	dn.event = NULL;
	dn.nevents = dn.cap = 0;
}

static err_t on_accept(void *arg, struct tcp_pcb *pcb, err_t err)
{
	uint32_t listener = (uint32_t)((struct tcp_pcb **)arg - dn.listener);
	struct net_conn *c;

	if (err != ERR_OK || !pcb)
		return ERR_VAL;
	flow_accepted(pcb);
	c = up_accepted(dn.n, listener);
	if (!c) {
		tcp_abort(pcb);
		return ERR_ABRT;
	}
	stack_ip(&pcb->remote_ip, c->peer_ip);
	stack_ip(&pcb->local_ip, c->local_ip);
	c->peer_port = pcb->remote_port;
	c->local_port = pcb->local_port;
	dpdk_note(EV_OPEN, dpdk_attach(c, pcb), NULL, ERR_OK);
	return ERR_OK;
}

static enum status do_listen(struct net *n, const struct net_listen *l, uint32_t listener)
{
	bool v4 = stack_is_v4(l->ip);
	struct tcp_pcb *pcb, *open;
	ip_addr_t ip;
	err_t err;

	if (!snap_dpdk_has(n->cfg.dpdk, l->ip))
		return ST_OK; /* "::" without an IPv6 address; weir-control has checked that one is left */
	stack_ip_of(l->ip, &ip);
	pcb = tcp_new_ip_type(v4 ? IPADDR_TYPE_V4 : IPADDR_TYPE_V6);
	if (!pcb)
		return ST_NOMEM;
	err = tcp_bind(pcb, &ip, l->port);
	open = err == ERR_OK ? tcp_listen_with_backlog_and_err(pcb, 255, &err) : NULL;
	if (!open) {
		tcp_abort(pcb);
		return trail(ST_IO, "listen: port %u: lwIP says %d", l->port, err);
	}
	dn.listener[listener] = open;
	tcp_arg(open, &dn.listener[listener]);
	tcp_accept(open, on_accept);
	flow_count_half_open(open);
	filter_listen(v4, l->port);
	return ST_OK;
}

static void do_accept_pause(struct net *n, bool pause)
{
	(void)n;
	filter_accept(!pause);
}

static err_t connect_pcb(struct dpdk_conn *d, const uint8_t to[16], uint16_t port, const uint8_t from[16])
{
	ip_addr_t ip;

	stack_ip_of(from, &d->pcb->local_ip);
	d->pcb->local_port = flow_new_port(to, port);
	if (!d->pcb->local_port)
		return ERR_USE;
	stack_ip_of(to, &ip);
	flow_begin(d->pcb);
	return tcp_connect(d->pcb, &ip, port, dpdk_connected);
}

/* A destination that cannot be reached is an event like a refused one, so that the engine tries the next. */
static enum status do_connect(struct net_conn *c, const struct sockaddr *to, const struct sockaddr *source)
{
	const uint8_t *from = stack_own_ip(c->peer_ip);
	uint8_t bound[16];
	uint16_t ignored;
	struct tcp_pcb *pcb = tcp_new_ip_type(stack_is_v4(c->peer_ip) ? IPADDR_TYPE_V4 : IPADDR_TYPE_V6);
	struct dpdk_conn *d;
	err_t err = ERR_RTE;

	(void)to; /* net_connect has unpacked it into peer_ip */
	if (!pcb)
		return ST_NOMEM;
	d = dpdk_attach(c, pcb);
	if (source)
		net_unpack((const struct sockaddr_storage *)(const void *)source, bound, &ignored);
	if (from && (!source || memcmp(bound, from, 16) == 0))
		err = connect_pcb(d, c->peer_ip, c->peer_port, from);
	if (err != ERR_OK) {
		tcp_err(pcb, NULL);
		pcb->local_port = 0; /* it is in no list */
		tcp_abort(pcb);
		dpdk_failed(d, err);
	}
	return ST_OK;
}

static void do_recv(struct net_conn *c, bool on)
{
	struct dpdk_conn *d = conn_io(c);

	d->recv_wanted = on;
	if (on && (d->held_len || d->eof))
		dpdk_note(EV_WANTED, d, NULL, ERR_OK);
}

static void do_send(struct net_conn *c, const struct span *v, unsigned n)
{
	dpdk_send(conn_io(c), v, n);
}

static void do_shutdown(struct net_conn *c)
{
	struct dpdk_conn *d = conn_io(c);

	if (!d->pcb)
		return;
	flow_load_pcb(d->pcb);
	(void)tcp_shutdown(d->pcb, 0, 1); /* without memory for the FIN lwIP tries again itself; in any other state there is nothing to end */
}

static void do_release(struct net_conn *c, bool reset)
{
	struct dpdk_conn *d = conn_io(c);

	if (d->pcb)
		dpdk_let_go(d, reset);
	dpdk_maybe_released(d);
}

static void do_wake(struct net *n, uint64_t at_ns)
{
	(void)n;
	dn.wake_ns = at_ns;
}

const struct transport_ops net_dpdk_ops = {
	.conn_bytes = sizeof(struct dpdk_conn),
	.start = start,
	.stop = stop,
	.turn = turn,
	.tick = dpdk_tick,
	.listen = do_listen,
	.accept_pause = do_accept_pause,
	.connect = do_connect,
	.recv = do_recv,
	.send = do_send,
	.shutdown = do_shutdown,
	.release = do_release,
	.wake = do_wake,
};

enum status net_dpdk_open(const struct snap_dpdk *cfg, const char *run_dir)
{
	struct share *share = NULL;
	enum status st = cfg->shared ? share_open(run_dir, cfg->worker, cfg->workers, cfg->mtu, &share) : ST_OK;

	int lock = -1;

	if (st != ST_OK)
		return st;
	filter_share(share);
	if (share)
		lock = share_lock(run_dir);
	st = port_open(cfg);
	share_unlock(lock);
	return st == ST_OK ? kernel_open(cfg, port_mac()) : st;
}

const char *net_dpdk_missing(void)
{
	return NULL;
}
