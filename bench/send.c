#include <stdlib.h>
#include "bench/bench.h"
#include "dataplane/smtp/client.h"
#include "spool/base/clock.h"

#define LOOK_NS (10 * NS_PER_MS)

struct sender {
	struct net_conn *conn;
	struct smtp_client client;
	struct smtp_txn txn;
	struct envelope env;
	struct env_rcpt rcpt;
	uint32_t index;
	struct reply result;
	uint64_t id, due_ns;
	unsigned done_here; /* messages on this connection */
	bool busy, up, idle;
	char head[160];
	size_t head_len;
};

struct run {
	const struct send_options *o;
	struct uring uring;
	struct net *net;
	struct bench_cpu cpu;
	struct smtp_client_config cfg;
	struct sender *sender;
	char *body;
	uint64_t started, finished, acked, refused, lost, failures, next_due_ns, begin_ns, look_ns;
	double *latency_ms;
};

static void step(struct run *r, struct sender *s, struct net_event *ev);

static void connect_one(struct run *r, struct sender *s)
{
	s->up = s->idle = s->busy = false;
	s->done_here = 0;
	if (net_connect(r->net, (struct sockaddr *)(uintptr_t)&r->o->to, NULL, s, &s->conn) != ST_OK)
		s->conn = NULL;
}

/* Whether a message is due now; open loop: its time was fixed beforehand, and the latency counts from there. */
static bool take_turn(struct run *r, struct sender *s)
{
	uint64_t now = clock_mono_ns();

	if (r->started == r->o->messages || bench_stop)
		return false;
	s->due_ns = now;
	if (r->o->rate > 0) {
		if (r->next_due_ns > now)
			return false;
		s->due_ns = r->next_due_ns;
		r->next_due_ns += (uint64_t)(1e9 / r->o->rate);
	}
	s->id = r->o->first_id + r->started++;
	return true;
}

static void begin(struct run *r, struct sender *s)
{
	struct out o = out_of(s->head, sizeof(s->head));

	out_fmt(&o, "From: <%s>\r\nTo: <%s>\r\nX-Bench-Id: %llu\r\n\r\n", r->o->from, r->o->rcpt, (unsigned long long)s->id);
	s->head_len = o.n;
	s->rcpt = (struct env_rcpt){ .addr = span_str(r->o->rcpt) };
	s->env = (struct envelope){ .sender = span_str(r->o->from), .nrcpt = 1, .rcpt = &s->rcpt };
	s->index = 0;
	s->result.code = 0;
	s->txn = (struct smtp_txn){ .env = &s->env, .rcpt = &s->index, .result = &s->result, .nrcpt = 1, .size = o.n + r->o->size };
	s->busy = true;
	s->idle = false;
	s->done_here++;
	smtp_client_begin(&s->client, &s->txn);
}

static void finish(struct run *r, struct sender *s)
{
	s->busy = false;
	if (reply_is_ok(&s->result)) {
		r->latency_ms[r->acked++] = (double)(clock_mono_ns() - s->due_ns) / 1e6;
		if (r->o->acked)
			fprintf(r->o->acked, "%llu\n", (unsigned long long)s->id);
	} else if (s->result.code) {
		r->refused++;
	} else {
		r->lost++;
	}
	r->finished++;
}

static bool act(struct run *r, struct sender *s, enum client_action a)
{
	struct span v[3];

	switch (a) {
	case CLI_MORE:
		return false;
	case CLI_READY:
		if (s->done_here < r->o->per_connection && take_turn(r, s)) {
			begin(r, s);
		} else if (s->done_here >= r->o->per_connection || r->started == r->o->messages) {
			smtp_client_quit(&s->client);
		} else {
			s->idle = true;
			return false;
		}
		return true;
	case CLI_BODY:
		v[0] = span_of(s->head, s->head_len);
		v[1] = span_of(r->body, r->o->size);
		v[2] = SPAN(".\r\n");
		net_send(s->conn, v, 3);
		return false;
	case CLI_RESULT:
		finish(r, s);
		return true;
	case CLI_CLOSE:
		net_close(s->conn);
		return false;
	case CLI_STARTTLS:
		return false;
	}
	return false;
}

static void flush(struct sender *s)
{
	struct span o;

	while ((o = smtp_client_output(&s->client)).n && net_write(s->conn, o) == ST_OK)
		smtp_client_sent(&s->client, o.n);
}

static void step(struct run *r, struct sender *s, struct net_event *ev)
{
	struct span in = ev ? ev->data : SPAN_NONE;
	enum client_action a;
	size_t n;
	bool go;

	do {
		a = smtp_client_step(&s->client, in, &n);
		in = span_skip(in, n);
		flush(s);
		go = act(r, s, a);
		flush(s);
	} while (go || (a == CLI_MORE && n && in.n));
	if (ev)
		ev->used = ev->data.n - (a == CLI_CLOSE ? 0 : in.n);
}

static void on_event(void *ctx, struct net_event *ev)
{
	struct run *r = ctx;
	struct sender *s = ev->user;

	switch (ev->type) {
	case NET_CONNECTED:
		s->up = true;
		smtp_client_init(&s->client, &r->cfg);
		break;
	case NET_DATA:
		step(r, s, ev);
		break;
	case NET_SENT:
		smtp_client_body_sent(&s->client);
		step(r, s, NULL);
		break;
	case NET_EOF:
		net_close(s->conn);
		break;
	case NET_CLOSED:
		if (s->busy)
			finish(r, s);
		if (s->up)
			smtp_client_done(&s->client);
		if (!s->up && ++r->failures > r->o->sessions * 3) {
			fprintf(stderr, "weir-bench: %s\n", ev->reason);
			bench_stop = true;
		}
		s->conn = NULL;
		s->idle = false;
		if (r->started < r->o->messages && !bench_stop)
			connect_one(r, s);
		break;
	case NET_ACCEPTED:
	case NET_TLS_ON:
	case NET_DRAINED:
		break;
	}
}

static void report(struct run *r)
{
	double s = (double)(clock_mono_ns() - r->begin_ns) / 1e9;
	uint64_t n = r->acked;

	printf("sent=%llu acked=%llu refused=%llu unknown=%llu seconds=%.3f rate=%.0f", (unsigned long long)r->started,
		(unsigned long long)n, (unsigned long long)r->refused, (unsigned long long)r->lost, s, (double)n / s);
	bench_latency_print(r->latency_ms, n);
	bench_cpu_print(&r->cpu, n);
}

static void make_body(struct run *r)
{
	size_t n = r->o->size < 2 ? 2 : r->o->size;

	r->body = malloc(n);
	CHECK(r->body);
	for (size_t i = 0; i < n; i++)
		r->body[i] = i % 78 == 76 ? '\r' : i % 78 == 77 ? '\n' : (char)('a' + i % 26);
	if (r->body[n - 1] != '\n' && n >= 3 && r->body[n - 2] == '\n')
		r->body[n - 2] = 'x', r->body[n - 3] = 'x';
	if (r->body[n - 3 < n ? n - 3 : 0] == '\r')
		r->body[n - 3] = 'x';
	r->body[n - 2] = '\r';
	r->body[n - 1] = '\n';
}

/* Who has no connection, or no message yet. In a closed loop hardly anybody: a look at all of them in each turn would be a fifth of what a thousand cost. */
static void look_around(struct run *r, uint64_t now)
{
	for (unsigned i = 0; i < r->o->sessions && (r->o->rate <= 0 || r->next_due_ns <= now); i++) {
		if (!r->sender[i].conn && r->started < r->o->messages)
			connect_one(r, &r->sender[i]);
		else if (r->sender[i].idle)
			step(r, &r->sender[i], NULL);
	}
	r->look_ns = r->o->rate > 0 ? 0 : now + LOOK_NS;
}

int bench_send(const struct send_options *o)
{
	static struct run r;

	r.o = o;
	r.cfg = (struct smtp_client_config){ .hostname = SPAN("bench.test"), .tls = CLIENT_TLS_NEVER };
	r.sender = calloc(o->sessions, sizeof(*r.sender));
	r.latency_ms = calloc(o->messages + 1, sizeof(double));
	make_body(&r);
	if (!r.sender || !r.latency_ms || bench_net(&o->transport, on_event, &r, &r.uring, &r.net) != ST_OK) {
		fprintf(stderr, "weir-bench: %s\n", trail_text());
		return 1;
	}
	bench_cpu_begin(&r.cpu);
	r.begin_ns = r.next_due_ns = clock_mono_ns();
	for (unsigned i = 0; i < o->sessions; i++)
		connect_one(&r, &r.sender[i]);
	while (r.finished < o->messages && !bench_stop) {
		uint64_t wait = 100 * NS_PER_MS, now = clock_mono_ns();

		if (now >= r.look_ns)
			look_around(&r, now);
		if (o->rate > 0)
			wait = r.next_due_ns > now ? r.next_due_ns - now : NS_PER_MS;
		if (bench_turn(&r.uring, r.net, wait) != ST_OK)
			break;
	}
	report(&r);
	net_free(r.net);
	return r.acked == o->messages ? 0 : 1;
}
