#include "dataplane/lookup/sts_link.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "spool/store/sts_ask.h"

struct sts_link {
	struct uring *uring;
	sts_link_packet_fn *packet;
	sts_link_broken_fn *broken;
	void *ctx;
	struct sockaddr_un where;
	int fd;       /* -1: not connected */
	bool reading; /* a read has the buffer; it ends before its connection does */
	char buf[STS_ASK_PACKET];
};

static void read_next(struct sts_link *l)
{
	struct io_uring_sqe *sqe;

	if (l->reading)
		return;
	l->reading = true;
	sqe = uring_sqe(l->uring);
	io_uring_prep_recv(sqe, l->fd, l->buf, sizeof(l->buf), 0);
	uring_tag(sqe, URING_STS, 0, 0, 0);
}

static void on_completion(void *ctx, const struct uring_event *ev)
{
	struct sts_link *l = ctx;

	l->reading = false;
	if (ev->res > 0) {
		l->packet(l->ctx, span_of(l->buf, (size_t)ev->res));
		read_next(l);
	} else {
		close(l->fd);
		l->fd = -1;
		l->broken(l->ctx);
	}
}

static bool connected(struct sts_link *l)
{
	if (l->fd >= 0)
		return true;
	l->fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (l->fd >= 0 && connect(l->fd, (struct sockaddr *)&l->where, sizeof(l->where)) < 0) {
		close(l->fd);
		l->fd = -1;
	}
	if (l->fd < 0)
		return false;
	fcntl(l->fd, F_SETFL, 0); /* the ring waits for it; it would not on one that never blocks */
	read_next(l);
	return true;
}

bool sts_link_send(struct sts_link *l, struct span packet)
{
	return connected(l) && send(l->fd, packet.p, packet.n, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)packet.n;
}

enum status sts_link_new(struct uring *u, const char *run_dir, sts_link_packet_fn *packet, sts_link_broken_fn *broken, void *ctx,
	struct sts_link **ret)
{
	struct sts_link *l = calloc(1, sizeof(*l));

	if (!l)
		return ST_NOMEM;
	l->uring = u;
	l->packet = packet;
	l->broken = broken;
	l->ctx = ctx;
	l->fd = -1;
	l->where.sun_family = AF_UNIX;
	snprintf(l->where.sun_path, sizeof(l->where.sun_path), "%.90s/" STS_ASK_SOCKET, run_dir);
	uring_handle(u, URING_STS, on_completion, l);
	*ret = l;
	return ST_OK;
}

void sts_link_free(struct sts_link *l)
{
	if (!l)
		return;
	if (l->fd >= 0)
		close(l->fd);
	free(l);
}
