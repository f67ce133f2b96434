/* Input: from the transport through TLS to the handler, and what the handler leaves.
 *
 * What is kept for a handler that does not take it is bounded: beyond REST_HIGH the transport stops reading and TCP holds the peer back. */
#include <stdlib.h>
#include "dataplane/net/transport.h"

enum { REST_HIGH = 16 * 1024, TLS_SCRATCH = 16 * 1024 };

void input_read(struct net_conn *c, bool on)
{
	if (c->reading == on || c->dead)
		return;
	c->reading = on;
	c->net->ops->recv(c, on);
}

/* Whether what comes is of any use: nothing is behind close_notify or a TLS error (P4). */
static bool listens(const struct net_conn *c)
{
	return !c->dead && !c->notify_seen && !c->tls_broken && (!c->closing || output_waits_for_tls(c));
}

/* ---- what the handler left ---- */

static bool rest_add(struct net_conn *c, struct span s)
{
	uint32_t need = c->rest_len + (uint32_t)s.n;

	if (c->rest_off + need > c->rest_cap) {
		uint32_t cap = (need + 4095) & ~4095u; /* seldom more than two pieces */
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

/* Offers plaintext to the handler; gives what it leaves. */
static struct span offer(struct net_conn *c, struct span s)
{
	bool had_tls = c->tls != NULL;
	struct net_event ev = { .type = NET_DATA, .data = s };

	c->delivering = true;
	conn_emit(c, &ev);
	c->delivering = false;
	CHECK(ev.used <= s.n);
	s = span_skip(s, ev.used);
	if (s.n && !had_tls && c->tls)
		conn_fail(c, ST_DENIED, "data was sent behind STARTTLS");
	return s;
}

static void deliver(struct net_conn *c, struct span s)
{
	if (!c->paused)
		s = offer(c, s);
	if (!s.n || c->closing || c->dead)
		return;
	c->paused = true;
	if (!rest_add(c, s))
		conn_fail(c, ST_NOMEM, "out of memory");
}

/* ---- ends ---- */

static void tell_eof(struct net_conn *c)
{
	if (!c->eof_seen || c->eof_told || c->rest_len)
		return;
	c->eof_told = true;
	conn_tell(c, NET_EOF);
}

/* A FIN without close_notify may be an attacker's (RFC 8446 6.1). It counts when all that came before it was decrypted. */
static void judge_fin(struct net_conn *c)
{
	if (c->fin_seen && c->tls && !c->notify_seen && !c->paused && !c->closing)
		conn_fail(c, ST_CLOSED, "the peer ended TLS without close_notify");
}

/* ---- TLS ---- */

static void tls_on(struct net_conn *c)
{
	c->tls_on = true;
	conn_tell(c, NET_TLS_ON);
	conn_mark(c); /* what was written in the handshake goes now */
}

static void tls_ended(struct net_conn *c)
{
	c->notify_seen = true;
	c->eof_seen = true;
	if (c->tls_on)
		tell_eof(c);
	else
		conn_close(c, ST_DENIED, "the peer ended TLS in the handshake");
}

/* The alert is still sent; what waits for encryption is not. */
static void tls_error(struct net_conn *c)
{
	c->tls_broken = true;
	conn_close(c, c->tls_on ? ST_IO : ST_DENIED, tls_session_error(c->tls));
}

/* Goes on with the handshake and with what can be decrypted. */
static void tls_turn(struct net_conn *c)
{
	static char scratch[TLS_SCRATCH];
	bool more = true;
	size_t n;

	while (more && listens(c) && !(c->tls_on && c->paused)) {
		switch (tls_session_read(c->tls, scratch, sizeof(scratch), &n)) {
		case TLS_ON:
			tls_on(c);
			break;
		case TLS_DATA:
			deliver(c, span_of(scratch, n));
			break;
		case TLS_MORE:
			more = false;
			break;
		case TLS_END:
			tls_ended(c);
			break;
		case TLS_ERROR:
			tls_error(c);
			break;
		}
	}
	if (tls_session_pending(c->tls))
		conn_mark(c);
	judge_fin(c);
}

/* ---- upcalls ---- */

void up_data(struct net_conn *c, struct span data)
{
	size_t kept;

	if (!listens(c))
		return;
	if (!c->tls) {
		deliver(c, data);
	} else if (!tls_session_feed(c->tls, data)) {
		conn_fail(c, ST_NOMEM, "out of memory");
		return;
	} else {
		tls_turn(c);
	}
	kept = c->rest_len + (c->tls ? tls_session_kept(c->tls) : 0);
	if (c->paused && kept > REST_HIGH)
		input_read(c, false);
}

void up_eof(struct net_conn *c)
{
	c->fin_seen = true;
	if (c->closing) {
		if (c->shut)
			conn_release(c, false);
		else
			conn_mark(c);
	} else if (c->tls) {
		judge_fin(c);
	} else {
		c->eof_seen = true;
		tell_eof(c);
	}
}

/* ---- calls ---- */

void net_pause(struct net_conn *c)
{
	c->paused = true;
}

void net_resume(struct net_conn *c)
{
	if (!c->paused && c->reading)
		return;
	c->resume_wanted = true;
	conn_mark(c);
}

void input_resume(struct net_conn *c)
{
	c->resume_wanted = false;
	c->paused = false;
	if (c->rest_len && !c->closing)
		rest_take(c, c->rest_len - offer(c, span_of(c->rest + c->rest_off, c->rest_len)).n);
	if (c->rest_len)
		c->paused = true;
	if (c->paused || c->dead)
		return;
	if (c->tls)
		tls_turn(c);
	if (listens(c) && !c->paused && !c->fin_seen)
		input_read(c, true);
	tell_eof(c);
}

void net_start_tls(struct net_conn *c, struct tls_context *t, const struct tls_peer *peer)
{
	if (c->closing || c->dead)
		return;
	CHECK(!c->tls && !c->sent_wanted);
	if (c->rest_len && !c->delivering) {
		conn_fail(c, ST_DENIED, "data was sent behind STARTTLS");
		return;
	}
	c->tls = tls_session_new(t, peer);
	/* What was written before goes in the clear and first; all that is written from now on waits for the handshake. */
	if (!c->tls || !tls_session_prefix(c->tls, span_of(c->out, c->out_len))) {
		conn_fail(c, ST_NOMEM, c->tls ? "out of memory" : "no memory for TLS, or no way to check the peer");
		return;
	}
	c->out_len = 0;
	c->resume_wanted = true; /* the handshake begins at net_poll */
	conn_mark(c);
}

const char *net_tls_text(const struct net_conn *c)
{
	return c->tls_on ? tls_session_text(c->tls) : NULL;
}

bool net_tls_resumed(const struct net_conn *c)
{
	return c->tls_on && tls_session_resumed(c->tls);
}

enum tls_fault net_tls_fault(const struct net_conn *c, const char **ret_text)
{
	enum tls_fault fault = c->tls ? tls_session_fault(c->tls, ret_text) : TLS_FAULT_HANDSHAKE;

	if (fault == TLS_FAULT_HANDSHAKE)
		*ret_text = c->tls && *tls_session_error(c->tls) ? tls_session_error(c->tls) : c->reason;
	return fault;
}
