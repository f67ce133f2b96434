/* Listeners by multishot accept, and the transport's one timer. */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <unistd.h>
#include "dataplane/net/net_uring.h"
#include "spool/base/clock.h"

static void accept_arm(struct net *n, uint32_t i)
{
	struct uring_net *un = n->transport;
	struct io_uring_sqe *sqe;

	if (!un->listener[i].used || un->listener[i].armed || un->accept_paused || un->accept_resting || un->stopping)
		return;
	sqe = uring_sqe(n->uring);
	io_uring_prep_multishot_accept(sqe, un->listener[i].fd, NULL, NULL, SOCK_CLOEXEC);
	uring_tag(sqe, URING_NET, OP_ACCEPT, i, 0);
	un->listener[i].armed = true;
}

static void accept_arm_all(struct net *n)
{
	for (uint32_t i = 0; i < URING_LISTENERS; i++)
		accept_arm(n, i);
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
	struct net_conn *c;

	if (!(ev->flags & IORING_CQE_F_MORE))
		un->listener[i].armed = false;
	if (ev->res == -EINVAL || ev->res == -EBADF) /* no listening socket any more */
		return;
	if (ev->res == -EMFILE || ev->res == -ENFILE || ev->res == -ENOMEM || ev->res == -ENOBUFS)
		accept_rest(n);
	/* After a cancel too: the pause that it was for may be over again. */
	accept_arm(n, i);
	if (ev->res < 0)
		return;
	c = up_accepted(n, i);
	if (c)
		uring_accepted(c, ev->res);
	else
		close(ev->res);
}

static void on_wake(struct net *n)
{
	struct uring_net *un = n->transport;

	un->wake_armed = false;
	if (!un->stopping)
		up_wake(n);
}

void uring_listen_event(struct net *n, const struct uring_event *ev)
{
	struct uring_net *un = n->transport;

	if (ev->op == OP_ACCEPT) {
		on_accept(n, ev->slot, ev);
	} else if (ev->op == OP_ACCEPT_AGAIN) {
		un->accept_resting = false;
		accept_arm_all(n);
	} else {
		on_wake(n);
	}
}

/* ---- operations ---- */

enum status uring_listen(struct net *n, const struct net_listen *l, uint32_t listener)
{
	struct uring_net *un = n->transport;
	int one = 1;

	setsockopt(l->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)); /* accepted connections inherit it */
	un->listener[listener] = (struct uring_listener){ .fd = l->fd, .used = true };
	accept_arm(n, listener);
	return ST_OK;
}

static void accept_cancel_all(struct net *n)
{
	struct uring_net *un = n->transport;

	for (uint32_t i = 0; i < URING_LISTENERS; i++)
		if (un->listener[i].armed)
			uring_cancel(n, OP_ACCEPT, i, 0);
}

void uring_accept_pause(struct net *n, bool pause)
{
	struct uring_net *un = n->transport;

	un->accept_paused = pause;
	if (pause)
		accept_cancel_all(n);
	else
		accept_arm_all(n);
}

/* When the move of an armed timeout comes too late, the timeout's own completion is on its way, and net.c asks again. */
void uring_wake(struct net *n, uint64_t at_ns)
{
	struct uring_net *un = n->transport;
	struct io_uring_sqe *sqe = uring_sqe(n->uring);

	un->wake = (struct __kernel_timespec){ .tv_sec = (long long)(at_ns / NS_PER_S), .tv_nsec = (long long)(at_ns % NS_PER_S) };
	if (un->wake_armed) {
		io_uring_prep_timeout_update(sqe, &un->wake, (uint64_t)URING_NET << 56 | (uint64_t)OP_WAKE << 48, IORING_TIMEOUT_ABS);
		uring_tag(sqe, URING_NET, OP_IGNORED, 0, 0);
	} else {
		io_uring_prep_timeout(sqe, &un->wake, 0, IORING_TIMEOUT_ABS);
		uring_tag(sqe, URING_NET, OP_WAKE, 0, 0);
		un->wake_armed = true;
	}
}

static bool busy(const struct uring_net *un)
{
	bool armed = un->wake_armed || un->accept_resting;

	for (uint32_t i = 0; i < URING_LISTENERS; i++)
		armed |= un->listener[i].armed;
	return armed;
}

/* A multishot accept holds its socket until it has ended: waits for that, so that a restart finds the port free. */
void uring_listen_stop(struct net *n)
{
	struct uring_net *un = n->transport;

	while (busy(un)) {
		accept_cancel_all(n);
		if (un->wake_armed)
			uring_cancel(n, OP_WAKE, 0, 0);
		if (un->accept_resting)
			uring_cancel(n, OP_ACCEPT_AGAIN, 0, 0);
		if (uring_wait(n->uring, 10 * NS_PER_MS) != ST_OK)
			break;
	}
}
