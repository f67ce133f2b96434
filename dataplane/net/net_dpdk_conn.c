#include "dataplane/net/net_dpdk.h"

#include <stdlib.h>
#include "dataplane/net/net_dpdk_flow.h"
#include "dataplane/net/net_dpdk_stack.h"

enum { LEAST_WINDOW = 2 * 536 };

static uint8_t conn_id; /* which of a pcb's extra arguments is ours */

/* ---- events ---- */

void dpdk_note(enum event_type type, struct dpdk_conn *d, struct pbuf *p, err_t err)
{
	if (dn.nevents == dn.cap) {
		uint32_t cap = dn.cap ? dn.cap * 2 : 256;
		struct event *bigger = realloc(dn.event, cap * sizeof(*bigger));

		CHECK(bigger);
		dn.event = bigger;
		dn.cap = cap;
	}
	d->noted++;
	dn.event[dn.nevents++] = (struct event){ .type = type, .err = err, .d = d, .p = p };
}

static err_t on_recv(void *arg, struct tcp_pcb *pcb, struct pbuf *p, err_t err)
{
	struct dpdk_conn *d = arg;

	(void)pcb;
	(void)err;
	if (p)
		d->untaken += p->tot_len;
	dpdk_note(p ? EV_DATA : EV_EOF, d, p, ERR_OK);
	return ERR_OK;
}

static err_t on_sent(void *arg, struct tcp_pcb *pcb, uint16_t len)
{
	struct dpdk_conn *d = arg;

	(void)pcb;
	(void)len;
	if (d->out)
		dpdk_note(EV_ROOM, d, NULL, ERR_OK);
	return ERR_OK;
}

/* Twice a second: what failed for want of memory is tried again. */
static err_t on_poll(void *arg, struct tcp_pcb *pcb)
{
	return on_sent(arg, pcb, 0);
}

void dpdk_failed(struct dpdk_conn *d, err_t err)
{
	d->pcb = NULL;
	dpdk_note(EV_GONE, d, NULL, err);
}

static void on_error(void *arg, err_t err)
{
	dpdk_failed(arg, err);
}

err_t dpdk_connected(void *arg, struct tcp_pcb *pcb, err_t err)
{
	(void)pcb;
	dpdk_note(EV_CONNECTED, arg, NULL, err);
	return ERR_OK;
}

/* However a pcb ends, nothing here points to it afterwards. */
static void on_destroy(uint8_t id, void *data)
{
	struct dpdk_conn *d = data;

	(void)id;
	if (d)
		d->pcb = NULL;
}

static const struct tcp_ext_arg_callbacks ext_callbacks = { .destroy = on_destroy };

struct dpdk_conn *dpdk_attach(struct net_conn *c, struct tcp_pcb *pcb)
{
	struct dpdk_conn *d = conn_io(c);

	d->conn = c;
	d->pcb = pcb;
	tcp_ext_arg_set(pcb, conn_id, d);
	tcp_ext_arg_set_callbacks(pcb, conn_id, &ext_callbacks);
	tcp_arg(pcb, d);
	tcp_recv(pcb, on_recv);
	tcp_sent(pcb, on_sent);
	tcp_err(pcb, on_error);
	tcp_poll(pcb, on_poll, 2);
	tcp_nagle_disable(pcb);
	return d;
}

/* ---- input ---- */

static void taken(struct dpdk_conn *d, uint32_t n)
{
	d->untaken -= n;
	for (; n && d->pcb; n -= n < 0xffff ? n : 0xffff)
		tcp_recved(d->pcb, (uint16_t)(n < 0xffff ? n : 0xffff));
}

static bool hold(struct dpdk_conn *d, const void *p, uint32_t n)
{
	if (d->held_len + n > d->held_cap) {
		uint32_t cap = (d->held_len + n) * 2;
		char *bigger = realloc(d->held, cap);

		if (!bigger)
			return false;
		d->held = bigger;
		d->held_cap = cap;
	}
	memcpy(d->held + d->held_len, p, n);
	d->held_len += n;
	return true;
}

/* The frames go back to the device at once, whether or not the engine wants the octets; the window stays shut until it does. */
static void give_data(struct dpdk_conn *d, struct pbuf *p)
{
	for (struct pbuf *q = p; q; q = q->next) {
		if (d->conn->dead)
			continue;
		if (d->recv_wanted && !d->held_len) {
			up_data(d->conn, span_of(q->payload, q->len));
			taken(d, q->len);
		} else if (!hold(d, q->payload, q->len)) {
			up_gone(d->conn, ST_NOMEM, "out of memory");
		}
	}
	pbuf_free(p);
}

static void give_eof(struct dpdk_conn *d)
{
	if (!d->eof || d->held_len || !d->recv_wanted || d->conn->dead)
		return;
	d->eof = false;
	up_eof(d->conn);
}

static void give_held(struct dpdk_conn *d)
{
	char *p = d->held;
	uint32_t n = d->held_len;

	if (d->recv_wanted && n) {
		d->held = NULL;
		d->held_len = d->held_cap = 0;
		up_data(d->conn, span_of(p, n));
		taken(d, n);
		free(p);
	}
	give_eof(d);
}

/* ---- output ---- */

/* lwIP makes no segment longer than half of the largest window that it saw, except when that is nothing; and does not expect that a segment in its queue is longer than
 * what it would make now. So a window that opens from nothing to a little would be the end of the process. */
static void expect_a_window(struct tcp_pcb *pcb)
{
	if (pcb->snd_wnd_max < LEAST_WINDOW)
		pcb->snd_wnd_max = LEAST_WINDOW;
}

/* Copies into TCP what there is room for. True: all of it. */
static bool send_more(struct dpdk_conn *d, const struct span *v, unsigned n, unsigned *at, size_t *skip)
{
	expect_a_window(d->pcb);
	while (*at < n && stack_fits(d->pcb)) {
		struct span s = span_skip(v[*at], *skip);
		size_t room = tcp_sndbuf(d->pcb), piece = s.n < room ? s.n : room;
		bool last = *at == n - 1 && piece == s.n;

		piece = piece < 0xffff ? piece : 0xffff;
		if (s.n && (!piece || tcp_write(d->pcb, s.p, (uint16_t)piece, (uint8_t)(TCP_WRITE_FLAG_COPY | (last ? 0 : TCP_WRITE_FLAG_MORE))) != ERR_OK))
			break;
		*skip += piece;
		if (*skip == v[*at].n) {
			++*at;
			*skip = 0;
		}
	}
	tcp_output(d->pcb);
	return *at == n;
}

static void more_room(struct dpdk_conn *d)
{
	size_t skip = 0;

	if (!d->out || !d->pcb)
		return;
	if (send_more(d, d->out, d->nout, &d->out_at, &skip)) {
		free(d->out);
		d->out = NULL;
		up_sent(d->conn);
	} else {
		d->out[d->out_at] = span_skip(d->out[d->out_at], skip);
	}
}

void dpdk_send(struct dpdk_conn *d, const struct span *v, unsigned n)
{
	unsigned at = 0;
	size_t skip = 0;

	CHECK(!d->out && n <= NET_SLICES_MAX);
	if (!d->pcb)
		return; /* EV_GONE is on its way */
	if (send_more(d, v, n, &at, &skip)) {
		dpdk_note(EV_SENT, d, NULL, ERR_OK);
		return;
	}
	d->out = malloc((n - at) * sizeof(*d->out));
	CHECK(d->out);
	memcpy(d->out, v + at, (n - at) * sizeof(*d->out));
	d->out[0] = span_skip(d->out[0], skip);
	d->out_at = 0;
	d->nout = n - at;
}

/* ---- the end ---- */

void dpdk_let_go(struct dpdk_conn *d, bool reset)
{
	struct tcp_pcb *pcb = d->pcb;

	taken(d, d->untaken); /* or lwIP ends with a RST, which may overtake our last reply */
	d->pcb = NULL;
	tcp_ext_arg_set(pcb, conn_id, NULL);
	flow_load_pcb(pcb);
	tcp_arg(pcb, NULL);
	tcp_recv(pcb, NULL);
	tcp_sent(pcb, NULL);
	tcp_err(pcb, NULL);
	tcp_poll(pcb, NULL, 2);
	if (reset)
		tcp_abort(pcb);
	else if (tcp_close(pcb) != ERR_OK)
		tcp_abort(pcb);
}

void dpdk_maybe_released(struct dpdk_conn *d)
{
	if (!d->conn->dead || d->noted)
		return;
	free(d->held);
	free(d->out);
	up_released(d->conn);
}

/* ---- upcalls ---- */

static const char *reason_of(err_t err, bool was_open, enum status *ret_st)
{
	*ret_st = ST_CLOSED;
	switch (err) {
	case ERR_RST:
		if (was_open)
			return "connection reset by peer";
		*ret_st = ST_DENIED;
		return "connection refused";
	case ERR_ABRT:
		*ret_st = ST_TIMEOUT;
		return "connection timed out";
	case ERR_CLSD:
		return "connection closed by peer";
	case ERR_RTE:
		return "network unreachable";
	case ERR_USE:
		return "no local address or port available";
	default:
		*ret_st = ST_IO;
		return "network error";
	}
}

static void gone(struct dpdk_conn *d, err_t err)
{
	enum status st;
	const char *reason = reason_of(err, d->conn->open, &st);

	up_gone(d->conn, st, reason);
}

static void on_event(const struct event *ev)
{
	struct dpdk_conn *d = ev->d;

	if (ev->type == EV_DATA) {
		give_data(d, ev->p);
		return;
	}
	if (d->conn->dead)
		return;
	switch (ev->type) {
	case EV_OPEN:
		up_open(d->conn);
		break;
	case EV_CONNECTED:
		if (!d->pcb)
			break; /* reset in the same burst */
		stack_ip(&d->pcb->local_ip, d->conn->local_ip);
		d->conn->local_port = d->pcb->local_port;
		up_connected(d->conn);
		break;
	case EV_EOF:
		d->eof = true;
		give_eof(d);
		break;
	case EV_WANTED:
		give_held(d);
		break;
	case EV_ROOM:
		more_room(d);
		break;
	case EV_SENT:
		up_sent(d->conn);
		break;
	case EV_GONE:
		gone(d, ev->err);
		break;
	case EV_DATA:
		break;
	}
}

/* Events may make events: those are handled in the same turn. */
bool dpdk_run(void)
{
	bool any = dn.nevents > 0;

	for (uint32_t i = 0; i < dn.nevents; i++) {
		struct event ev = dn.event[i]; /* the array may move */

		on_event(&ev);
		ev.d->noted--;
		dpdk_maybe_released(ev.d);
	}
	dn.nevents = 0;
	return any;
}

void dpdk_init(void)
{
	conn_id = tcp_ext_arg_alloc_id();
}
