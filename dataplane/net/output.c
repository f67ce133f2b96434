/* Output: copied bytes and borrowed slices, through TLS, one send at a time; and the orderly close, which is its end. */
#include <stdlib.h>
#include "dataplane/net/transport.h"
#include "spool/base/clock.h"

enum { TLS_PIECE = 16 * 1024, TLS_OUT_HIGH = 128 * 1024 };
#define LINGER_NS (2 * NS_PER_S)

static bool out_add_bytes(char **buf, uint32_t *len, uint32_t *cap, struct span s)
{
	if (*len + s.n > *cap) {
		uint32_t bigger = *cap ? *cap : 512;
		char *p;

		while (bigger < *len + s.n)
			bigger *= 2;
		p = realloc(*buf, bigger);
		if (!p)
			return false;
		*buf = p;
		*cap = bigger;
	}
	memcpy(*buf + *len, s.p, s.n);
	*len += (uint32_t)s.n;
	return true;
}

enum status net_write(struct net_conn *c, struct span s)
{
	if (c->closing || c->dead)
		return ST_OK; /* nobody hears it; NET_CLOSED is on its way */
	conn_mark(c);
	if (c->tls_on) {
		if (tls_session_pending(c->tls) > NET_WRITE_MAX)
			c->drain_wanted = true;
		else if (!tls_session_write(c->tls, s))
			conn_fail(c, ST_IO, "TLS error");
		return c->drain_wanted ? ST_FULL : ST_OK;
	}
	if (c->out_len + s.n > NET_WRITE_MAX) {
		c->drain_wanted = true;
		return ST_FULL;
	}
	if (!out_add_bytes(&c->out, &c->out_len, &c->out_cap, s))
		conn_fail(c, ST_NOMEM, "out of memory");
	return ST_OK;
}

void net_send(struct net_conn *c, const struct span *slices, unsigned n)
{
	CHECK(!c->sent_wanted && n <= NET_SLICES_MAX - 2);
	if (c->closing || c->dead)
		return;
	if (!c->slice)
		c->slice = malloc(NET_SLICES_MAX * sizeof(*c->slice));
	if (!c->slice) {
		conn_fail(c, ST_NOMEM, "out of memory");
		return;
	}
	memcpy(c->slice, slices, n * sizeof(*slices));
	c->nslice = n;
	c->sent_wanted = true;
	conn_mark(c);
}

/* Encrypts slices as far as the output's bound lets. */
static void encrypt_slices(struct net_conn *c)
{
	while (c->nslice && tls_session_pending(c->tls) < TLS_OUT_HIGH) {
		struct span piece = c->slice[0];

		if (piece.n > TLS_PIECE)
			piece.n = TLS_PIECE;
		if (!tls_session_write(c->tls, piece)) {
			conn_fail(c, ST_IO, "TLS error");
			return;
		}
		c->slice[0] = span_skip(c->slice[0], piece.n);
		if (!c->slice[0].n)
			memmove(c->slice, c->slice + 1, --c->nslice * sizeof(*c->slice));
	}
}

/* Plaintext that was written before TLS, then what TLS has to say. */
static bool collect_tx(struct net_conn *c)
{
	c->tx_len = 0;
	if (c->out_len) {
		char *p = c->tx;
		uint32_t cap = c->tx_cap;

		c->tx = c->out;
		c->tx_len = c->out_len;
		c->tx_cap = c->out_cap;
		c->out = p;
		c->out_cap = cap;
		c->out_len = 0;
		return true;
	}
	if (c->tls) {
		size_t n = tls_session_pending(c->tls);

		if (n > c->tx_cap) {
			free(c->tx);
			c->tx = malloc(n);
			c->tx_cap = c->tx ? (uint32_t)n : 0;
		}
		if (c->tx)
			c->tx_len = (uint32_t)tls_session_take(c->tls, c->tx, n);
	}
	return c->tx_len > 0;
}

/* The end of an orderly close: everything is out. */
static void finish_close(struct net_conn *c)
{
	if (c->shut)
		return;
	if (c->tls_on && !c->close_notified) {
		c->close_notified = true;
		tls_session_close(c->tls);
		if (tls_session_pending(c->tls)) {
			output_flush(c);
			return;
		}
	}
	c->shut = true;
	if (c->eof_seen) {
		conn_release(c, false);
		return;
	}
	c->net->ops->shutdown(c);
	c->lingering = true;
	c->linger_until_ns = clock_mono_ns() + LINGER_NS;
	TAILQ_INSERT_TAIL(&c->net->lingering, c, linger_entry);
	if (!c->recv_wanted)
		c->net->ops->recv(c, true); /* to see the peer's FIN */
}

void output_flush(struct net_conn *c)
{
	struct span v[NET_SLICES_MAX];
	unsigned n = 0;

	if (c->sending || c->dead || !c->open)
		return;
	if (c->tls_on && c->nslice)
		encrypt_slices(c);
	if (collect_tx(c))
		v[n++] = span_of(c->tx, c->tx_len);
	if (!c->tls) {
		memcpy(v + n, c->slice ? c->slice : v, c->nslice * sizeof(*v));
		n += c->nslice;
		c->slices_sending = c->nslice;
		c->nslice = 0;
	}
	if (n) {
		c->sending = true;
		c->net->ops->send(c, v, n);
	} else if (c->closing) {
		finish_close(c);
	}
}

void up_sent(struct net_conn *c)
{
	c->sending = false;
	c->slices_sending = 0;
	if (c->tx_cap > 4096) { /* idle connections keep little */
		free(c->tx);
		c->tx = NULL;
		c->tx_cap = 0;
	}
	if (c->dead)
		return;
	if (c->sent_wanted && !c->nslice && !(c->tls && tls_session_pending(c->tls))) {
		c->sent_wanted = false;
		conn_tell(c, NET_SENT);
	}
	if (c->drain_wanted && !c->dead) {
		c->drain_wanted = false;
		conn_tell(c, NET_DRAINED);
	}
	conn_mark(c);
}
