/* NOOP to and fro: what a round trip of one small segment each way costs, with nearly nothing done above TCP. */
#include <stdlib.h>
#include "bench/bench.h"
#include "spool/base/clock.h"

struct pinger {
	struct net_conn *conn;
	uint64_t asked_ns; /* 0: nothing was asked yet */
	bool greeted;
};

struct pings {
	const struct send_options *o;
	struct uring uring;
	struct net *net;
	struct bench_cpu cpu;
	struct pinger *pinger;
	double *latency_ms;
	uint64_t asked, answered, lost, greeted, begin_ns;
};

static void ask(struct pings *r, struct pinger *p)
{
	if (r->asked == r->o->messages)
		return;
	r->asked++;
	p->asked_ns = clock_mono_ns();
	if (net_write(p->conn, SPAN("NOOP\r\n")) != ST_OK)
		net_abort(p->conn);
}

/* Connecting is not what is measured: all wait until nobody is missing. Who looks on from outside is told. */
static void begin(struct pings *r)
{
	if (r->begin_ns || r->greeted + r->lost < r->o->sessions)
		return;
	puts("begun");
	fflush(stdout);
	bench_cpu_begin(&r->cpu);
	r->begin_ns = clock_mono_ns();
	for (unsigned i = 0; i < r->o->sessions; i++)
		if (r->pinger[i].conn)
			ask(r, &r->pinger[i]);
}

/* A reply is one line, and only one is ever due. */
static void answer(struct pings *r, struct pinger *p, const struct net_event *ev)
{
	if (ev->data.p[ev->data.n - 1] != '\n')
		return;
	if (!p->greeted) {
		p->greeted = true;
		r->greeted++;
		begin(r);
		return;
	}
	r->latency_ms[r->answered++] = (double)(clock_mono_ns() - p->asked_ns) / 1e6;
	ask(r, p);
}

static void on_event(void *ctx, struct net_event *ev)
{
	struct pings *r = ctx;
	struct pinger *p = ev->user;

	switch (ev->type) {
	case NET_DATA:
		ev->used = ev->data.n;
		answer(r, p, ev);
		break;
	case NET_EOF:
		net_close(ev->conn);
		break;
	case NET_CLOSED:
		p->conn = NULL;
		r->greeted -= p->greeted;
		r->lost++;
		begin(r);
		break;
	case NET_CONNECTED:
	case NET_SENT:
	case NET_ACCEPTED:
	case NET_TLS_ON:
	case NET_DRAINED:
		break;
	}
}

int bench_noop(const struct send_options *o)
{
	static struct pings r;
	double s;

	r.o = o;
	r.pinger = calloc(o->sessions, sizeof(*r.pinger));
	r.latency_ms = calloc(o->messages, sizeof(double));
	if (!r.pinger || !r.latency_ms || bench_net(&o->transport, on_event, &r, &r.uring, &r.net) != ST_OK) {
		fprintf(stderr, "weir-bench: %s\n", trail_text());
		return 1;
	}
	for (unsigned i = 0; i < o->sessions; i++)
		if (net_connect(r.net, (const struct sockaddr *)&o->to, NULL, &r.pinger[i], &r.pinger[i].conn) != ST_OK)
			r.lost++;
	while (r.answered < o->messages && r.lost < o->sessions && !bench_stop)
		if (bench_turn(&r.uring, r.net, 100 * NS_PER_MS) != ST_OK)
			break;
	s = (double)(clock_mono_ns() - r.begin_ns) / 1e9;
	printf("acked=%llu unknown=%llu seconds=%.3f rate=%.0f", (unsigned long long)r.answered, (unsigned long long)r.lost, s, (double)r.answered / s);
	bench_latency_print(r.latency_ms, r.answered);
	bench_cpu_print(&r.cpu, r.answered);
	net_free(r.net);
	return r.answered == o->messages ? 0 : 1;
}
