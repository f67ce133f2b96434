#include "dataplane/conns.h"

#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include "dataplane/peer.h"
#include "spool/base/clock.h"
#include "spool/base/counters.h"
#include "spool/mail/header.h"

enum conn_phase { CONN_RESOLVING, CONN_CONNECTING, CONN_TALKING, CONN_IDLE, CONN_CLOSING };

/* Sending the content of the delivery: the added header, the body, the end. */
enum send_phase { SEND_NOTHING, SEND_PIECES, SEND_END, SEND_DONE };

enum { TRACE_MAX = 2048 + ENV_TRACE_MAX, SLICES_MAX = 48 };

struct out_conn {
	struct owner owner; /* first: OWNER_CONN */
	uint8_t phase, sending;
	bool no_tls;        /* TLS failed here a moment ago, and it may be done without */
	bool tls_failed;
	bool starting_tls;
	bool out_waits;     /* output waits for NET_DRAINED */
	bool net_busy;      /* slices of net_send are under way */
	bool read_waits;    /* the body's next piece comes from the disk */
	struct worker *w;
	struct config *cfg;
	struct dest *dest;
	struct net_conn *conn;
	TAILQ_ENTRY(out_conn) entry; /* in dest->idle */
	struct timer timer;
	uint64_t deadline_ns;
	struct dns_query *query;
	struct dns_answer *mx, *addr;
	struct peer peer;    /* whom it may talk to */
	bool host_asked;     /* peer_host has the say; else peer_domain */
	uint32_t next_host, next_addr;
	uint16_t port;
	char host[256];      /* being tried or connected */
	uint8_t ip[16];
	struct reply failure; /* of the last host tried */
	struct smtp_client_config client_cfg;
	struct smtp_client client;
	struct delivery *dl;
	struct smtp_txn txn;
	struct reply *result;
	uint32_t result_cap;
	struct body_reader *reader;
	struct wire_stuff stuff;
	struct span rest;    /* of the body's current piece */
	size_t trace_len;
	char trace[TRACE_MAX];
};

static void next_host(struct out_conn *c);
static void next_addr(struct out_conn *c);
static void conn_talk(struct out_conn *c, struct net_event *ev);
static void on_peer(void *ctx);

static void deadline(struct out_conn *c, uint64_t after_ns)
{
	c->deadline_ns = c->w->now_ns + after_ns;
	if (!timer_armed(&c->timer))
		wheel_set(c->w->wheel, &c->timer, c->deadline_ns);
}

/* ---- begin and end ---- */

void conn_open(struct dest *d)
{
	struct out_conn *c = calloc(1, sizeof(*c));
	struct reply r;

	if (!c) {
		reply_set(&r, 451, "4.3.0", "Out of memory");
		outbound_dest_failed(d, &r);
		return;
	}
	c->owner.kind = OWNER_CONN;
	c->w = outbound_worker(d);
	c->cfg = config_hold(c->w->cfg);
	c->dest = d;
	c->timer.kind = TIMER_CONN;
	d->nconnecting++;
	outbound_count_conn(d, 1);
	peer_init(&c->peer, c->w, c->cfg, d, on_peer, c);
	reply_set(&c->failure, 451, "4.4.1", "No host of %s answers", d->key);
	next_host(c);
}

static void release_answers(struct out_conn *c)
{
	if (c->query)
		dns_cancel(c->query);
	c->query = NULL;
	if (c->addr)
		dns_answer_release(c->addr);
	c->addr = NULL;
}

static void conn_free(struct out_conn *c)
{
	struct dest *d = c->dest;

	release_answers(c);
	peer_done(&c->peer);
	if (c->mx)
		dns_answer_release(c->mx);
	if (c->phase == CONN_RESOLVING || c->phase == CONN_CONNECTING)
		d->nconnecting--;
	if (c->phase == CONN_IDLE)
		TAILQ_REMOVE(&d->idle, c, entry);
	wheel_cancel(c->w->wheel, &c->timer);
	outbound_count_conn(d, -1);
	config_release(c->cfg);
	free(c->result);
	free(c);
	outbound_wake(d);
}

/* No host is left to try. While other connections of the destination work it is not the destination's fault. */
static void give_up(struct out_conn *c)
{
	struct dest *d = c->dest;
	struct reply why = c->failure;
	struct logline l;
	char text[REPLY_TEXT_MAX + 32];
	struct out o = out_of(text, sizeof(text));

	counter_add(C_OUT_CONN_FAILED, 1);
	reply_line(&why, &o);
	log_begin(&l, LOG_LVL_INFO, "unreachable");
	log_str(&l, "dest", d->key);
	log_span(&l, "reply", out_span(&o));
	log_str(&l, "tls_policy", c->peer.decision.name);
	log_emit(&l);
	conn_free(c);
	if (d->nconns == d->nconnecting)
		outbound_dest_failed(d, &why);
}

/* ---- finding a host ---- */

/* What the connection to c->host must be is known: connects, or goes on with the next host. */
static void judge_host(struct out_conn *c)
{
	if (c->peer.decision.refuse) {
		c->failure = c->peer.decision.reply;
		next_host(c);
		return;
	}
	next_addr(c);
}

static void on_peer(void *ctx)
{
	struct out_conn *c = ctx;

	if (c->host_asked)
		judge_host(c);
	else
		next_host(c);
}

/* RFC 7672 2.2.1: the names of mail exchangers must be as trustworthy as their addresses; those of routes are the operator's. */
static void ask_peer(struct out_conn *c)
{
	bool secure = c->dest->kind != ROUTE_MX || (c->mx && c->mx->secure);

	c->host_asked = true;
	if (peer_host(&c->peer, c->host, c->port, secure, c->addr) == ST_OK)
		judge_host(c);
}

static void take_addresses(struct out_conn *c, struct dns_answer *a)
{
	c->addr = a;
	c->next_addr = 0;
	if (a->result != DNS_FOUND) {
		bool later = a->result == DNS_TEMPFAIL, earlier = c->next_host > 1 && reply_is_temporary(&c->failure);

		if (later || !earlier) /* a host that may be there later keeps one that does not exist from being the end of it */
			reply_set(&c->failure, later ? 451 : 550, later ? "4.4.3" : "5.4.4", "Address of %s: %s", c->host, a->text);
		next_host(c);
		return;
	}
	ask_peer(c);
}

static void on_addresses(void *ctx, struct dns_answer *a)
{
	struct out_conn *c = ctx;

	c->query = NULL;
	take_addresses(c, a);
}

/* The addresses of c->host: itself when it is an address. */
static void resolve_host(struct out_conn *c)
{
	struct dns_answer *a;
	enum status st;

	if (ip_parse(span_str(c->host), c->ip) == ST_OK) {
		c->next_addr = UINT32_MAX; /* next_addr tries c->ip, once */
		ask_peer(c);
		return;
	}
	st = dns_addr(c->w->dns, span_str(c->host), on_addresses, c, &a, &c->query);
	if (st == ST_OK) {
		take_addresses(c, a);
	} else if (st != ST_AGAIN) {
		reply_set(&c->failure, 451, "4.4.3", "Address of %s: %s", c->host, trail_text());
		next_host(c);
	}
}

static void on_mx(void *ctx, struct dns_answer *a)
{
	struct out_conn *c = ctx;

	c->query = NULL;
	c->mx = a;
	next_host(c);
}

/* False when there is no MX to use; the reason is in failure. */
static bool mx_usable(struct out_conn *c)
{
	switch (c->mx->result) {
	case DNS_FOUND:
		return true;
	case DNS_NULL_MX:
		reply_set(&c->failure, 556, "5.1.10", "%s takes no mail (null MX)", c->dest->key + 3);
		return false;
	case DNS_NXDOMAIN:
	case DNS_NODATA:
		reply_set(&c->failure, 550, "5.1.2", "%s: %s", c->dest->key + 3, c->mx->text);
		return false;
	case DNS_TEMPFAIL:
		break;
	}
	reply_set(&c->failure, 451, "4.4.3", "MX of %s: %s", c->dest->key + 3, c->mx->text);
	return false;
}

/* How many exchangers may be used: those that are not better preferred than ourselves would send it back to us (B1, RFC 5321 5.1). */
static uint32_t mx_better(struct out_conn *c)
{
	struct span host = snap_span(&c->cfg->snap, c->cfg->set->hostname);
	uint32_t own = 0, n = 0;

	while (own < c->mx->nmx && !span_eq_nocase(span_str(c->mx->mx[own].name), host))
		own++;
	if (own == c->mx->nmx)
		return own;
	while (c->mx->mx[n].preference < c->mx->mx[own].preference)
		n++;
	if (!n)
		reply_set(&c->failure, 550, "5.4.6", "%s: this relay is its best preferred mail exchanger, and has no route for it", c->dest->key + 3);
	return n;
}

static void set_host(struct out_conn *c, struct span name, uint16_t port)
{
	struct out o = out_of(c->host, sizeof(c->host) - 1);

	out_add(&o, name);
	c->host[o.n] = '\0';
	c->port = port;
	c->next_host++;
	c->no_tls = false;
	resolve_host(c);
}

static void next_mx(struct out_conn *c)
{
	uint16_t port = (uint16_t)c->cfg->set->smtp_port;
	enum status st;

	if (c->dest->domain.n && c->dest->domain.p[0] == '[') { /* an address literal has no MX */
		if (c->next_host)
			give_up(c);
		else
			set_host(c, c->dest->domain, port);
		return;
	}
	if (!c->mx) {
		st = dns_mx(c->w->dns, c->dest->domain, on_mx, c, &c->mx, &c->query);
		if (st == ST_AGAIN)
			return;
		if (st != ST_OK) {
			reply_set(&c->failure, 451, "4.4.3", "MX of %s: %s", c->dest->key + 3, trail_text());
			give_up(c);
			return;
		}
	}
	if ((c->next_host == 0 && !mx_usable(c)) || c->next_host >= mx_better(c))
		give_up(c);
	else if (peer_domain(&c->peer) == ST_OK)
		set_host(c, span_str(c->mx->mx[c->next_host].name), port);
}

/* Goes on with the next host of the destination. */
static void next_host(struct out_conn *c)
{
	const struct snap_host *hosts;
	uint32_t n = 0;

	c->phase = CONN_RESOLVING;
	c->host_asked = false;
	release_answers(c);
	if (c->dest->kind == ROUTE_MX) {
		next_mx(c);
		return;
	}
	hosts = snap_hosts(&c->dest->cfg->snap, c->dest->route->hosts, &n);
	if (c->next_host >= n)
		give_up(c);
	else
		set_host(c, snap_span(&c->dest->cfg->snap, hosts[c->next_host].name), (uint16_t)hosts[c->next_host].port);
}

static void connect_to(struct out_conn *c)
{
	struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_port = htons(c->port) };
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_port = htons(c->port) };
	static const uint8_t mapped[12] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff };
	bool is4 = memcmp(c->ip, mapped, sizeof(mapped)) == 0;
	enum status st;

	memcpy(&v4.sin_addr, c->ip + 12, 4);
	memcpy(&v6.sin6_addr, c->ip, 16);
	c->phase = CONN_CONNECTING;
	c->tls_failed = c->starting_tls = false;
	deadline(c, c->cfg->set->connect_timeout_ns);
	st = net_connect(c->w->net, is4 ? (struct sockaddr *)&v4 : (struct sockaddr *)&v6, NULL, c, &c->conn);
	if (st == ST_OK)
		return;
	c->conn = NULL;
	reply_set(&c->failure, 451, "4.4.1", "Connection to %s: %s", c->host, trail_text());
	next_addr(c);
}

static void next_addr(struct out_conn *c)
{
	if (c->next_addr == UINT32_MAX) {
		c->next_addr--;
		connect_to(c);
	} else if (c->addr && c->next_addr < c->addr->naddr) {
		memcpy(c->ip, c->addr->addr[c->next_addr++], 16);
		connect_to(c);
	} else {
		next_host(c);
	}
}

/* ---- sending the content ---- */

static void trace_header(struct out_conn *c)
{
	const struct store_msg *m = c->dl->mail->m;
	char id[MSG_ID_TEXT + 1];
	struct received_facts f = { .hostname = snap_span(&c->cfg->snap, c->cfg->set->hostname) };
	struct out o = out_of(c->trace, sizeof(c->trace));

	msg_id_text(m->id, id);
	f.id = span_str(id);
	if (m->env.nrcpt == 1)
		f.rcpt = m->env.rcpt[0].addr;
	out_add(&o, m->env.trace);
	if (!(m->env.flags & ENV_INTERNAL))
		received_write(&m->env, &f, &o);
	c->trace_len = o.over ? 0 : o.n;
}

static uint64_t conn_cookie(const struct out_conn *c)
{
	return (uint64_t)(uintptr_t)c;
}

/* Fills slices from the rest of the current piece: as it is when no line of the message begins with a dot, else stuffed. */
static unsigned piece_slices(struct out_conn *c, struct span *v, unsigned n)
{
	struct span slice;
	bool dot;

	if (c->client.use_bdat || !c->dl->mail->m->dot_lines) {
		v[n++] = c->rest;
		c->rest.n = 0;
		return n;
	}
	while (n + 2 <= SLICES_MAX && wire_stuff(&c->stuff, &c->rest, &slice, &dot)) {
		if (dot)
			v[n++] = SPAN(".");
		if (slice.n)
			v[n++] = slice;
	}
	return n;
}

static struct span content_end(struct out_conn *c)
{
	const struct store_msg *m = c->dl->mail->m;

	if (c->client.use_bdat)
		return SPAN_NONE;
	return m->ends_crlf || !m->body_len ? SPAN(".\r\n") : SPAN("\r\n.\r\n");
}

static void send_failed(struct out_conn *c)
{
	log_msg(LOG_LVL_ERROR, "spool-read", "%s", trail_text());
	reply_set(&c->client.failure, 451, "4.3.0", "The message cannot be read from the spool");
	net_abort(c->conn);
}

/* Hands the next slices to the connection; called again at NET_SENT and when a piece was read from the disk. */
static void send_more(struct out_conn *c)
{
	struct span v[SLICES_MAX + 2];
	unsigned n = 0;

	if (c->net_busy)
		return;
	if (c->sending == SEND_PIECES && c->trace_len) {
		v[n++] = span_of(c->trace, c->trace_len);
		c->trace_len = 0;
	}
	if (c->sending == SEND_PIECES && !c->rest.n) {
		enum status st = store_read(c->reader, &c->rest);

		c->read_waits = st == ST_AGAIN;
		if (st == ST_NOT_FOUND)
			c->sending = SEND_END;
		else if (st != ST_OK && st != ST_AGAIN) {
			send_failed(c);
			return;
		}
	}
	if (c->sending == SEND_PIECES && c->rest.n)
		n = piece_slices(c, v, n);
	if (c->sending == SEND_END) {
		struct span end = content_end(c);

		if (end.n)
			v[n++] = end;
		c->sending = SEND_DONE;
	}
	if (n) {
		c->net_busy = true;
		net_send(c->conn, v, n);
	} else if (c->sending == SEND_DONE) {
		c->sending = SEND_NOTHING;
		store_read_close(c->reader);
		c->reader = NULL;
		smtp_client_body_sent(&c->client);
		conn_talk(c, NULL);
	}
}

static void send_begin(struct out_conn *c)
{
	if (store_read_open(c->dl->mail->m, conn_cookie(c), &c->reader) != ST_OK) {
		send_failed(c);
		return;
	}
	c->stuff = (struct wire_stuff){ 0 };
	c->rest = SPAN_NONE;
	c->sending = SEND_PIECES;
	send_more(c);
}

void conn_read(struct worker *w, uint64_t cookie)
{
	struct out_conn *c = (struct out_conn *)(uintptr_t)cookie; /* the reader is closed before the connection goes: no cookie outlives it */

	(void)w;
	if (c->read_waits)
		send_more(c);
}

/* ---- talking ---- */

/* Hands the delivery's end to outbound. */
static void delivery_end(struct out_conn *c)
{
	struct delivery *dl = c->dl;
	struct reply lost;
	struct remote remote = peer_remote(&c->peer, c->conn);
	bool unheard = true;

	if (c->reader)
		store_read_close(c->reader);
	c->reader = NULL;
	c->sending = SEND_NOTHING;
	c->dl = NULL;
	for (uint32_t i = 0; i < dl->nrcpt; i++)
		unheard = unheard && c->result[i].code == 0;
	/* an idle connection that the server had given up: nothing was lost, nothing was said */
	if (unheard && c->client.transactions > 1 && !dl->again && !c->client.accepted_any) {
		dl->again = true;
		outbound_unpick(dl);
		return;
	}
	if (c->client.failure.code >= 400 && c->client.failure.code < 500)
		lost = c->client.failure;
	else if (c->client.failure.code)
		reply_set(&lost, 451, "4.4.2", "%s ended the session: %.*s", c->host, SPAN_FMT(reply_text(&c->client.failure)));
	else
		reply_set(&lost, 451, "4.4.2", "Connection to %s was lost", c->host);
	outbound_result(dl, c->result, &lost, remote);
}

static bool take_delivery(struct out_conn *c)
{
	struct delivery *dl = outbound_pick(c->dest);

	if (!dl)
		return false;
	if (dl->nrcpt > c->result_cap) {
		free(c->result);
		c->result = malloc(dl->nrcpt * sizeof(*c->result));
		c->result_cap = c->result ? dl->nrcpt : 0;
		if (!c->result) {
			outbound_unpick(dl);
			return false;
		}
	}
	for (uint32_t i = 0; i < dl->nrcpt; i++)
		c->result[i].code = 0;
	c->dl = dl;
	trace_header(c);
	if (c->client.transactions)
		counter_add(C_OUT_REUSED, 1);
	c->txn = (struct smtp_txn){ .env = &dl->mail->m->env, .rcpt = dl->rcpt, .result = c->result, .nrcpt = dl->nrcpt,
		.size = c->trace_len + dl->mail->m->body_len };
	smtp_client_begin(&c->client, &c->txn);
	return true;
}

/* Without work: waits a little for more, or says goodbye. True when there is something to step for. */
static bool conn_ready(struct out_conn *c)
{
	const struct snap_settings *set = c->cfg->set;

	if (c->client.transactions < set->conn_msgs_max && !c->w->stopping && take_delivery(c))
		return true;
	if (c->client.transactions >= set->conn_msgs_max || c->w->stopping || !set->idle_reuse_ns) {
		smtp_client_quit(&c->client);
		return true;
	}
	c->phase = CONN_IDLE;
	TAILQ_INSERT_HEAD(&c->dest->idle, c, entry);
	deadline(c, set->idle_reuse_ns);
	return false;
}

static bool conn_flush(struct out_conn *c)
{
	struct span o;

	while ((o = smtp_client_output(&c->client)).n) {
		if (net_write(c->conn, o) != ST_OK) {
			c->out_waits = true;
			return false;
		}
		smtp_client_sent(&c->client, o.n);
	}
	c->out_waits = false;
	return true;
}

static void conn_deadline(struct out_conn *c)
{
	const struct snap_settings *set = c->cfg->set;

	if (c->phase != CONN_TALKING)
		return;
	switch (smtp_client_wait(&c->client)) {
	case CLI_WAIT_GREETING:
		deadline(c, set->greeting_timeout_ns);
		break;
	case CLI_WAIT_FINAL:
		deadline(c, set->final_timeout_ns);
		break;
	case CLI_WAIT_REPLY:
	case CLI_WAIT_DATA_REPLY:
	case CLI_WAIT_BODY:
	case CLI_WAIT_IDLE:
		deadline(c, set->reply_timeout_ns);
		break;
	}
}

/* The session is over: QUIT was answered, or the server is of no use. */
static void conn_close(struct out_conn *c)
{
	c->phase = CONN_CLOSING;
	conn_flush(c);
	net_close(c->conn);
	deadline(c, 10 * NS_PER_S);
}

/* Does what the protocol engine asks for. False when there is nothing to step for now. */
static bool conn_act(struct out_conn *c, enum client_action act)
{
	switch (act) {
	case CLI_MORE:
		return conn_flush(c);
	case CLI_STARTTLS:
		conn_flush(c);
		c->starting_tls = true;
		peer_start_tls(&c->peer, c->conn);
		return false;
	case CLI_READY:
		if (c->client.tls_missing)
			peer_tls_missing(&c->peer, c->conn);
		return conn_ready(c);
	case CLI_BODY:
		if (!conn_flush(c))
			return true; /* NET_DRAINED steps again; what is written comes before what is sent in any case */
		send_begin(c);
		return false;
	case CLI_RESULT:
		delivery_end(c);
		return true;
	case CLI_CLOSE:
		if (c->dl)
			delivery_end(c);
		conn_close(c);
		return false;
	}
	return false;
}

static void conn_talk(struct out_conn *c, struct net_event *ev)
{
	struct span in = ev ? ev->data : SPAN_NONE;
	size_t used = 0, n;
	bool go = c->phase == CONN_TALKING;

	while (go) {
		enum client_action act = smtp_client_step(&c->client, in, &n);

		used += n;
		in = span_skip(in, n);
		go = conn_act(c, act);
		if (act == CLI_MORE && !in.n && (!smtp_client_output(&c->client).n || c->out_waits))
			break;
	}
	conn_deadline(c);
	if (ev)
		ev->used = c->phase == CONN_CLOSING ? ev->data.n : used;
}

void conn_go(struct out_conn *c)
{
	CHECK(c->phase == CONN_IDLE);
	TAILQ_REMOVE(&c->dest->idle, c, entry);
	c->phase = CONN_TALKING;
	if (!take_delivery(c))
		smtp_client_quit(&c->client);
	conn_talk(c, NULL);
}

void conn_quit(struct out_conn *c)
{
	CHECK(c->phase == CONN_IDLE);
	TAILQ_REMOVE(&c->dest->idle, c, entry);
	c->phase = CONN_TALKING;
	smtp_client_quit(&c->client);
	conn_talk(c, NULL);
}

/* ---- events ---- */

static void on_connected(struct out_conn *c)
{
	c->dest->nconnecting--;
	c->phase = CONN_TALKING;
	counter_add(C_OUT_CONNS, 1);
	c->client_cfg = (struct smtp_client_config){
		.hostname = snap_span(&c->cfg->snap, c->cfg->set->hostname),
		.tls = peer_connected(&c->peer, c->ip, c->no_tls),
		.lmtp = c->dest->kind == ROUTE_LMTP,
	};
	smtp_client_init(&c->client, &c->client_cfg);
	conn_deadline(c);
}

/* The connection is gone before it was of use: the same address without TLS, or the next one. */
static void try_next(struct out_conn *c)
{
	c->conn = NULL;
	if (c->phase == CONN_TALKING)
		c->dest->nconnecting++;
	if (c->tls_failed && c->peer.decision.level == TLS_LEVEL_MAY && !c->no_tls) {
		c->no_tls = true;
		connect_to(c);
		return;
	}
	next_addr(c);
}

static void on_closed(struct out_conn *c, const struct net_event *ev)
{
	bool useful;

	if (c->phase == CONN_CONNECTING) {
		reply_set(&c->failure, 451, "4.4.1", "Connection to %s: %s", c->host, ev->reason);
		try_next(c);
		return;
	}
	useful = c->client.transactions > 0;
	smtp_client_done(&c->client);
	if (c->dl)
		delivery_end(c);
	if (!useful && (c->phase == CONN_TALKING || c->client.failure.code)) {
		if (c->starting_tls) {
			c->tls_failed = true;
			peer_tls_failed(&c->peer, ev->conn, &c->failure);
		} else if (c->client.tls_missing && !reply_is_ok(&c->client.failure)) {
			peer_tls_missing(&c->peer, ev->conn);
			c->failure = c->client.failure;
		} else if (c->client.failure.code) {
			reply_set(&c->failure, 451, "4.4.2", "%s refused the session: %u %.*s", c->host, c->client.failure.code,
				SPAN_FMT(reply_text(&c->client.failure)));
		} else {
			reply_set(&c->failure, 451, "4.4.2", "%s closed the connection: %s", c->host, ev->reason);
		}
		if (c->phase == CONN_CLOSING)
			c->phase = CONN_TALKING;
		try_next(c);
		return;
	}
	conn_free(c);
}

void conn_net_event(struct worker *w, struct net_event *ev)
{
	struct out_conn *c = ev->user;

	(void)w;
	switch (ev->type) {
	case NET_CONNECTED:
		on_connected(c);
		break;
	case NET_DATA:
		if (c->phase == CONN_IDLE) { /* a server that speaks unasked is saying goodbye */
			TAILQ_REMOVE(&c->dest->idle, c, entry);
			c->phase = CONN_TALKING;
		}
		conn_talk(c, ev);
		break;
	case NET_SENT:
		c->net_busy = false;
		if (c->sending != SEND_NOTHING)
			send_more(c);
		break;
	case NET_DRAINED:
		conn_talk(c, NULL);
		break;
	case NET_TLS_ON:
		c->starting_tls = false;
		peer_tls_on(&c->peer, c->conn);
		smtp_client_tls_done(&c->client, true);
		conn_talk(c, NULL);
		net_resume(c->conn);
		break;
	case NET_EOF:
		if (c->phase == CONN_IDLE) {
			TAILQ_REMOVE(&c->dest->idle, c, entry);
			c->phase = CONN_CLOSING;
		}
		net_abort(c->conn);
		break;
	case NET_CLOSED:
		on_closed(c, ev);
		break;
	case NET_ACCEPTED:
		break;
	}
}

void conn_timer(struct worker *w, struct timer *t)
{
	struct out_conn *c = container_of(t, struct out_conn, timer);

	if (c->deadline_ns > w->now_ns) {
		wheel_set(w->wheel, t, c->deadline_ns);
		return;
	}
	if (c->phase == CONN_IDLE) {
		conn_quit(c);
		deadline(c, 10 * NS_PER_S);
	} else if (c->conn) {
		if (c->phase == CONN_TALKING)
			reply_set(&c->client.failure, 451, "4.4.2", "%s did not answer in time", c->host);
		net_abort(c->conn);
		deadline(c, 10 * NS_PER_S);
	}
}
