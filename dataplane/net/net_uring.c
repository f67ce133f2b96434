/* Kernel TCP by io_uring: multishot accept and receive with one ring of provided buffers for all connections. */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
#include "dataplane/net/transport.h"
#include "spool/base/clock.h"

enum { BUFFERS = 512, BUFFER_BYTES = 16 * 1024, BUFFER_GROUP = 1, LISTENERS = 64 };
enum op { OP_ACCEPT, OP_ACCEPT_AGAIN, OP_CONNECT, OP_RECV, OP_SEND, OP_CANCEL, OP_CLOSE };

struct uring_send {
	struct msghdr msg;
	struct iovec iov[NET_SLICES_MAX];
	struct sockaddr_storage to; /* connect */
};

struct listener {
	int fd;
	bool used, armed;
};

struct uring_net {
	struct io_uring_buf_ring *ring;
	char *buffers;
	struct listener listener[LISTENERS];
	bool accept_paused, accept_resting;
	struct __kernel_timespec rest;
};

static void accept_arm(struct net *n, uint32_t i)
{
	struct uring_net *un = n->transport;
	struct io_uring_sqe *sqe;

	if (!un->listener[i].used || un->listener[i].armed || un->accept_paused || un->accept_resting)
		return;
	sqe = uring_sqe(n->uring);
	io_uring_prep_multishot_accept(sqe, un->listener[i].fd, NULL, NULL, SOCK_CLOEXEC);
	uring_tag(sqe, URING_NET, OP_ACCEPT, i, 0);
	un->listener[i].armed = true;
}

/* Without descriptors or memory accepting rests for a moment instead of failing in a circle (P17). */
static void accept_rest(struct net *n)
{
	struct uring_net *un = n->transport;
	struct io_uring_sqe *sqe;

	if (un->accept_resting)
		return;
	un->accept_resting = true;
	un->rest = (struct __kernel_timespec){ .tv_nsec = 100 * (long long)NS_PER_MS };
	sqe = uring_sqe(n->uring);
	io_uring_prep_timeout(sqe, &un->rest, 0, 0);
	uring_tag(sqe, URING_NET, OP_ACCEPT_AGAIN, 0, 0);
}

static void on_accept(struct net *n, uint32_t i, const struct uring_event *ev)
{
	struct uring_net *un = n->transport;
	struct sockaddr_storage ss;
	socklen_t len = sizeof(ss);
	struct net_conn *c;

	if (!(ev->flags & IORING_CQE_F_MORE))
		un->listener[i].armed = false;
	if (ev->res < 0) {
		if (ev->res == -EMFILE || ev->res == -ENFILE || ev->res == -ENOMEM || ev->res == -ENOBUFS)
			accept_rest(n);
		else if (ev->res == -ECANCELED || ev->res == -EINVAL || ev->res == -EBADF)
			return;
		accept_arm(n, i);
		return;
	}
	c = up_accepted(n, i);
	if (!c) {
		close(ev->res);
		accept_arm(n, i);
		return;
	}
	c->fd = ev->res;
	if (getpeername(c->fd, (struct sockaddr *)&ss, &len) == 0)
		net_unpack(&ss, c->peer_ip, &c->peer_port);
	accept_arm(n, i);
	up_open(c);
}

static void recv_arm(struct net_conn *c)
{
	struct io_uring_sqe *sqe;

	if (c->recv_armed || c->fd < 0)
		return;
	sqe = uring_sqe(c->net->uring);
	io_uring_prep_recv_multishot(sqe, c->fd, NULL, 0, 0);
	sqe->flags |= IOSQE_BUFFER_SELECT;
	sqe->buf_group = BUFFER_GROUP;
	uring_tag(sqe, URING_NET, OP_RECV, c->slot, c->gen);
	c->recv_armed = true;
	c->in_flight++;
}

static void maybe_released(struct net_conn *c)
{
	if (!c->dead || c->released || c->in_flight)
		return;
	if (c->fd >= 0) {
		struct io_uring_sqe *sqe = uring_sqe(c->net->uring);

		io_uring_prep_close(sqe, c->fd);
		uring_tag(sqe, URING_NET, OP_CLOSE, 0, 0);
		c->fd = -1;
	}
	free(c->send);
	c->send = NULL;
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

static void on_recv(struct net_conn *c, const struct uring_event *ev)
{
	struct uring_net *un = c->net->transport;

	if (!(ev->flags & IORING_CQE_F_MORE)) {
		c->recv_armed = false;
		c->in_flight--;
	}
	if (ev->flags & IORING_CQE_F_BUFFER) {
		unsigned id = ev->flags >> IORING_CQE_BUFFER_SHIFT;
		char *buf = un->buffers + (size_t)id * BUFFER_BYTES;

		if (ev->res > 0 && !c->dead)
			up_data(c, span_of(buf, (size_t)ev->res));
		io_uring_buf_ring_add(un->ring, buf, BUFFER_BYTES, (unsigned short)id, io_uring_buf_ring_mask(BUFFERS), 0);
		io_uring_buf_ring_advance(un->ring, 1);
	}
	if (c->dead)
		return;
	if (ev->res == 0)
		up_eof(c);
	else if (ev->res < 0 && ev->res != -ENOBUFS && ev->res != -ECANCELED)
		gone(c, -ev->res);
	else if (!c->recv_armed && c->recv_wanted)
		recv_arm(c);
}

static void send_submit(struct net_conn *c)
{
	struct io_uring_sqe *sqe = uring_sqe(c->net->uring);

	io_uring_prep_sendmsg(sqe, c->fd, &c->send->msg, MSG_NOSIGNAL | MSG_WAITALL);
	uring_tag(sqe, URING_NET, OP_SEND, c->slot, c->gen);
	c->in_flight++;
}

static void on_send(struct net_conn *c, int res)
{
	struct msghdr *m = &c->send->msg;
	size_t n = res > 0 ? (size_t)res : 0;

	c->in_flight--;
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
	up_sent(c);
}

static void on_completion(void *ctx, const struct uring_event *ev)
{
	struct net *n = ctx;
	struct uring_net *un = n->transport;
	struct net_conn *c;

	if (ev->op == OP_ACCEPT) {
		on_accept(n, ev->slot, ev);
		return;
	}
	if (ev->op == OP_ACCEPT_AGAIN) {
		un->accept_resting = false;
		for (uint32_t i = 0; i < LISTENERS; i++)
			accept_arm(n, i);
		return;
	}
	if (ev->op == OP_CANCEL || ev->op == OP_CLOSE)
		return;
	c = ev->slot < n->nslots ? n->slot[ev->slot] : NULL;
	if (!c || c->gen != ev->gen) { /* cannot be: a connection waits for its completions. Its buffer goes back in any case */
		if (ev->flags & IORING_CQE_F_BUFFER) {
			unsigned id = ev->flags >> IORING_CQE_BUFFER_SHIFT;

			io_uring_buf_ring_add(un->ring, un->buffers + (size_t)id * BUFFER_BYTES, BUFFER_BYTES, (unsigned short)id,
				io_uring_buf_ring_mask(BUFFERS), 0);
			io_uring_buf_ring_advance(un->ring, 1);
		}
		return;
	}
	if (ev->op == OP_RECV) {
		on_recv(c, ev);
	} else if (ev->op == OP_SEND) {
		on_send(c, ev->res);
	} else {
		c->in_flight--;
		if (ev->res < 0)
			gone(c, -ev->res);
		else
			up_connected(c);
	}
	maybe_released(c);
}

/* ---- operations ---- */

static enum status start(struct net *n)
{
	struct uring_net *un = calloc(1, sizeof(*un));
	struct io_uring_buf_reg reg = { .ring_entries = BUFFERS, .bgid = BUFFER_GROUP };
	size_t ring_bytes = BUFFERS * sizeof(struct io_uring_buf);
	int r;

	if (!un)
		return ST_NOMEM;
	un->ring = mmap(NULL, ring_bytes, PROT_READ | PROT_WRITE, MAP_ANONYMOUS | MAP_PRIVATE, -1, 0);
	un->buffers = mmap(NULL, (size_t)BUFFERS * BUFFER_BYTES, PROT_READ | PROT_WRITE, MAP_ANONYMOUS | MAP_PRIVATE, -1, 0);
	if (un->ring == MAP_FAILED || un->buffers == MAP_FAILED)
		return ST_NOMEM;
	reg.ring_addr = (uintptr_t)un->ring;
	r = io_uring_register_buf_ring(&n->uring->ring, &reg, 0);
	if (r < 0) {
		free(un);
		return trail_errno(-r, "provided buffers (Linux 5.19 or later is needed)");
	}
	io_uring_buf_ring_init(un->ring);
	for (unsigned i = 0; i < BUFFERS; i++)
		io_uring_buf_ring_add(un->ring, un->buffers + (size_t)i * BUFFER_BYTES, BUFFER_BYTES, (unsigned short)i,
			io_uring_buf_ring_mask(BUFFERS), (int)i);
	io_uring_buf_ring_advance(un->ring, BUFFERS);
	n->transport = un;
	uring_handle(n->uring, URING_NET, on_completion, n);
	return ST_OK;
}

/* A multishot accept holds its socket until it has ended: waits for that, so that a restart finds the port free. */
static void stop(struct net *n)
{
	struct uring_net *un = n->transport;

	un->accept_paused = true;
	for (uint32_t i = 0; i < LISTENERS; i++)
		while (un->listener[i].armed) {
			n->ops->accept_pause(n, true);
			if (uring_wait(n->uring, 10 * NS_PER_MS) != ST_OK)
				break;
		}
	uring_handle(n->uring, URING_NET, NULL, NULL);
	io_uring_unregister_buf_ring(&n->uring->ring, BUFFER_GROUP);
	munmap(un->ring, BUFFERS * sizeof(struct io_uring_buf));
	munmap(un->buffers, (size_t)BUFFERS * BUFFER_BYTES);
	free(un);
}

static enum status do_listen(struct net *n, const struct net_listen *l, uint32_t listener)
{
	struct uring_net *un = n->transport;
	int one = 1;

	setsockopt(l->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)); /* accepted connections inherit it */
	un->listener[listener] = (struct listener){ .fd = l->fd, .used = true };
	accept_arm(n, listener);
	return ST_OK;
}

static void do_accept_pause(struct net *n, bool pause)
{
	struct uring_net *un = n->transport;

	un->accept_paused = pause;
	for (uint32_t i = 0; i < LISTENERS; i++) {
		if (!pause) {
			accept_arm(n, i);
		} else if (un->listener[i].armed) {
			struct io_uring_sqe *sqe = uring_sqe(n->uring);

			io_uring_prep_cancel64(sqe, (uint64_t)URING_NET << 56 | (uint64_t)OP_ACCEPT << 48 | (uint64_t)i << 24, 0);
			uring_tag(sqe, URING_NET, OP_CANCEL, 0, 0);
		}
	}
}

static enum status do_connect(struct net_conn *c, const struct sockaddr *to, const struct sockaddr *source)
{
	socklen_t len = to->sa_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
	struct io_uring_sqe *sqe;
	int one = 1;

	c->send = calloc(1, sizeof(*c->send));
	if (!c->send)
		return ST_NOMEM;
	c->fd = socket(to->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (c->fd < 0)
		goto fail;
	setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (source && bind(c->fd, source, source->sa_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6)) < 0)
		goto fail;
	memcpy(&c->send->to, to, len);
	sqe = uring_sqe(c->net->uring);
	io_uring_prep_connect(sqe, c->fd, (struct sockaddr *)&c->send->to, len);
	uring_tag(sqe, URING_NET, OP_CONNECT, c->slot, c->gen);
	c->in_flight++;
	return ST_OK;
fail:
	one = errno;
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
	free(c->send);
	c->send = NULL;
	return trail_errno(one, "socket");
}

static void do_recv(struct net_conn *c, bool on)
{
	struct io_uring_sqe *sqe;

	c->recv_wanted = on;
	if (on) {
		recv_arm(c);
	} else if (c->recv_armed) {
		sqe = uring_sqe(c->net->uring);
		io_uring_prep_cancel64(sqe, (uint64_t)URING_NET << 56 | (uint64_t)OP_RECV << 48 | (uint64_t)c->slot << 24 | c->gen, 0);
		uring_tag(sqe, URING_NET, OP_CANCEL, 0, 0);
	}
}

static void do_send(struct net_conn *c, const struct span *v, unsigned n)
{
	if (!c->send)
		c->send = calloc(1, sizeof(*c->send));
	CHECK(c->send && n <= NET_SLICES_MAX);
	for (unsigned i = 0; i < n; i++)
		c->send->iov[i] = (struct iovec){ (void *)(uintptr_t)v[i].p, v[i].n };
	c->send->msg = (struct msghdr){ .msg_iov = c->send->iov, .msg_iovlen = n };
	send_submit(c);
}

static void do_shutdown(struct net_conn *c)
{
	shutdown(c->fd, SHUT_WR);
}

static void do_release(struct net_conn *c, bool reset)
{
	struct linger l = { .l_onoff = 1 };

	if (c->fd >= 0) {
		if (reset)
			setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &l, sizeof(l));
		if (c->in_flight)
			shutdown(c->fd, SHUT_RDWR); /* ends what is in flight */
		if (!c->open && c->in_flight) { /* a connect under way is not ended by that */
			struct io_uring_sqe *sqe = uring_sqe(c->net->uring);

			io_uring_prep_cancel64(sqe, (uint64_t)URING_NET << 56 | (uint64_t)OP_CONNECT << 48 | (uint64_t)c->slot << 24 | c->gen, 0);
			uring_tag(sqe, URING_NET, OP_CANCEL, 0, 0);
		}
	}
	maybe_released(c);
}

const struct transport_ops net_uring_ops = {
	.start = start,
	.stop = stop,
	.listen = do_listen,
	.accept_pause = do_accept_pause,
	.connect = do_connect,
	.recv = do_recv,
	.send = do_send,
	.shutdown = do_shutdown,
	.release = do_release,
};
