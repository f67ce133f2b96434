/* The content of a delivery: the added header, the body as it is in the spool, the end; by DATA with dots stuffed, or by BDAT piece by piece. */
#include "dataplane/conn_internal.h"

#include "spool/mail/header.h"

void conn_trace_header(struct out_conn *c)
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
	/* Without the empty line its beginning would be ours, folded, and what nobody took for fields when it came would be some. */
	if (m->env.flags & ENV_NO_HEADER)
		out_str(&o, "\r\n");
	c->trace_len = o.over ? 0 : o.n;
}

uint64_t conn_cookie(const struct out_conn *c)
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
/* Makes sure that there is a piece, or the end. False: not now. */
static bool next_piece(struct out_conn *c)
{
	enum status st;

	if (c->sending != SEND_PIECES || c->rest.n)
		return true;
	st = store_read(c->reader, &c->rest);
	c->read_waits = st == ST_AGAIN;
	if (st == ST_NOT_FOUND)
		c->sending = SEND_END;
	else if (st != ST_OK && st != ST_AGAIN)
		send_failed(c);
	return st == ST_OK || st == ST_NOT_FOUND;
}

/* BDAT: what stands before the next piece, which is a chunk. False: the server wants no more. */
static bool announce(struct out_conn *c, struct span *v, unsigned *n)
{
	struct span head;

	if (!smtp_client_chunk(&c->client, c->trace_len + c->rest.n, &head))
		return false;
	if (head.n)
		v[(*n)++] = head;
	return true;
}

/* The trace fields and the next piece. */
static unsigned content_slices(struct out_conn *c, struct span *v)
{
	bool empty = c->sending == SEND_END && c->client.use_bdat && !c->txn.size;
	unsigned n = 0;

	if (!c->rest.n && !c->trace_len && !empty)
		return 0;
	if (c->client.use_bdat && !announce(c, v, &n)) {
		c->sending = SEND_DONE;
		return 0;
	}
	if (c->trace_len)
		v[n++] = span_of(c->trace, c->trace_len);
	c->trace_len = 0;
	return c->rest.n ? piece_slices(c, v, n) : n;
}

void conn_send_more(struct out_conn *c)
{
	struct span v[SLICES_MAX + 4];
	unsigned n;

	if (c->net_busy || !next_piece(c))
		return;
	n = content_slices(c, v);
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
		c->went_on = true;
		smtp_client_body_sent(&c->client);
		conn_talk(c, NULL);
	}
}

void conn_send_begin(struct out_conn *c)
{
	if (store_read_open(c->dl->mail->m, conn_cookie(c), &c->reader) != ST_OK) {
		send_failed(c);
		return;
	}
	c->stuff = (struct wire_stuff){ 0 };
	c->rest = SPAN_NONE;
	c->sending = SEND_PIECES;
	conn_send_more(c);
}

void conn_read(struct worker *w, uint64_t cookie)
{
	struct out_conn *c = (struct out_conn *)(uintptr_t)cookie; /* the reader is closed before the connection goes: no cookie outlives it */

	(void)w;
	if (c->read_waits)
		conn_send_more(c);
}

