/* Kernel TCP by io_uring: multishot accept and receive with one ring of provided buffers for all connections. */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
#include "dataplane/net/net_uring.h"
#include "spool/base/clock.h"

struct uring_send {
	struct msghdr msg;
	struct iovec iov[NET_SLICES_MAX];
	struct sockaddr_storage to; /* connect */
};

void uring_cancel(struct net *n, enum uring_op op, uint32_t slot, uint32_t gen)
{
	struct io_uring_sqe *sqe = uring_sqe(n->uring);

	io_uring_prep_cancel64(sqe, (uint64_t)URING_NET << 56 | (uint64_t)op << 48 | (uint64_t)slot << 24 | gen, 0);
	uring_tag(sqe, URING_NET, OP_IGNORED, 0, 0);
}

/* ---- addresses ---- */

static socklen_t sockaddr_len(const struct sockaddr *a)
{
	return a->sa_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
}

static void set_local(struct net_conn *c, int fd)
{
	struct sockaddr_storage ss;
	socklen_t len = sizeof(ss);

	if (getsockname(fd, (struct sockaddr *)&ss, &len) == 0)
		net_unpack(&ss, c->local_ip, &c->local_port);
}

void uring_accepted(struct net_conn *c, int fd)
{
	struct uring_conn *uc = conn_io(c);
	struct sockaddr_storage ss;
	socklen_t len = sizeof(ss);

	uc->fd = fd;
	if (getpeername(fd, (struct sockaddr *)&ss, &len) == 0)
		net_unpack(&ss, c->peer_ip, &c->peer_port);
	set_local(c, fd);
	up_open(c);
}

/* ---- completions ---- */

/* A multishot receive takes all that the socket has, wanted or not, and what is not wanted is kept for the connection. So it is for those that send little at a time; who has
 * filled a buffer, or was held back, is read a buffer at a time from then on (P7). */
static void recv_arm(struct net_conn *c)
{
	struct uring_conn *uc = conn_io(c);
	struct io_uring_sqe *sqe;

	if (uc->recv_armed || uc->fd < 0)
		return;
	sqe = uring_sqe(c->net->uring);
	if (uc->by_piece)
		io_uring_prep_recv(sqe, uc->fd, NULL, URING_BUFFER_BYTES, 0);
	else
		io_uring_prep_recv_multishot(sqe, uc->fd, NULL, 0, 0);
	sqe->flags |= IOSQE_BUFFER_SELECT;
	sqe->buf_group = URING_BUFFER_GROUP;
	uring_tag(sqe, URING_NET, OP_RECV, c->slot, c->gen);
	uc->recv_armed = true;
	uc->in_flight++;
}

static void maybe_released(struct net_conn *c)
{
	struct uring_net *un = c->net->transport;
	struct uring_conn *uc = conn_io(c);

	if (!c->dead || uc->released || uc->in_flight)
		return;
	uc->released = true;
	if (uc->fd >= 0) {
		struct io_uring_sqe *sqe = uring_sqe(c->net->uring);

		io_uring_prep_close(sqe, uc->fd);
		uring_tag(sqe, URING_NET, OP_CLOSE, 0, 0);
		uc->fd = -1;
		un->closes++;
	}
	free(uc->send);
	uc->send = NULL;
	up_released(c);
}

static const char *errno_reason(int err, enum status *ret_st)
{
	*ret_st = ST_CLOSED;
	switch (err) {
	case ECONNREFUSED:
		*ret_st = ST_DENIED;
		return "connection refused";
	case ETIMEDOUT:
		*ret_st = ST_TIMEOUT;
		return "connection timed out";
	case ECONNRESET:
	case EPIPE:
		return "connection reset by peer";
	case EHOSTUNREACH:
		return "no route to host";
	case ENETUNREACH:
		return "network unreachable";
	case EADDRNOTAVAIL:
		return "no local address or port available";
	default:
		*ret_st = ST_IO;
		return "network error";
	}
}

static void gone(struct net_conn *c, int err)
{
	enum status st;
	const char *reason = errno_reason(err, &st);

	up_gone(c, st, reason);
}

static char *buffer_of(const struct uring_net *un, const struct uring_event *ev)
{
	return un->buffers + (size_t)(ev->flags >> IORING_CQE_BUFFER_SHIFT) * URING_BUFFER_BYTES;
}

static void buffer_give(struct uring_net *un, char *buf, unsigned id, int place)
{
	io_uring_buf_ring_add(un->ring, buf, URING_BUFFER_BYTES, (unsigned short)id, io_uring_buf_ring_mask(URING_BUFFERS), place);
}

static void on_recv(struct net_conn *c, const struct uring_event *ev)
{
	struct uring_net *un = c->net->transport;
	struct uring_conn *uc = conn_io(c);

	if (!(ev->flags & IORING_CQE_F_MORE)) {
		uc->recv_armed = false;
		uc->in_flight--;
	}
	if (ev->res == URING_BUFFER_BYTES && !uc->by_piece) {
		uc->by_piece = true;
		if (uc->recv_armed)
			uring_cancel(c->net, OP_RECV, c->slot, c->gen);
	}
	if ((ev->flags & IORING_CQE_F_BUFFER) && ev->res > 0 && !c->dead)
		up_data(c, span_of(buffer_of(un, ev), (size_t)ev->res));
	if (c->dead)
		return;
	if (ev->res == 0)
		up_eof(c);
	else if (ev->res < 0 && ev->res != -ENOBUFS && ev->res != -ECANCELED)
		gone(c, -ev->res);
	else if (!uc->recv_armed && uc->recv_wanted)
		recv_arm(c);
}

static void send_submit(struct net_conn *c)
{
	struct uring_conn *uc = conn_io(c);
	struct io_uring_sqe *sqe = uring_sqe(c->net->uring);

	io_uring_prep_sendmsg(sqe, uc->fd, &uc->send->msg, MSG_NOSIGNAL | MSG_WAITALL);
	uring_tag(sqe, URING_NET, OP_SEND, c->slot, c->gen);
	uc->in_flight++;
}

static void on_send(struct net_conn *c, int res)
{
	struct uring_conn *uc = conn_io(c);
	struct msghdr *m = &uc->send->msg;
	size_t n = res > 0 ? (size_t)res : 0;

	uc->in_flight--;
	if (c->dead)
		return;
	if (res < 0) {
		gone(c, -res);
		return;
	}
	while (m->msg_iovlen && n >= m->msg_iov->iov_len) {
		n -= m->msg_iov->iov_len;
		m->msg_iov++;
		m->msg_iovlen--;
	}
	if (m->msg_iovlen) { /* a short send: the rest */
		m->msg_iov->iov_base = (char *)m->msg_iov->iov_base + n;
		m->msg_iov->iov_len -= n;
		send_submit(c);
		return;
	}
	free(uc->send); /* an idle connection is to cost little */
	uc->send = NULL;
	up_sent(c);
}

static void on_connect(struct net_conn *c, int res)
{
	struct uring_conn *uc = conn_io(c);

	uc->in_flight--;
	if (res < 0) {
		gone(c, -res);
		return;
	}
	set_local(c, uc->fd);
	up_connected(c);
}

static void conn_event(struct net_conn *c, const struct uring_event *ev)
{
	if (ev->op == OP_RECV)
		on_recv(c, ev);
	else if (ev->op == OP_SEND)
		on_send(c, ev->res);
	else
		on_connect(c, ev->res);
	maybe_released(c);
}

static void on_completion(void *ctx, const struct uring_event *ev)
{
	struct net *n = ctx;
	struct uring_net *un = n->transport;
	struct net_conn *c;

	switch ((enum uring_op)ev->op) {
	case OP_ACCEPT:
	case OP_ACCEPT_AGAIN:
	case OP_WAKE:
		uring_listen_event(n, ev);
		return;
	case OP_CLOSE:
		un->closes--;
		return;
	case OP_IGNORED:
		return;
	case OP_CONNECT:
	case OP_RECV:
	case OP_SEND:
		break;
	}
	c = ev->slot < n->nslots ? n->slot[ev->slot] : NULL;
	if (c && c->gen == ev->gen) /* always: a connection waits for its completions */
		conn_event(c, ev);
	if (ev->flags & IORING_CQE_F_BUFFER) {
		buffer_give(un, buffer_of(un, ev), ev->flags >> IORING_CQE_BUFFER_SHIFT, 0);
		io_uring_buf_ring_advance(un->ring, 1);
	}
}

/* ---- operations ---- */

static void buffers_unmap(struct uring_net *un)
{
	if (un->ring != MAP_FAILED)
		munmap(un->ring, URING_BUFFERS * sizeof(struct io_uring_buf));
	if (un->buffers != MAP_FAILED)
		munmap(un->buffers, (size_t)URING_BUFFERS * URING_BUFFER_BYTES);
}

static enum status buffers_map(struct uring_net *un, struct uring *u)
{
	struct io_uring_buf_reg reg = { .ring_entries = URING_BUFFERS, .bgid = URING_BUFFER_GROUP };
	int prot = PROT_READ | PROT_WRITE, flags = MAP_ANONYMOUS | MAP_PRIVATE, r;

	un->ring = mmap(NULL, URING_BUFFERS * sizeof(struct io_uring_buf), prot, flags, -1, 0);
	un->buffers = mmap(NULL, (size_t)URING_BUFFERS * URING_BUFFER_BYTES, prot, flags, -1, 0);
	if (un->ring == MAP_FAILED || un->buffers == MAP_FAILED) {
		buffers_unmap(un);
		return trail(ST_NOMEM, "no memory for receive buffers");
	}
	reg.ring_addr = (uintptr_t)un->ring;
	r = io_uring_register_buf_ring(&u->ring, &reg, 0);
	if (r < 0) {
		buffers_unmap(un);
		return trail_errno(-r, "provided buffers (Linux 5.19 or later is needed)");
	}
	io_uring_buf_ring_init(un->ring);
	for (unsigned i = 0; i < URING_BUFFERS; i++)
		buffer_give(un, un->buffers + (size_t)i * URING_BUFFER_BYTES, i, (int)i);
	io_uring_buf_ring_advance(un->ring, URING_BUFFERS);
	return ST_OK;
}

static enum status start(struct net *n)
{
	struct uring_net *un = calloc(1, sizeof(*un));
	enum status st;

	if (!un)
		return ST_NOMEM;
	st = buffers_map(un, n->uring);
	if (st != ST_OK) {
		free(un);
		return st;
	}
	n->transport = un;
	uring_handle(n->uring, URING_NET, on_completion, n);
	return ST_OK;
}

static void stop(struct net *n)
{
	struct uring_net *un = n->transport;

	un->stopping = true;
	uring_listen_stop(n);
	while (un->closes) /* not even submitted, perhaps */
		if (uring_wait(n->uring, 10 * NS_PER_MS) != ST_OK)
			break;
	uring_handle(n->uring, URING_NET, NULL, NULL);
	io_uring_unregister_buf_ring(&n->uring->ring, URING_BUFFER_GROUP);
	buffers_unmap(un);
	free(un);
}

static enum status connect_socket(struct uring_conn *uc, const struct sockaddr *to, const struct sockaddr *source)
{
	int one = 1;

	uc->fd = socket(to->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (uc->fd < 0)
		return trail_errno(errno, "socket");
	setsockopt(uc->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (source) /* the port is chosen at connect, when the peer is known: else there were 28,000 for all peers together */
		setsockopt(uc->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof(one));
	if (source && bind(uc->fd, source, sockaddr_len(source)) < 0) {
		bool absent = errno == EADDRNOTAVAIL;
		enum status st = trail_errno(errno, "source address");

		close(uc->fd);
		return absent ? ST_NOT_FOUND : st;
	}
	return ST_OK;
}

static enum status do_connect(struct net_conn *c, const struct sockaddr *to, const struct sockaddr *source)
{
	struct uring_conn *uc = conn_io(c);
	socklen_t len = sockaddr_len(to);
	struct io_uring_sqe *sqe;
	enum status st;

	uc->send = calloc(1, sizeof(*uc->send));
	if (!uc->send)
		return ST_NOMEM;
	st = connect_socket(uc, to, source);
	if (st != ST_OK) {
		free(uc->send);
		return st;
	}
	memcpy(&uc->send->to, to, len);
	sqe = uring_sqe(c->net->uring);
	io_uring_prep_connect(sqe, uc->fd, (struct sockaddr *)&uc->send->to, len);
	uring_tag(sqe, URING_NET, OP_CONNECT, c->slot, c->gen);
	uc->in_flight++;
	return ST_OK;
}

static void do_recv(struct net_conn *c, bool on)
{
	struct uring_conn *uc = conn_io(c);

	uc->recv_wanted = on;
	uc->by_piece |= !on;
	if (on)
		recv_arm(c);
	else if (uc->recv_armed)
		uring_cancel(c->net, OP_RECV, c->slot, c->gen);
}

static void do_send(struct net_conn *c, const struct span *v, unsigned n)
{
	struct uring_conn *uc = conn_io(c);

	if (!uc->send)
		uc->send = malloc(sizeof(*uc->send));
	CHECK(uc->send && n <= NET_SLICES_MAX);
	for (unsigned i = 0; i < n; i++)
		uc->send->iov[i] = (struct iovec){ (void *)(uintptr_t)v[i].p, v[i].n };
	uc->send->msg = (struct msghdr){ .msg_iov = uc->send->iov, .msg_iovlen = n };
	send_submit(c);
}

static void do_shutdown(struct net_conn *c)
{
	struct uring_conn *uc = conn_io(c);

	shutdown(uc->fd, SHUT_WR);
}

/* What is in flight is cancelled for a reset, as shutdown() would send a FIN before it; and for a connect, which shutdown() does not end. */
static void do_release(struct net_conn *c, bool reset)
{
	struct uring_conn *uc = conn_io(c);
	struct linger l = { .l_onoff = 1 };

	if (reset)
		setsockopt(uc->fd, SOL_SOCKET, SO_LINGER, &l, sizeof(l));
	if (uc->in_flight && (reset || !c->open)) {
		struct io_uring_sqe *sqe = uring_sqe(c->net->uring);

		io_uring_prep_cancel_fd(sqe, uc->fd, IORING_ASYNC_CANCEL_ALL);
		uring_tag(sqe, URING_NET, OP_IGNORED, 0, 0);
	} else if (uc->in_flight) {
		shutdown(uc->fd, SHUT_RDWR);
	}
	maybe_released(c);
}

const struct transport_ops net_uring_ops = {
	.conn_bytes = sizeof(struct uring_conn),
	.start = start,
	.stop = stop,
	.listen = uring_listen,
	.accept_pause = uring_accept_pause,
	.connect = do_connect,
	.recv = do_recv,
	.send = do_send,
	.shutdown = do_shutdown,
	.release = do_release,
	.wake = uring_wake,
};
