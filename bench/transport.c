/* Which TCP send and sink have: the kernel's, or with --dpdk one of their own; and what the process's CPU was spent on since it began to work. */
#include <stdlib.h>
#include <sys/resource.h>
#include "bench/bench.h"
#include "spool/base/clock.h"
#include "spool/mail/address.h"
#include "spool/store/snap_dpdk.h"

enum { MTU = 1500, CONNECTIONS_MAX = 60000 };

/* ADDRESS/PREFIX, IPv4. */
static bool parse_own(const char *text, struct snap_dpdk *d)
{
	struct span rest = span_str(text), ip = span_cut(&rest, '/');
	uint64_t prefix;

	d->has_ip4 = ip_parse(ip, d->ip4) == ST_OK && span_u64(rest, 32, &prefix);
	d->prefix4 = d->has_ip4 ? (uint32_t)prefix : 0;
	return d->has_ip4;
}

enum status bench_net(const struct transport_options *o, net_handler *handler, void *ctx, struct uring *u, struct net **ret)
{
	static struct snap_dpdk d = { .mtu = MTU, .ndevices = 1, .workers = 1 };
	struct net_config cfg = { .conns_max = CONNECTIONS_MAX, .handler = handler, .ctx = ctx };
	enum status st;

	if (o->device) {
		cfg.transport = NET_DPDK;
		cfg.dpdk = &d;
		if (!o->ip || !parse_own(o->ip, &d))
			return trail(ST_INVALID, "--dpdk needs --ip ADDRESS/PREFIX");
		snprintf(d.device[0], sizeof(d.device[0]), "%s", o->device);
		if ((st = net_dpdk_open(&d, ".")) != ST_OK)
			return st;
	}
	if ((st = uring_init(u, 4096)) != ST_OK)
		return st;
	return net_new(u, &cfg, ret);
}

enum status bench_turn(struct uring *u, struct net *n, uint64_t wait_ns)
{
	net_poll(n);
	return uring_wait(u, net_turn(n, wait_ns));
}

static double cpu_us(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1e6 + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

void bench_cpu_begin(struct bench_cpu *c)
{
	c->us = cpu_us();
}

static int by_value(const void *a, const void *b)
{
	const double *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

void bench_latency_print(double *ms, uint64_t n)
{
	if (!n)
		return;
	qsort(ms, n, sizeof(*ms), by_value);
	printf(" latency_ms p50=%.3f p90=%.3f p99=%.3f max=%.3f", ms[n / 2], ms[n * 9 / 10], ms[n * 99 / 100], ms[n - 1]);
}

void bench_cpu_print(const struct bench_cpu *c, uint64_t messages)
{
	printf(" cpu_us=%.2f\n", messages ? (cpu_us() - c->us) / (double)messages : 0.0);
	fflush(stdout); /* a memif whose peer has gone may never end */
}
