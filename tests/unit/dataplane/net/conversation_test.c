/* Whole conversations between smtp/client and smtp/server over the simulated network: whatever the network does, a message that was acknowledged came once and
 * whole, and one that was cut before its end did not come (P1, P2, P8, P9). */
#include "tests/support/unit.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include "dataplane/net/net.h"
#include "dataplane/net/net_sim.h"
#include "dataplane/smtp/client.h"
#include "dataplane/smtp/server.h"
#include "spool/base/clock.h"
#include "tests/support/net_peer.h"

enum { PORT = 25, BODY_MAX = 300 * 1024, SLICES = 8, STEPS_MAX = 2000000 };

struct setup {
	struct sim_options net;
	struct sim_cut cut;
	struct span content;
	uint32_t nrcpt, messages; /* of each message; on one connection */
	bool chunking, tls, late; /* late: the server decides some time after it was asked */
	bool lmtp;
};

struct server {
	struct net *net;
	struct net_conn *conn;
	struct smtp_server smtp;
	enum server_action asked; /* an answer is owed; SRV_MORE: none */
	bool open, eof, closing, late, drain, tls_next;
	char body[BODY_MAX];
	size_t body_len;
	uint32_t begun, taken, whole, answers; /* messages; those whose content was right */
	uint32_t patience;
};

struct client {
	struct net *net;
	struct net_conn *conn;
	struct smtp_client smtp;
	struct smtp_txn txn;
	struct envelope env;
	struct reply *result;
	struct span rest;
	struct wire_stuff stuff;
	uint32_t left, acknowledged, refused, unknown;
	bool in_txn, sending, end_sent, open, busy;
};

struct world {
	const struct setup *o;
	struct sim *sim;
	struct server server;
	struct client client;
	struct smtp_server_config server_cfg;
	struct smtp_client_config client_cfg;
};

static struct tls_context *tls_server, *tls_client;

/* ---- the server's host: as inbound.c, with a string for a spool ---- */

static void server_answer(struct world *w)
{
	struct server *s = &w->server;
	enum server_action asked = s->asked;
	struct reply r;

	s->asked = SRV_MORE;
	if (asked == SRV_DATA) {
		s->body_len = 0;
		s->begun++;
		reply_set(&r, 354, NULL, "go on");
	} else if (asked == SRV_BODY_END) {
		s->taken += s->answers == 0;
		s->whole += s->answers == 0 && span_eq(span_of(s->body, s->body_len), w->o->content);
		s->answers++;
		reply_set(&r, 250, "2.0.0", "taken");
	} else {
		reply_set(&r, 250, asked == SRV_MAIL ? "2.1.0" : "2.1.5", "Ok");
	}
	smtp_server_reply(&s->smtp, &r);
	if (asked == SRV_BODY_END && w->o->lmtp && s->answers < w->o->nrcpt)
		s->asked = SRV_BODY_END;
	else
		s->answers = 0;
}

static bool server_flush(struct server *s)
{
	struct span out = smtp_server_output(&s->smtp);

	if (!out.n)
		return true;
	if (net_write(s->conn, out) != ST_OK) {
		s->drain = true;
		return false;
	}
	smtp_server_sent(&s->smtp, out.n);
	return true;
}

static void server_close(struct server *s)
{
	s->closing = true;
	server_flush(s);
	net_close(s->conn);
}

static void server_act(struct world *w, enum server_action act)
{
	struct server *s = &w->server;

	switch (act) {
	case SRV_MAIL:
	case SRV_RCPT:
	case SRV_DATA:
	case SRV_BODY_END:
		s->asked = act;
		if (!s->late)
			while (s->asked != SRV_MORE)
				server_answer(w);
		else
			s->patience = 1 + s->begun * 7 % 5;
		break;
	case SRV_BODY:
		assert_true(s->body_len + s->smtp.body.n <= sizeof(s->body));
		memcpy(s->body + s->body_len, s->smtp.body.p, s->smtp.body.n);
		s->body_len += s->smtp.body.n;
		break;
	case SRV_STARTTLS:
		s->tls_next = true;
		net_start_tls(s->conn, tls_server, NULL);
		break;
	case SRV_CLOSE:
		server_close(s);
		break;
	case SRV_RESET:
	case SRV_MORE:
	case SRV_STEP:
		break;
	case SRV_AUTH:
		fail_msg("AUTH was not offered");
	}
}

static void server_run(struct world *w, struct net_event *ev)
{
	struct server *s = &w->server;
	struct span in = ev ? ev->data : SPAN_NONE;
	size_t used = 0, n;

	while (!s->closing && !s->tls_next && s->asked == SRV_MORE && !s->drain) {
		enum server_action act = smtp_server_step(&s->smtp, in, &n);
		bool said = smtp_server_output(&s->smtp).n > 0;

		used += n;
		in = span_skip(in, n);
		server_act(w, act);
		if (act == SRV_MORE && server_flush(s) && !in.n && !said)
			break;
	}
	if (!s->closing && !s->tls_next && !s->drain)
		server_flush(s);
	if (ev)
		ev->used = s->closing ? ev->data.n : used;
	else if (s->asked == SRV_MORE && s->eof && !s->closing)
		server_close(s);
	else if (s->asked == SRV_MORE && !s->closing)
		net_resume(s->conn);
}

static void server_event(void *ctx, struct net_event *ev)
{
	struct world *w = ctx;
	struct server *s = &w->server;

	switch (ev->type) {
	case NET_ACCEPTED:
		s->conn = ev->conn;
		s->open = true;
		net_set_user(ev->conn, s);
		smtp_server_init(&s->smtp, &w->server_cfg);
		server_flush(s);
		break;
	case NET_DATA:
		server_run(w, ev);
		break;
	case NET_TLS_ON:
		s->tls_next = false;
		smtp_server_tls_started(&s->smtp);
		server_run(w, NULL);
		break;
	case NET_DRAINED:
		if (s->drain) {
			s->drain = false;
			server_run(w, NULL);
		}
		break;
	case NET_EOF:
		s->eof = true;
		if (s->asked == SRV_MORE && !s->closing)
			server_close(s);
		break;
	case NET_CLOSED:
		smtp_server_done(&s->smtp);
		s->open = false;
		s->asked = SRV_MORE;
		break;
	case NET_CONNECTED:
	case NET_SENT:
		break;
	}
}

/* ---- the client's host: as conns.c ---- */

static void client_run(struct world *w, struct net_event *ev);

/* The next chunk, with its announcement: the content goes in two. Nothing when there is none, or the server wants no more. */
static unsigned client_chunk(struct world *w, struct span *v)
{
	struct client *c = &w->client;
	size_t half = (w->o->content.n + 1) / 2, len = c->rest.n < half ? c->rest.n : half;
	unsigned n = 0;

	if (!len || !smtp_client_chunk(&c->smtp, len, &v[n]))
		return 0;
	n += v[n].n != 0; /* else it is within a chunk that was announced */
	v[n++] = span_of(c->rest.p, len);
	c->rest = span_skip(c->rest, len);
	return n;
}

static void client_send(struct world *w)
{
	struct client *c = &w->client;
	struct span v[SLICES + 2];
	unsigned n = 0;
	bool dot;

	if (c->busy)
		return;
	if (c->smtp.use_bdat) {
		n = client_chunk(w, v);
	} else {
		while (n + 2 <= SLICES && wire_stuff(&c->stuff, &c->rest, &v[n + 1], &dot)) {
			v[n] = SPAN(".");
			if (!dot)
				v[n] = v[n + 1];
			n += dot ? 2 : 1;
		}
	}
	if (!n && !c->end_sent) {
		c->end_sent = true;
		if (!c->smtp.use_bdat)
			v[n++] = wire_stuff_end(&c->stuff);
	}
	if (n) {
		c->busy = true;
		net_send(c->conn, v, n);
		return;
	}
	c->sending = false;
	smtp_client_body_sent(&c->smtp);
	client_run(w, NULL);
}

static void client_count(struct client *c)
{
	for (uint32_t i = 0; i < c->txn.nrcpt; i++) {
		c->acknowledged += reply_is_ok(&c->result[i]);
		c->refused += c->result[i].code >= 400;
		c->unknown += c->result[i].code == 0;
	}
	c->in_txn = false;
	c->sending = false;
}

static bool client_ready(struct world *w)
{
	struct client *c = &w->client;
	static const uint32_t index[8] = { 0, 1, 2, 3, 4, 5, 6, 7 };

	if (!c->left) {
		smtp_client_quit(&c->smtp);
		return true;
	}
	c->left--;
	for (uint32_t i = 0; i < w->o->nrcpt; i++)
		c->result[i].code = 0;
	c->txn = (struct smtp_txn){ .env = &c->env, .rcpt = index, .result = c->result, .nrcpt = w->o->nrcpt, .size = w->o->content.n };
	c->in_txn = true;
	smtp_client_begin(&c->smtp, &c->txn);
	return true;
}

static void client_flush(struct client *c)
{
	struct span out;

	while ((out = smtp_client_output(&c->smtp)).n) {
		assert_ok(net_write(c->conn, out));
		smtp_client_sent(&c->smtp, out.n);
	}
}

static bool client_act(struct world *w, enum client_action act)
{
	struct client *c = &w->client;

	switch (act) {
	case CLI_MORE:
		client_flush(c);
		return true;
	case CLI_STARTTLS:
		client_flush(c);
		net_start_tls(c->conn, tls_client, &(struct tls_peer){ .check = TLS_CHECK_NONE });
		return false;
	case CLI_READY:
		return client_ready(w);
	case CLI_BODY:
		client_flush(c);
		c->rest = w->o->content;
		c->stuff = (struct wire_stuff){ 0 };
		c->sending = true;
		c->end_sent = false;
		client_send(w);
		return false;
	case CLI_RESULT:
		client_count(c);
		return true;
	case CLI_CLOSE:
		if (c->in_txn)
			client_count(c);
		client_flush(c);
		net_close(c->conn);
		return false;
	}
	return false;
}

static void client_run(struct world *w, struct net_event *ev)
{
	struct client *c = &w->client;
	struct span in = ev ? ev->data : SPAN_NONE;
	size_t used = 0, n;

	for (;;) {
		enum client_action act = smtp_client_step(&c->smtp, in, &n);

		used += n;
		in = span_skip(in, n);
		if (!client_act(w, act) || (act == CLI_MORE && !in.n))
			break;
	}
	if (ev)
		ev->used = used;
}

static void client_event(void *ctx, struct net_event *ev)
{
	struct world *w = ctx;
	struct client *c = &w->client;

	switch (ev->type) {
	case NET_CONNECTED:
		smtp_client_init(&c->smtp, &w->client_cfg);
		break;
	case NET_DATA:
		client_run(w, ev);
		break;
	case NET_TLS_ON:
		smtp_client_tls_done(&c->smtp, true);
		client_run(w, NULL);
		net_resume(c->conn);
		break;
	case NET_SENT:
		c->busy = false;
		if (c->sending)
			client_send(w);
		break;
	case NET_EOF:
		net_abort(c->conn);
		break;
	case NET_CLOSED:
		smtp_client_done(&c->smtp);
		if (c->in_txn)
			client_count(c);
		c->open = false;
		break;
	case NET_DRAINED:
	case NET_ACCEPTED:
		break;
	}
}

/* ---- the world ---- */

static void world_begin(struct world *w, const struct setup *o)
{
	static struct env_rcpt rcpt[8];
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(PORT) };
	struct net_config cfg = { .transport = NET_SIM, .conns_max = 4, .ctx = w };

	memset(w, 0, sizeof(*w));
	w->o = o;
	w->sim = sim_new(&o->net);
	assert_non_null(w->sim);
	sim_set_cut(w->sim, &o->cut);
	cfg.sim = w->sim;
	w->server_cfg = (struct smtp_server_config){ .hostname = SPAN("server.test"), .banner = SPAN("ESMTP"), .size_max = 1 << 20, .rcpt_max = 100,
		.starttls = o->tls, .lmtp = o->lmtp };
	w->client_cfg = (struct smtp_client_config){ .hostname = SPAN("client.test"), .tls = o->tls ? CLIENT_TLS_MUST : CLIENT_TLS_NEVER,
		.lmtp = o->lmtp, .chunking = o->chunking };
	w->server.late = o->late;
	for (uint32_t i = 0; i < 8; i++)
		rcpt[i].addr = SPAN("b@example.org");
	w->client.env = (struct envelope){ .sender = SPAN("a@example.net"), .nrcpt = o->nrcpt, .rcpt = rcpt, .body = BODY_8BITMIME };
	w->client.result = calloc(o->nrcpt, sizeof(struct reply));
	assert_non_null(w->client.result);
	w->client.left = o->messages;
	cfg.handler = server_event;
	assert_ok(net_new(NULL, &cfg, &w->server.net));
	assert_ok(net_listen(w->server.net, &(struct net_listen){ .fd = PORT }, 0));
	cfg.handler = client_event;
	assert_ok(net_new(NULL, &cfg, &w->client.net));
	w->client.open = true;
	assert_ok(net_connect(w->client.net, (struct sockaddr *)&to, NULL, &w->client, &w->client.conn));
}

static void poll_all(struct world *w)
{
	net_poll(w->client.net);
	net_poll(w->server.net);
}

/* Until nothing happens any more; then both ends have run out of patience. */
static void world_run(struct world *w)
{
	unsigned steps = 0;
	bool more;

	do {
		poll_all(w);
		more = sim_step(w->sim);
		if (w->server.asked != SRV_MORE && (!w->server.patience || --w->server.patience == 0 || !more)) {
			while (w->server.asked != SRV_MORE)
				server_answer(w);
			server_run(w, NULL);
			more = true;
		}
		assert_true(++steps < STEPS_MAX);
	} while (more);
	if (w->client.open)
		net_abort(w->client.conn);
	if (w->server.open)
		net_abort(w->server.conn);
	do
		poll_all(w);
	while (sim_step(w->sim));
	assert_int_equal(net_conns(w->client.net), 0);
	assert_int_equal(net_conns(w->server.net), 0);
	assert_false(w->client.open);
	assert_false(w->server.open);
}

static void world_end(struct world *w)
{
	net_free(w->client.net);
	net_free(w->server.net);
	sim_free(w->sim);
	free(w->client.result);
}

/* What holds in any network. Gives the number of messages taken. */
static void check_promises(const struct world *w)
{
	const struct client *c = &w->client;

	assert_int_equal(w->server.taken, w->server.whole);                      /* nothing but whole messages */
	assert_int_equal(c->refused, 0);
	assert_true(c->acknowledged <= w->server.taken * w->o->nrcpt);            /* none that was acknowledged is missing */
	assert_true(w->server.taken <= w->o->messages);                           /* none came twice */
	assert_true(c->acknowledged + c->unknown >= w->server.taken * w->o->nrcpt); /* what was not taken for sure did not come */
}

static struct world world; /* it is large */

static void converse(const struct setup *o, bool must_succeed)
{
	world_begin(&world, o);
	world_run(&world);
	check_promises(&world);
	if (must_succeed) {
		assert_int_equal(world.server.taken, o->messages);
		assert_int_equal(world.client.acknowledged, o->messages * o->nrcpt);
		assert_int_equal(world.client.refused, 0);
	}
	world_end(&world);
}

static const char text[] = "Subject: x\r\n\r\n.dot\r\n..\r\n.\r\nline\r\n\xc3\xa4\r\n";

static struct span long_text(void)
{
	static char buf[200 * 1024];
	struct out o = out_of(buf, sizeof(buf));

	while (o.n + 100 < o.cap)
		out_fmt(&o, "%s%0*zu\r\n", o.n % 3 ? "" : ".", (int)(o.n % 71) + 1, o.n);
	return out_span(&o);
}

/* ---- the tests ---- */

static void any_network_that_delivers_is_good_enough(void **state)
{
	for (uint64_t seed = 0; seed < 300; seed++) {
		struct setup o = { .content = seed % 10 ? span_str(text) : long_text(), .nrcpt = 1 + (uint32_t)seed % 8, .messages = 1 + (uint32_t)seed % 4,
			.chunking = (seed & 1) != 0, .late = (seed & 2) != 0, .lmtp = seed % 7 == 0, .tls = seed % 11 == 0 };

		o.net = (struct sim_options){ .seed = seed, .delay_ns = seed % 5 * NS_PER_MS, .jitter_ns = seed % 3 * 10 * NS_PER_MS,
			.segment_max = seed % 10 ? 1 + (uint32_t)seed % 40 : 4000, .window = seed % 4 ? 64 : 3000, .loss_permille = (uint32_t)seed % 6 * 50 };
		converse(&o, true);
	}
}

static void one_byte_at_a_time(void **state)
{
	for (unsigned i = 0; i < 8; i++) {
		struct setup o = { .net = { .seed = i, .segment_max = 1, .window = i & 4 ? 1 : 0 }, .content = span_str(text), .nrcpt = 2, .messages = 2,
			.chunking = i & 1, .late = i & 2 };

		converse(&o, true);
	}
}

static void the_same_seed_is_the_same_conversation(void **state)
{
	struct setup o = { .net = { .seed = 42, .delay_ns = NS_PER_MS, .jitter_ns = NS_PER_MS, .segment_max = 30, .loss_permille = 100 },
		.content = span_str(text), .nrcpt = 3, .messages = 2 };
	uint64_t end[2];

	for (unsigned i = 0; i < 2; i++) {
		world_begin(&world, &o);
		world_run(&world);
		end[i] = sim_now(world.sim);
		world_end(&world);
	}
	assert_int_equal(end[0], end[1]);
}

/* Cuts after every byte of one side, until a cut comes too late to matter. */
static void cut_everywhere(struct setup *o, bool by_client, enum sim_cut_how how, uint64_t from, uint64_t stride)
{
	for (uint64_t at = from;; at += stride) {
		uint32_t taken, acknowledged;

		assert_true(at < 20000);
		o->cut = (struct sim_cut){ .how = how, .by_client = by_client, .at = at };
		o->net.seed = at;
		world_begin(&world, o);
		world_run(&world);
		check_promises(&world);
		taken = world.server.taken;
		acknowledged = world.client.acknowledged;
		world_end(&world);
		if (taken == o->messages && acknowledged == o->messages * o->nrcpt && at > from + 300)
			break;
	}
}

static void a_cut_at_every_byte_breaks_no_promise(void **state)
{
	for (unsigned i = 0; i < 4; i++)
		for (enum sim_cut_how how = SIM_CUT_RESET; how <= SIM_CUT_SILENT; how++)
			for (unsigned by_client = 0; by_client < 2; by_client++) {
				struct setup o = { .net = { .delay_ns = NS_PER_MS, .segment_max = i & 2 ? 7 : 0 }, .content = span_str(text), .nrcpt = 2,
					.messages = 2, .chunking = i & 1, .late = i & 2 };

				cut_everywhere(&o, by_client, how, 0, 1);
			}
}

static void the_same_under_tls(void **state)
{
	for (enum sim_cut_how how = SIM_CUT_RESET; how <= SIM_CUT_SILENT; how++)
		for (unsigned by_client = 0; by_client < 2; by_client++) {
			struct setup o = { .net = { .delay_ns = NS_PER_MS, .segment_max = 100 }, .content = span_str(text), .nrcpt = 1, .messages = 1, .tls = true };

			cut_everywhere(&o, by_client, how, how, 17);
		}
}

/* ---- servers that are none ---- */

struct script {
	const char *name;
	const char *reply[10]; /* the greeting, then one to each line and to each end of a message */
	uint32_t acknowledged, refused;
	bool says_mail; /* the client gets as far as MAIL */
	bool tls, smtputf8;
};

#define GREETING "220 odd.test\r\n"
#define EHLO "250-odd.test\r\n250-8BITMIME\r\n250 SMTPUTF8\r\n"
#define OK "250 2.0.0 ok\r\n"
#define GO "354 go\r\n"

static char long_reply[4000], many_lines[7000];

static const struct script scripts[] = {
	{ .name = "good", .reply = { GREETING, EHLO, OK, OK, GO, OK, "221 bye\r\n" }, .acknowledged = 1, .says_mail = true },
	{ .name = "no greeting but a refusal", .reply = { "554 no\r\n" } },
	{ .name = "a greeting that is none", .reply = { "HTTP/1.1 400 Bad Request\r\n" } },
	{ .name = "no EHLO, so no 8BITMIME", .reply = { GREETING, "500 what\r\n", OK, "221 bye\r\n" }, .refused = 1 },
	{ .name = "no 8BITMIME", .reply = { GREETING, "250 odd.test\r\n", "221 bye\r\n" }, .refused = 1 },
	{ .name = "no SMTPUTF8", .reply = { GREETING, "250-odd.test\r\n250 8BITMIME\r\n", "221 bye\r\n" }, .refused = 1, .smtputf8 = true },
	{ .name = "SMTPUTF8", .reply = { GREETING, EHLO, OK, OK, GO, OK, "221 bye\r\n" }, .acknowledged = 1, .says_mail = true, .smtputf8 = true },
	{ .name = "MAIL refused", .reply = { GREETING, EHLO, "550 5.7.1 no\r\n", "221 bye\r\n" }, .refused = 1, .says_mail = true },
	{ .name = "RCPT refused", .reply = { GREETING, EHLO, OK, "550 5.1.1 no\r\n", "221 bye\r\n" }, .refused = 1, .says_mail = true },
	{ .name = "RCPT with 354", .reply = { GREETING, EHLO, OK, GO, "221 bye\r\n" }, .says_mail = true },
	{ .name = "DATA refused", .reply = { GREETING, EHLO, OK, OK, "452 4.3.1 full\r\n", "221 bye\r\n" }, .refused = 1, .says_mail = true },
	{ .name = "DATA with 250 is no delivery", .reply = { GREETING, EHLO, OK, OK, OK, OK, OK, OK }, .says_mail = true },
	{ .name = "a reply too many is no delivery", .reply = { GREETING, EHLO, OK OK, OK, OK, OK, OK, OK }, .says_mail = true },
	{ .name = "the message refused", .reply = { GREETING, EHLO, OK, OK, GO, "554 5.6.0 no\r\n", "221 bye\r\n" }, .refused = 1, .says_mail = true },
	{ .name = "421 in the middle", .reply = { GREETING, EHLO, OK, OK, "421 4.3.2 bye\r\n" }, .says_mail = true },
	{ .name = "421 at the end", .reply = { GREETING, EHLO, OK, OK, GO, "421 4.3.2 bye\r\n" }, .says_mail = true },
	{ .name = "a line end without CR", .reply = { GREETING, EHLO, "250 ok\n" }, .says_mail = true },
	{ .name = "a bare CR", .reply = { GREETING, EHLO, "250 o\rk\r\n" }, .says_mail = true },
	{ .name = "two codes in a reply", .reply = { GREETING, EHLO, "250-ok\r\n550 no\r\n" }, .says_mail = true },
	{ .name = "a code of two digits", .reply = { GREETING, EHLO, "25 ok\r\n" }, .says_mail = true },
	{ .name = "a code above 599", .reply = { GREETING, EHLO, "650 ok\r\n" }, .says_mail = true },
	{ .name = "a code and no space", .reply = { GREETING, EHLO, "250ok\r\n" }, .says_mail = true },
	{ .name = "nothing but a code", .reply = { GREETING, EHLO, "250\r\n", "250\r\n", "354\r\n", "250\r\n", "221\r\n" }, .acknowledged = 1, .says_mail = true },
	{ .name = "a long line", .reply = { GREETING, EHLO, long_reply }, .says_mail = true },
	{ .name = "lines without end", .reply = { GREETING, many_lines } },
	{ .name = "control characters", .reply = { GREETING, EHLO, OK, "550 5.1.1 \x1b[31m\x07\x9b no\r\n", "221 bye\r\n" }, .refused = 1, .says_mail = true },
	{ .name = "no STARTTLS where it must be", .reply = { GREETING, EHLO, OK, OK }, .tls = true },
	{ .name = "STARTTLS refused", .reply = { GREETING, "250 STARTTLS\r\n", "454 no\r\n", OK }, .tls = true },
	{ .name = "STARTTLS offered, then refused", .reply = { GREETING, "250-odd.test\r\n250 STARTTLS\r\n", "454 no\r\n", OK }, .tls = true },
	{ .name = "replies behind STARTTLS", .reply = { GREETING, "250-odd.test\r\n250 STARTTLS\r\n", "220 go\r\n" EHLO OK OK GO OK, OK, OK, OK }, .tls = true },
	{ .name = "no handshake after STARTTLS", .reply = { GREETING, "250-odd.test\r\n250 STARTTLS\r\n", "220 go\r\n", EHLO, OK, OK, GO }, .tls = true },
};

struct odd_server {
	const struct script *script;
	struct net_conn *conn;
	unsigned next;
	bool open, in_body, said_mail;
	char line[4096];
	size_t line_len;
};

static void odd_say(struct odd_server *s)
{
	const char *reply = s->next < 10 ? s->script->reply[s->next++] : NULL;

	if (!reply)
		return;
	assert_ok(net_write(s->conn, span_str(reply)));
	s->in_body = strncmp(reply, "354", 3) == 0;
}

static void odd_event(void *ctx, struct net_event *ev)
{
	struct odd_server *s = ctx;

	switch (ev->type) {
	case NET_ACCEPTED:
		s->conn = ev->conn;
		s->open = true;
		net_set_user(ev->conn, s);
		odd_say(s);
		break;
	case NET_DATA:
		ev->used = ev->data.n;
		for (size_t i = 0; i < ev->data.n; i++) {
			s->line[s->line_len++ % sizeof(s->line)] = ev->data.p[i];
			if (ev->data.p[i] != '\n')
				continue;
			s->said_mail = s->said_mail || memcmp(s->line, "MAIL", 4) == 0;
			if (!s->in_body || (s->line_len == 3 && s->line[0] == '.'))
				odd_say(s);
			s->line_len = 0;
		}
		break;
	case NET_EOF:
		net_close(s->conn);
		break;
	case NET_CLOSED:
		s->open = false;
		break;
	case NET_CONNECTED:
	case NET_TLS_ON:
	case NET_SENT:
	case NET_DRAINED:
		break;
	}
}

static void odd_conversation(const struct script *script, uint64_t seed)
{
	struct setup o = { .net = { .seed = seed, .segment_max = seed ? (uint32_t)seed * 3 : 0 }, .content = span_str(text), .nrcpt = 1, .messages = 1,
		.tls = script->tls };
	struct odd_server odd = { .script = script };
	struct net_config cfg = { .transport = NET_SIM, .conns_max = 4, .handler = odd_event, .ctx = &odd };
	struct client *c = &world.client;

	world_begin(&world, &o);
	c->env.flags = script->smtputf8 ? ENV_SMTPUTF8 | ENV_8BIT_HEADER : 0;
	net_free(world.server.net);
	cfg.sim = world.sim;
	assert_ok(net_new(NULL, &cfg, &world.server.net));
	assert_ok(net_listen(world.server.net, &(struct net_listen){ .fd = PORT }, 0));
	world_run(&world);
	if (c->acknowledged != script->acknowledged || c->refused != script->refused || odd.said_mail != script->says_mail)
		fail_msg("%s (seed %u): %u acknowledged, %u refused, MAIL %d", script->name, (unsigned)seed, c->acknowledged, c->refused, odd.said_mail);
	for (size_t i = 0; c->refused && i < c->result[0].text_len; i++)
		assert_in_range(c->result[0].text[i], ' ', '~');
	assert_false(odd.open);
	world_end(&world);
}

static void odd_servers_get_and_give_nothing(void **state)
{
	size_t n = 0;

	memset(long_reply, 'x', sizeof(long_reply) - 1);
	memcpy(long_reply, "250 ", 4);
	strcpy(long_reply + sizeof(long_reply) - 3, "\r\n");
	while (n + 10 < sizeof(many_lines))
		n += (size_t)sprintf(many_lines + n, "250-x\r\n");
	for (size_t i = 0; i < sizeof(scripts) / sizeof(scripts[0]); i++)
		for (uint64_t seed = 0; seed < 10; seed++)
			odd_conversation(&scripts[i], seed);
}

static void nobody_listens(void **state)
{
	struct setup o = { .content = span_str(text), .nrcpt = 1, .messages = 1 };

	world_begin(&world, &o);
	net_accept_pause(world.server.net, true);
	world_run(&world);
	assert_int_equal(world.server.taken, 0);
	world_end(&world);
}

/* ---- a client that reads nothing for long ---- */

/* Turns until nothing is under way any more. got: what the peer reads meanwhile; NULL: it reads nothing. */
static void settle(struct world *w, struct peer *p, struct out *got)
{
	bool more = true;

	while (more) {
		ssize_t n = got ? p->ops->read(p, got->p + got->n, got->cap - got->n) : 0;

		got = n < 0 && n != -EAGAIN ? NULL : got;
		if (got && n > 0)
			got->n += (size_t)n;
		poll_all(w);
		more = sim_step(w->sim) || n > 0;
	}
}

static void write_all(struct world *w, struct peer *p, struct span s)
{
	while (s.n) {
		ssize_t n = p->ops->write(p, s);

		assert_true(n > 0);
		s = span_skip(s, (size_t)n);
		settle(w, p, NULL);
	}
}

static void handshake(struct world *w, struct peer *p)
{
	char none[16];

	peer_tls(p, tls_client, false);
	for (unsigned i = 0; i < 10; i++) {
		assert_int_equal(peer_tls_turn(p, none, sizeof(none)), 0); /* nothing that was said before is encrypted */
		settle(w, p, NULL);
	}
	assert_true(p->tls_on);
}

/* So many replies wait for the client when it says STARTTLS. Gives whether they were more than the connection takes. */
static bool unread_replies_before_starttls(unsigned commands)
{
	static char in[200 * 1024], out[200 * 1024];
	struct setup o = { .net = { .seed = commands, .window = 8000 }, .content = span_str(text), .nrcpt = 1, .tls = true };
	struct out say = out_of(in, sizeof(in)), got = out_of(out, sizeof(out));
	struct sockaddr_storage to = { 0 };
	struct peer p = { 0 };
	bool full;

	world_begin(&world, &o);
	net_abort(world.client.conn);
	peer_sim_network(world.sim);
	*(struct sockaddr_in *)(void *)&to = (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons(PORT) };
	assert_int_equal(peer_sim.dial(&p, &to), 0);
	for (unsigned i = 0; i < commands; i++)
		out_str(&say, "NOOP\r\n");
	out_str(&say, "STARTTLS\r\n");
	write_all(&world, &p, out_span(&say));
	full = world.server.drain;
	settle(&world, &p, &got);
	assert_true(got.n > 30);
	assert_memory_equal(out + got.n - 30, "220 2.0.0 Ready to start TLS\r\n", 30);
	handshake(&world, &p);
	peer_done(&p);
	world_run(&world);
	world_end(&world);
	return full;
}

static void the_220_to_starttls_goes_out_behind_many_unread_replies(void **state)
{
	unsigned full = 0, all = 0;

	for (unsigned n = 1000; n < 1500; n += 20, all++)
		full += unread_replies_before_starttls(n);
	assert_true(full > 0 && full < all); /* the bound is in between */
}

/* ---- a certificate ---- */

static void write_pem(char *path, EVP_PKEY *key, X509 *cert)
{
	int fd = mkstemp(path);
	FILE *f = fd >= 0 ? fdopen(fd, "w") : NULL;

	assert_non_null(f);
	assert_int_equal(key ? PEM_write_PrivateKey(f, key, NULL, NULL, 0, NULL, NULL) : PEM_write_X509(f, cert), 1);
	fclose(f);
}

static int make_tls(void **state)
{
	char key_path[] = "/tmp/weir-key-XXXXXX", cert_path[] = "/tmp/weir-cert-XXXXXX";
	EVP_PKEY *key = EVP_EC_gen("P-256");
	X509 *cert = X509_new();
	X509_NAME *name = X509_get_subject_name(cert);

	ASN1_INTEGER_set(X509_get_serialNumber(cert), 1);
	X509_gmtime_adj(X509_getm_notBefore(cert), -60);
	X509_gmtime_adj(X509_getm_notAfter(cert), 3600);
	X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)"server.test", -1, -1, 0);
	X509_set_issuer_name(cert, name);
	X509_set_pubkey(cert, key);
	X509_sign(cert, key, EVP_sha256());
	write_pem(key_path, key, NULL);
	write_pem(cert_path, NULL, cert);
	assert_ok(tls_server_new(cert_path, key_path, &tls_server));
	assert_ok(tls_client_new(NULL, &tls_client));
	unlink(key_path);
	unlink(cert_path);
	X509_free(cert);
	EVP_PKEY_free(key);
	return 0;
}

static int drop_tls(void **state)
{
	tls_context_free(tls_server);
	tls_context_free(tls_client);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(any_network_that_delivers_is_good_enough),
		cmocka_unit_test(one_byte_at_a_time),
		cmocka_unit_test(the_same_seed_is_the_same_conversation),
		cmocka_unit_test(a_cut_at_every_byte_breaks_no_promise),
		cmocka_unit_test(the_same_under_tls),
		cmocka_unit_test(odd_servers_get_and_give_nothing),
		cmocka_unit_test(nobody_listens),
		cmocka_unit_test(the_220_to_starttls_goes_out_behind_many_unread_replies),
	};

	return cmocka_run_group_tests(tests, make_tls, drop_tls);
}
