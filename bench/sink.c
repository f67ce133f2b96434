#include <netinet/in.h>
#include <stdlib.h>
#include <unistd.h>
#include "bench/bench.h"
#include "bench/mailbox.h"
#include "dataplane/net/transport.h"
#include "dataplane/smtp/server.h"
#include "spool/base/clock.h"

struct taker {
	struct net_conn *conn;
	struct smtp_server smtp;
	uint64_t id;
	bool have_id;
	struct letter letter;
};

struct sink {
	const struct sink_options *o;
	struct uring uring;
	struct net *net;
	struct bench_cpu cpu;
	struct smtp_server_config cfg;
	uint64_t messages, bytes, doubles, last_ns, first_ns;
	uint8_t *seen;
	uint64_t seen_cap;
};

static void remember(struct sink *k, struct taker *t)
{
	if (!k->messages++)
		bench_cpu_begin(&k->cpu); /* what was before the first message is not the others' price */
	k->bytes += t->smtp.body_len;
	k->last_ns = clock_mono_ns();
	k->first_ns = k->first_ns ? k->first_ns : k->last_ns;
	if (!t->have_id)
		return;
	if (k->o->arrived)
		fprintf(k->o->arrived, "%llu\n", (unsigned long long)t->id);
	if (t->id >= k->seen_cap && t->id < 1u << 30) {
		uint64_t cap = (t->id + 1) * 2;
		uint8_t *bigger = realloc(k->seen, cap);

		if (!bigger)
			return;
		memset(bigger + k->seen_cap, 0, cap - k->seen_cap);
		k->seen = bigger;
		k->seen_cap = cap;
	}
	if (t->id < k->seen_cap) {
		k->doubles += k->seen[t->id];
		k->seen[t->id] = 1;
	}
}

/* The number is in the header, which is in the first piece of the content. */
static void look_for_id(struct taker *t)
{
	struct span b = t->smtp.body;
	const char *at;

	if (t->have_id || t->smtp.body_len > 64 * 1024 || !(at = memmem(b.p, b.n, "X-Bench-Id: ", 12)))
		return;
	at += 12;
	for (t->id = 0; at < b.p + b.n && *at >= '0' && *at <= '9'; at++)
		t->id = t->id * 10 + (uint64_t)(*at - '0');
	t->have_id = true;
}

static void answer_rcpt(const struct sink *k, struct taker *t)
{
	struct reply r;

	if (k->o->mailboxes && !mailbox_there(k->o->mailboxes, t->smtp.rcpt.full))
		reply_set(&r, 550, "5.1.1", "No such mailbox here");
	else
		reply_set(&r, 250, "2.1.5", "Ok");
	smtp_server_reply(&t->smtp, &r);
}

static void answer_data(const struct sink *k, struct taker *t)
{
	struct reply r;

	t->have_id = false;
	if (k->o->mailboxes && !letter_begin(&t->letter, k->o->mailboxes, t->smtp.env.sender))
		reply_set(&r, 451, "4.3.0", "The mailboxes cannot be written to");
	else
		reply_set(&r, 354, NULL, "go on");
	smtp_server_reply(&t->smtp, &r);
}

static void answer_end(struct sink *k, struct taker *t)
{
	struct reply r;

	if (k->o->mailboxes && !letter_end(&t->letter, k->o->mailboxes, &t->smtp.env)) {
		reply_set(&r, 451, "4.3.0", "The mailboxes cannot be written to");
	} else {
		remember(k, t);
		reply_set(&r, 250, "2.0.0", "Ok");
	}
	smtp_server_reply(&t->smtp, &r);
}

static void run(struct sink *k, struct taker *t, struct net_event *ev)
{
	struct span in = ev->data, o;
	enum server_action a = SRV_MORE;
	struct reply r;
	size_t n;
	bool more = true;

	while (more && a != SRV_CLOSE) {
		a = smtp_server_step(&t->smtp, in, &n);
		in = span_skip(in, n);
		if (a == SRV_BODY) {
			look_for_id(t);
			letter_add(&t->letter, t->smtp.body);
		} else if (a == SRV_DATA) {
			answer_data(k, t);
		} else if (a == SRV_BODY_END) {
			answer_end(k, t);
		} else if (a == SRV_RESET) {
			letter_drop(&t->letter);
		} else if (a == SRV_RCPT) {
			answer_rcpt(k, t);
		} else if (a == SRV_XCLIENT) {
			reply_set(&r, 550, "5.7.0", "Not here");
			smtp_server_reply(&t->smtp, &r);
		} else if (a == SRV_MAIL) {
			reply_set(&r, 250, "2.1.0", "Ok");
			smtp_server_reply(&t->smtp, &r);
		}
		o = smtp_server_output(&t->smtp);
		more = in.n || a != SRV_MORE || o.n;
		if (o.n && (a == SRV_MORE || a == SRV_CLOSE)) {
			if (net_write(t->conn, o) != ST_OK)
				net_abort(t->conn);
			smtp_server_sent(&t->smtp, o.n);
		}
	}
	ev->used = ev->data.n;
	if (a == SRV_CLOSE)
		net_close(t->conn);
}

static void on_event(void *ctx, struct net_event *ev)
{
	struct sink *k = ctx;
	struct taker *t = ev->user;
	struct span o;

	switch (ev->type) {
	case NET_ACCEPTED:
		t = calloc(1, sizeof(*t));
		CHECK(t);
		t->conn = ev->conn;
		net_set_user(ev->conn, t);
		smtp_server_init(&t->smtp, &k->cfg);
		o = smtp_server_output(&t->smtp);
		if (net_write(t->conn, o) == ST_OK)
			smtp_server_sent(&t->smtp, o.n);
		break;
	case NET_DATA:
		run(k, t, ev);
		break;
	case NET_EOF:
		net_close(ev->conn);
		break;
	case NET_CLOSED:
		letter_drop(&t->letter);
		smtp_server_done(&t->smtp);
		free(t);
		break;
	case NET_CONNECTED:
	case NET_TLS_ON:
	case NET_SENT:
	case NET_DRAINED:
		break;
	}
}

static int listening_socket(const struct sockaddr_storage *ss)
{
	int one = 1, fd = socket(ss->ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (fd < 0 || bind(fd, (const struct sockaddr *)ss, ss->ss_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6)) < 0 ||
		listen(fd, 4096) < 0) {
		perror("weir-bench: sink");
		return -1;
	}
	return fd;
}

static enum status begin(struct sink *k, int fd)
{
	struct net_listen l = { .fd = fd };
	enum status st = bench_net(&k->o->transport, on_event, k, &k->uring, &k->net);

	net_unpack(&k->o->listen, l.ip, &l.port);
	return st == ST_OK ? net_listen(k->net, &l, 0) : st;
}

int bench_sink(const struct sink_options *o)
{
	static struct sink k;
	int fd = o->transport.device ? -1 : listening_socket(&o->listen);
	double s;

	k.o = o;
	k.cfg = (struct smtp_server_config){ .hostname = SPAN("sink.test"), .banner = SPAN("ESMTP sink"), .size_max = 1ull << 31, .rcpt_max = 50000,
		.transaction_max = 16 << 20, .lmtp = o->lmtp };
	if (fd < 0 && !o->transport.device)
		return 1;
	if (begin(&k, fd) != ST_OK) {
		fprintf(stderr, "weir-bench: %s\n", trail_text());
		return 1;
	}
	fputs("weir-bench: listening\n", stderr);
	while (!bench_stop && !(o->expect && k.messages >= o->expect)) {
		if (bench_turn(&k.uring, k.net, 100 * NS_PER_MS) != ST_OK)
			break;
		if (o->idle_s > 0 && k.last_ns && (double)(clock_mono_ns() - k.last_ns) / 1e9 > o->idle_s)
			break;
	}
	for (int i = 0; i < 20; i++) { /* the last replies */
		if (bench_turn(&k.uring, k.net, 10 * NS_PER_MS) != ST_OK)
			break;
	}
	s = (double)(k.last_ns - k.first_ns) / 1e9;
	printf("arrived=%llu doubles=%llu bytes=%llu seconds=%.3f rate=%.0f", (unsigned long long)k.messages, (unsigned long long)k.doubles,
		(unsigned long long)k.bytes, s, s > 0 ? (double)k.messages / s : 0.0);
	bench_cpu_print(&k.cpu, k.messages ? k.messages - 1 : 0);
	net_free(k.net);
	if (fd >= 0)
		close(fd);
	return o->expect && k.messages < o->expect ? 1 : 0;
}
