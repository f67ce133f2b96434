/* Input: from the transport through TLS to the handler, and what the handler leaves. */
#include <stdlib.h>
#include "dataplane/net/transport.h"

enum { REST_HIGH = 64 * 1024, TLS_SCRATCH = 16 * 1024 };

static bool rest_add(struct net_conn *c, struct span s)
{
	uint32_t need = c->rest_len + (uint32_t)s.n;

	if (c->rest_off + need > c->rest_cap) {
		uint32_t cap = need < 4096 ? 4096 : need * 2;
		char *bigger = malloc(cap);

		if (!bigger)
			return false;
		if (c->rest_len)
			memcpy(bigger, c->rest + c->rest_off, c->rest_len);
		free(c->rest);
		c->rest = bigger;
		c->rest_cap = cap;
		c->rest_off = 0;
	}
	memcpy(c->rest + c->rest_off + c->rest_len, s.p, s.n);
	c->rest_len = need;
	return true;
}

static void rest_take(struct net_conn *c, size_t n)
{
	c->rest_off += (uint32_t)n;
	c->rest_len -= (uint32_t)n;
	if (c->rest_len)
		return;
	free(c->rest);
	c->rest = NULL;
	c->rest_off = c->rest_cap = 0;
}

/* Offers plaintext to the handler; keeps what it leaves. */
static void deliver(struct net_conn *c, struct span s)
{
	bool had_tls = c->tls != NULL;
	struct net_event ev = { .type = NET_DATA, .data = s };

	if (c->closing || c->dead)
		return;
	if (!c->paused) {
		c->delivering = true;
		conn_emit(c, &ev);
		c->delivering = false;
		CHECK(ev.used <= s.n);
		s = span_skip(s, ev.used);
	}
	if (!s.n || c->closing || c->dead)
		return;
	if (!had_tls && c->tls) {
		conn_fail(c, ST_DENIED, "data was sent behind STARTTLS");
		return;
	}
	c->paused = true;
	if (!rest_add(c, s))
		conn_fail(c, ST_NOMEM, "out of memory");
	else if (c->rest_len > REST_HIGH)
		c->net->ops->recv(c, false);
}

static void tell_eof(struct net_conn *c)
{
	if (!c->eof_seen || c->eof_told || c->rest_len)
		return;
	c->eof_told = true;
	conn_tell(c, NET_EOF);
}

/* Goes on with the handshake and with what can be decrypted. */
static void tls_turn(struct net_conn *c)
{
	static char scratch[TLS_SCRATCH];
	size_t n;

	while (!c->dead && !c->closing && !(c->tls_on && c->paused)) {
		switch (tls_session_read(c->tls, scratch, sizeof(scratch), &n)) {
		case TLS_ON:
			c->tls_on = true;
			conn_tell(c, NET_TLS_ON);
			continue;
		case TLS_DATA:
			deliver(c, span_of(scratch, n));
			continue;
		case TLS_MORE:
			break;
		case TLS_END:
			c->close_notified = true; /* not one byte more is read (P4) */
			c->eof_seen = true;
			tell_eof(c);
			break;
		case TLS_ERROR:
			c->status = c->tls_on ? ST_IO : ST_DENIED;
			c->reason = "TLS error";
			output_flush(c); /* the alert */
			c->closing = true;
			conn_mark(c);
			break;
		}
		break;
	}
	if (tls_session_pending(c->tls))
		conn_mark(c);
}

void up_data(struct net_conn *c, struct span data)
{
	if (c->closing || c->dead || c->close_notified)
		return;
	if (!c->tls) {
		deliver(c, data);
		return;
	}
	if (!tls_session_feed(c->tls, data))
		conn_fail(c, ST_NOMEM, "out of memory");
	else
		tls_turn(c);
}

void up_eof(struct net_conn *c)
{
	c->eof_seen = true;
	if (c->closing) {
		if (c->shut)
			conn_release(c, false);
		return;
	}
	if (c->tls && !c->close_notified) {
		conn_fail(c, ST_CLOSED, "the peer ended TLS without close_notify");
		return;
	}
	tell_eof(c);
}

void net_pause(struct net_conn *c)
{
	c->paused = true;
}

void net_resume(struct net_conn *c)
{
	if (!c->paused && c->recv_wanted)
		return;
	c->resume_wanted = true;
	conn_mark(c);
}

void input_resume(struct net_conn *c)
{
	c->resume_wanted = false;
	c->paused = false;
	if (c->rest_len) {
		struct net_event ev = { .type = NET_DATA, .data = span_of(c->rest + c->rest_off, c->rest_len) };
		bool had_tls = c->tls != NULL;

		c->delivering = true;
		conn_emit(c, &ev);
		c->delivering = false;
		rest_take(c, ev.used);
		if (!had_tls && c->tls && c->rest_len) {
			conn_fail(c, ST_DENIED, "data was sent behind STARTTLS");
			return;
		}
	}
	if (c->closing || c->dead)
		return;
	if (c->rest_len) {
		c->paused = true;
		return;
	}
	if (c->paused)
		return;
	if (c->tls)
		tls_turn(c);
	if (!c->recv_wanted && !c->paused && !c->dead && !c->eof_seen)
		c->net->ops->recv(c, true);
	tell_eof(c);
}

void net_start_tls(struct net_conn *c, struct tls_context *t, struct span name)
{
	char host[256];
	struct out o = out_of(host, sizeof(host) - 1);

	out_add(&o, name);
	host[o.n] = '\0';
	if (c->rest_len && !c->delivering) {
		conn_fail(c, ST_DENIED, "data was sent behind STARTTLS");
		return;
	}
	c->tls = tls_session_new(t, c->inbound, host);
	if (!c->tls) {
		conn_fail(c, ST_NOMEM, "out of memory");
		return;
	}
	c->resume_wanted = true; /* the handshake begins at net_poll */
	conn_mark(c);
}

const char *net_tls_text(const struct net_conn *c)
{
	return c->tls_on ? tls_session_text(c->tls) : NULL;
}
