#include "tests/support/net_peer.h"

#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <unistd.h>

/* Small, so that a test that fills them is quick. */
enum { BUFFER_BYTES = 64 * 1024 };

static uint32_t kernel_ip = INADDR_LOOPBACK;

void peer_kernel_at(uint32_t ip)
{
	kernel_ip = ip;
}

static socklen_t own_address(struct sockaddr_storage *ret)
{
	struct sockaddr_in *a = (struct sockaddr_in *)(void *)ret;

	memset(ret, 0, sizeof(*ret));
	a->sin_family = AF_INET;
	a->sin_addr.s_addr = htonl(kernel_ip);
	return sizeof(*a);
}

static void small_buffers(int fd)
{
	int n = BUFFER_BYTES;

	setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &n, sizeof(n));
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &n, sizeof(n));
}

static int kernel_bound(struct sockaddr_storage *ret)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	socklen_t len = own_address(ret);

	CHECK(fd >= 0 && bind(fd, (struct sockaddr *)ret, len) == 0);
	CHECK(getsockname(fd, (struct sockaddr *)ret, &len) == 0);
	return fd;
}

static int kernel_listen(struct sockaddr_storage *ret)
{
	int fd = kernel_bound(ret);

	small_buffers(fd); /* accepted connections inherit them */
	CHECK(listen(fd, 64) == 0);
	return fd;
}

static void kernel_closed_port(struct sockaddr_storage *ret)
{
	close(kernel_bound(ret));
}

static int kernel_dial(struct peer *p, const struct sockaddr_storage *to)
{
	/* Loopback: the kernel answers at once from the listener's backlog. Anywhere else the answer is this thread's own to give, later. */
	int later = kernel_ip == INADDR_LOOPBACK ? 0 : SOCK_NONBLOCK;

	p->ops = &peer_kernel;
	p->fd = socket(to->ss_family, SOCK_STREAM | SOCK_CLOEXEC | later, 0);
	CHECK(p->fd >= 0);
	small_buffers(p->fd);
	return connect(p->fd, (const struct sockaddr *)to, sizeof(struct sockaddr_in)) == 0 || (later && errno == EINPROGRESS) ? 0 : -errno;
}

static int kernel_accept(struct peer *p, int listener)
{
	struct pollfd pfd = { .fd = listener, .events = POLLIN };

	p->ops = &peer_kernel;
	if (poll(&pfd, 1, 0) != 1)
		return -EAGAIN;
	p->fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	return p->fd >= 0 ? 0 : -errno;
}

static ssize_t kernel_read(struct peer *p, char *buf, size_t cap)
{
	ssize_t n = recv(p->fd, buf, cap, MSG_DONTWAIT);

	return n >= 0 ? n : -errno;
}

static ssize_t kernel_write(struct peer *p, struct span s)
{
	ssize_t n = send(p->fd, s.p, s.n, MSG_DONTWAIT | MSG_NOSIGNAL);

	return n >= 0 ? n : -errno;
}

static void kernel_fin(struct peer *p)
{
	shutdown(p->fd, SHUT_WR);
}

static void kernel_close(struct peer *p)
{
	if (p->fd >= 0)
		close(p->fd);
	p->fd = -1;
}

static void kernel_reset(struct peer *p)
{
	struct linger l = { .l_onoff = 1 };

	setsockopt(p->fd, SOL_SOCKET, SO_LINGER, &l, sizeof(l));
	kernel_close(p);
}

static void kernel_local(struct peer *p, struct sockaddr_storage *ret)
{
	socklen_t len = sizeof(*ret);

	CHECK(getsockname(p->fd, (struct sockaddr *)ret, &len) == 0);
}

static void kernel_unlisten(int listener)
{
	close(listener);
}

const struct peer_ops peer_kernel = {
	.listen = kernel_listen,
	.closed_port = kernel_closed_port,
	.dial = kernel_dial,
	.accept = kernel_accept,
	.read = kernel_read,
	.write = kernel_write,
	.fin = kernel_fin,
	.reset = kernel_reset,
	.close = kernel_close,
	.local = kernel_local,
	.unlisten = kernel_unlisten,
};

/* ---- TLS ---- */

void peer_tls(struct peer *p, struct tls_context *t, bool server)
{
	p->tls = tls_session_new(t, server ? NULL : &(struct tls_peer){ 0 });
	CHECK(p->tls);
}

size_t peer_tls_take(struct peer *p, char *buf, size_t cap)
{
	return tls_session_take(p->tls, buf, cap);
}

static void tls_out(struct peer *p)
{
	for (;;) {
		ssize_t w;

		if (p->out_off == p->out_len) {
			p->out_off = 0;
			p->out_len = tls_session_take(p->tls, p->out, sizeof(p->out));
		}
		if (!p->out_len)
			return;
		w = p->ops->write(p, span_of(p->out + p->out_off, p->out_len - p->out_off));
		if (w <= 0)
			return;
		p->out_off += (size_t)w;
	}
}

bool peer_tls_waits(const struct peer *p)
{
	return p->out_off < p->out_len || tls_session_pending(p->tls);
}

size_t peer_tls_turn(struct peer *p, char *buf, size_t cap)
{
	char raw[16384];
	size_t got = 0, n;
	ssize_t r;
	bool more = true;

	if ((r = p->ops->read(p, raw, sizeof(raw))) > 0)
		CHECK(tls_session_feed(p->tls, span_of(raw, (size_t)r)));
	while (more && got < cap) {
		enum tls_result t = tls_session_read(p->tls, buf + got, cap - got, &n);

		got += n;
		p->tls_on |= t == TLS_ON;
		p->tls_end |= t == TLS_END;
		p->tls_failed |= t == TLS_ERROR;
		more = t == TLS_ON || t == TLS_DATA;
	}
	tls_out(p);
	return got;
}

void peer_tls_write(struct peer *p, struct span s)
{
	CHECK(tls_session_write(p->tls, s));
	tls_out(p);
}

void peer_done(struct peer *p)
{
	if (!p->ops)
		return;
	p->ops->close(p);
	tls_session_free(p->tls);
	p->tls = NULL;
}
