/* Output: copied bytes, then borrowed slices, through TLS, one send at a time; and the orderly close, which is its end. */
#include <stdlib.h>
#include "dataplane/net/transport.h"

enum { TLS_PIECE = 16 * 1024, TLS_OUT_HIGH = 128 * 1024 };

/* ---- calls ---- */

static bool out_grow(struct net_conn *c, size_t need)
{
	size_t cap = c->out_cap ? c->out_cap : 512;
	char *p;

	while (cap < need)
		cap *= 2;
	if (cap == c->out_cap)
		return true;
	p = realloc(c->out, cap);
	if (!p)
		return false;
	c->out = p;
	c->out_cap = (uint32_t)cap;
	return true;
}

enum status net_write(struct net_conn *c, struct span s)
{
	CHECK(s.n <= INT32_MAX / 2);
	if (c->closing || c->dead || !s.n)
		return ST_OK; /* nobody hears it; NET_CLOSED is on its way */
	if (c->sent_wanted || (c->out_len && c->out_len + s.n > NET_WRITE_MAX)) {
		c->drain_wanted = true;
		return ST_FULL;
	}
	if (!out_grow(c, c->out_len + s.n)) {
		conn_fail(c, ST_NOMEM, "out of memory");
		return ST_OK;
	}
	memcpy(c->out + c->out_len, s.p, s.n);
	c->out_len += (uint32_t)s.n;
	conn_mark(c);
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
	c->nslice = 0;
	for (unsigned i = 0; i < n; i++)
		if (slices[i].n)
			c->slice[c->nslice++] = slices[i];
	c->sent_wanted = true;
	conn_mark(c);
}

/* ---- what goes next ---- */

/* An idle connection keeps none. */
static void buffer_free(char **buf, uint32_t *cap)
{
	free(*buf);
	*buf = NULL;
	*cap = 0;
}

/* Encrypts what was written, then slices as far as the output's bound lets. Before the handshake is done that is nothing. */
static bool encrypt(struct net_conn *c)
{
	if (!c->tls_on || c->tls_broken)
		return true;
	if (c->out_len) {
		if (!tls_session_write(c->tls, span_of(c->out, c->out_len)))
			return false;
		c->out_len = 0;
		buffer_free(&c->out, &c->out_cap);
	}
	while (c->nslice && tls_session_pending(c->tls) < TLS_OUT_HIGH) {
		struct span piece = c->slice[0];

		if (piece.n > TLS_PIECE)
			piece.n = TLS_PIECE;
		if (!tls_session_write(c->tls, piece))
			return false;
		c->slice[0] = span_skip(c->slice[0], piece.n);
		if (!c->slice[0].n)
			memmove(c->slice, c->slice + 1, --c->nslice * sizeof(*c->slice));
	}
	return true;
}

/* The last word goes with what is said before it: each side sends its own (RFC 8446 6.1). */
static void notify(struct net_conn *c)
{
	if (!c->closing || !c->tls_on || c->tls_broken || c->notify_sent || c->nslice)
		return;
	c->notify_sent = true;
	tls_session_close(c->tls);
}

/* Puts into tx what TLS has to say. */
static bool collect_tls(struct net_conn *c)
{
	size_t n;

	if (!encrypt(c)) {
		conn_fail(c, ST_IO, "TLS error");
		return false;
	}
	notify(c);
	n = tls_session_pending(c->tls);
	if (n > c->tx_cap) {
		free(c->tx);
		c->tx = malloc(n);
		c->tx_cap = c->tx ? (uint32_t)n : 0;
	}
	if (n && !c->tx) {
		conn_fail(c, ST_NOMEM, "out of memory");
		return false;
	}
	c->tx_len = (uint32_t)tls_session_take(c->tls, c->tx, n);
	return true;
}

/* Without TLS what was written is sent from where it is, and the next writes go to the other buffer. */
static void collect_plain(struct net_conn *c)
{
	char *p = c->tx;
	uint32_t cap = c->tx_cap;

	c->tx = c->out;
	c->tx_len = c->out_len;
	c->tx_cap = c->out_cap;
	c->out = p;
	c->out_len = 0;
	c->out_cap = cap;
}

/* Tells the handler, when all that it gave is out. */
static void tell_taken(struct net_conn *c)
{
	if (c->nslice || c->out_len || (c->tls && tls_session_pending(c->tls)))
		return;
	if (c->sent_wanted) {
		c->sent_wanted = false;
		conn_tell(c, NET_SENT);
	}
	if (c->drain_wanted && !c->sent_wanted && !c->out_len) {
		c->drain_wanted = false;
		conn_tell(c, NET_DRAINED);
	}
}

bool output_waits_for_tls(const struct net_conn *c)
{
	return c->closing && c->tls && !c->tls_on && !c->tls_broken && !c->notify_seen && !c->fin_seen && (c->out_len || c->nslice);
}

/* The end of an orderly close: everything is out. */
static void finish_close(struct net_conn *c)
{
	if (c->shut || output_waits_for_tls(c))
		return;
	c->shut = true;
	if (c->fin_seen) {
		conn_release(c, false);
		return;
	}
	c->net->ops->shutdown(c);
	conn_wait(c, &c->net->lingering);
	input_read(c, true); /* to see the peer's FIN */
}

void output_flush(struct net_conn *c)
{
	struct span v[NET_SLICES_MAX];
	unsigned n = 0;

	if (c->sending || c->dead || !c->open)
		return;
	if (!c->tls)
		collect_plain(c);
	else if (!collect_tls(c))
		return;
	if (c->tx_len)
		v[n++] = span_of(c->tx, c->tx_len);
	if (!c->tls && c->nslice) {
		memcpy(v + n, c->slice, c->nslice * sizeof(*v));
		n += c->nslice;
		c->nslice = 0;
	}
	if (n) {
		c->sending = true;
		c->net->ops->send(c, v, n);
		return;
	}
	if (c->closing)
		finish_close(c);
	else
		tell_taken(c);
}

void up_sent(struct net_conn *c)
{
	c->sending = false;
	buffer_free(&c->tx, &c->tx_cap);
	if (c->dead)
		return;
	tell_taken(c);
	conn_mark(c);
}
