/* Links to scanner processes: made on a socket, served over two rings, ended with the process. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "dataplane/scan_internal.h"
#include "spool/base/clock.h"
#include "spool/base/counters.h"

#define STALLED_NS NS_PER_S /* without a result for so long while it has jobs: others are asked first */

enum scan_op { OP_ACCEPT, OP_SOCKET };

static void accept_arm(struct scan *s)
{
	struct io_uring_sqe *sqe = uring_sqe(&s->w->uring);

	io_uring_prep_accept(sqe, s->listen_fd, NULL, NULL, SOCK_CLOEXEC);
	uring_tag(sqe, URING_SCAN, OP_ACCEPT, 0, 0);
}

/* Wakeups, and at its end 0: a scanner that dies is noticed here. */
static void socket_arm(struct scan *s, uint32_t i)
{
	struct scan_link_state *l = &s->link[i];
	struct io_uring_sqe *sqe = uring_sqe(&s->w->uring);

	io_uring_prep_recv(sqe, l->sock, l->wakes, sizeof(l->wakes), 0);
	uring_tag(sqe, URING_SCAN, OP_SOCKET, i, l->gen);
}

/* ---- making a link ---- */

/* Not shrinkable: a scanner that cut it would kill the worker that touches it next. */
static int link_memory(size_t bytes)
{
	int fd = memfd_create("weir-scan-link", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd >= 0 && (ftruncate(fd, (off_t)bytes) < 0 || fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)) {
		close(fd);
		return -1;
	}
	return fd;
}

/* The process that connected, or -1. Never our own. */
static int peer_process(int sock)
{
	struct pollfd p = { .fd = sock, .events = POLLRDHUP };
	struct ucred cred;
	socklen_t n = sizeof(cred);
	int fd;

	if (getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &cred, &n) < 0 || cred.pid <= 1 || cred.pid == getpid())
		return -1;
	fd = pidfd_open(cred.pid, 0);
	if (fd >= 0 && poll(&p, 1, 0) != 0) { /* gone already: the number may be another's by now */
		close(fd);
		return -1;
	}
	return fd;
}

static enum status send_hello(struct scan *s, struct scan_link_state *l, int link_fd)
{
	struct scan_hello hello = { .magic = SCAN_MAGIC, .version = SCAN_VERSION, .worker = s->w->opt->index,
		.arena_bytes = arena_map_bytes(s->w->arena), .link_bytes = scan_link_bytes() };
	int fds[SCAN_NFDS] = { [SCAN_FD_ARENA] = arena_fd(s->w->arena), [SCAN_FD_LINK] = link_fd, [SCAN_FD_SPOOL] = s->spool_fd };
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(fds))] = { 0 };
	struct iovec iov = { &hello, sizeof(hello) };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(fds));
	memcpy(CMSG_DATA(c), fds, sizeof(fds));
	if (sendmsg(l->sock, &msg, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		return trail_errno(errno, "scanner hello");
	return ST_OK;
}

static enum status link_map(struct scan *s, struct scan_link_state *l)
{
	int fd = link_memory(scan_link_bytes());
	enum status st;

	if (fd < 0)
		return trail_errno(errno, "link memory");
	l->mem = mmap(NULL, scan_link_bytes(), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (l->mem == MAP_FAILED) {
		st = trail_errno(errno, "link memory");
		close(fd);
		return st;
	}
	l->link = l->mem;
	ring_init(&l->jobs, (char *)l->mem + scan_jobs_off(), SCAN_RING, sizeof(struct scan_job));
	ring_init(&l->results, (char *)l->mem + scan_results_off(), SCAN_RING, sizeof(struct scan_result));
	st = send_hello(s, l, fd);
	close(fd);
	if (st != ST_OK)
		munmap(l->mem, scan_link_bytes());
	return st;
}

static void link_open(struct scan *s, int sock)
{
	struct scan_link_state *l;
	uint32_t i;

	for (i = 0; i < SCAN_LINKS && s->link[i].used; i++)
		;
	if (i == SCAN_LINKS) {
		close(sock);
		return;
	}
	l = &s->link[i];
	*l = (struct scan_link_state){ .sock = sock, .pidfd = peer_process(sock), .gen = l->gen };
	if (link_map(s, l) != ST_OK) {
		log_msg(LOG_LVL_WARN, "scan-link", "a scanner could not be linked: %s", trail_text());
		if (l->pidfd >= 0)
			close(l->pidfd);
		close(sock);
		return;
	}
	l->used = true;
	s->nlinks++;
	s->none_since_ns = 0;
	counter_set(C_SCANNERS, s->nlinks);
	socket_arm(s, i);
	serve_waiting(s);
}

/* ---- ending it ---- */

static bool link_kill(const struct scan_link_state *l)
{
	return l->pidfd >= 0 && pidfd_send_signal(l->pidfd, SIGKILL, NULL, 0) == 0;
}

static void link_close(struct scan *s, uint32_t i)
{
	struct scan_link_state *l = &s->link[i];
	uint64_t working = atomic_load(&l->link->working);

	link_kill(l); /* one that only shut its socket must not go on reading what others get now */
	if (l->pidfd >= 0)
		close(l->pidfd);
	shutdown(l->sock, SHUT_RDWR); /* ends a receive that io_uring may have under way */
	close(l->sock);
	munmap(l->mem, scan_link_bytes());
	l->used = false;
	l->gen++;
	s->nlinks--;
	if (!s->nlinks)
		s->none_since_ns = s->w->now_ns;
	counter_add(C_SCAN_DEATHS, 1);
	counter_set(C_SCANNERS, s->nlinks);
	slots_orphaned(s, i, working);
	serve_waiting(s);
}

void link_break(struct scan *s, uint32_t i, const char *why)
{
	struct scan_link_state *l = &s->link[i];

	if (l->broken)
		return;
	l->broken = true;
	counter_add(C_SCAN_BROKEN, 1);
	log_msg(LOG_LVL_ERROR, "scan-link", "a scanner is ended: it %s", why);
	if (!link_kill(l))
		link_close(s, i); /* else when the socket tells of its end: until then it may read */
}

/* ---- jobs out, results in ---- */

static bool stalled(const struct scan *s, const struct scan_link_state *l)
{
	return l->outstanding && s->w->now_ns > l->moved_ns + STALLED_NS;
}

static uint32_t load_of(const struct scan *s, const struct scan_link_state *l)
{
	return l->outstanding + (stalled(s, l) ? SCAN_RING : 0);
}

bool link_give(struct scan *s, const struct scan_job *job, uint8_t *ret_link)
{
	struct scan_link_state *best = NULL;
	bool wake;

	for (uint32_t i = 0; i < SCAN_LINKS; i++) {
		struct scan_link_state *l = &s->link[i];

		if (l->used && !l->broken && l->outstanding < SCAN_RING && (!best || load_of(s, l) < load_of(s, best)))
			best = l;
	}
	if (!best || ring_push(&best->jobs, job, &wake) != ST_OK)
		return false;
	/* it never waits, whatever the scanner does to its end; a full socket has wakeups enough */
	if (wake)
		send(best->sock, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (!best->outstanding++)
		best->moved_ns = s->w->now_ns;
	*ret_link = (uint8_t)(best - s->link);
	return true;
}

void link_take(struct scan *s, uint32_t i)
{
	struct scan_link_state *l = &s->link[i];
	struct scan_result r;
	enum status st = ST_OK;

	while (l->used && !l->broken && (st = ring_pop(&l->results, &r)) == ST_OK) {
		if (!l->outstanding || !slot_result(s, i, &r)) {
			link_break(s, i, "answered what it was not asked");
			return;
		}
		l->outstanding--;
		l->moved_ns = s->w->now_ns;
		if (r.verdict < SCAN_CLEAN || r.verdict > SCAN_ERROR)
			link_break(s, i, "gave a verdict that there is not");
	}
	if (st == ST_CORRUPT)
		link_break(s, i, trail_text());
}

static void on_socket(struct scan *s, uint32_t i, uint32_t gen, int res)
{
	struct scan_link_state *l = &s->link[i];

	if (i >= SCAN_LINKS || !l->used || (l->gen & 0xffffff) != gen)
		return;
	if (res > 0) {
		socket_arm(s, i); /* what woke us is found by scan_poll */
		return;
	}
	link_take(s, i); /* its last words count */
	if (l->used && (l->gen & 0xffffff) == gen)
		link_close(s, i);
}

static void on_completion(void *ctx, const struct uring_event *ev)
{
	struct scan *s = ctx;

	switch ((enum scan_op)ev->op) {
	case OP_ACCEPT:
		if (ev->res >= 0)
			link_open(s, ev->res);
		if (ev->res >= 0)
			accept_arm(s);
		else if (ev->res != -ECANCELED)
			s->accept_later = true;
		break;
	case OP_SOCKET:
		on_socket(s, ev->slot, ev->gen, ev->res);
		break;
	}
}

void links_tick(struct scan *s)
{
	if (!s->accept_later)
		return;
	s->accept_later = false;
	accept_arm(s);
}

/* ---- beginning and end ---- */

static int listen_unix(const char *run_dir, uint32_t index)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	int n = snprintf(a.sun_path, sizeof(a.sun_path), "%s/scan-%u", run_dir, index);

	if (fd < 0)
		return -1;
	if (n < 0 || (size_t)n >= sizeof(a.sun_path)) {
		close(fd);
		errno = ENAMETOOLONG;
		return -1;
	}
	unlink(a.sun_path);
	if (bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(fd, 64) < 0) {
		close(fd);
		return -1;
	}
	return fd;
}

enum status links_open(struct scan *s)
{
	s->listen_fd = listen_unix(s->w->opt->run_dir, s->w->opt->index);
	if (s->listen_fd < 0)
		return trail_errno(errno, "%s/scan-%u", s->w->opt->run_dir, s->w->opt->index);
	uring_handle(&s->w->uring, URING_SCAN, on_completion, s);
	accept_arm(s);
	return ST_OK;
}

void links_done(struct scan *s)
{
	for (uint32_t i = 0; i < SCAN_LINKS; i++) {
		struct scan_link_state *l = &s->link[i];

		if (!l->used)
			continue;
		munmap(l->mem, scan_link_bytes());
		if (l->pidfd >= 0)
			close(l->pidfd);
		shutdown(l->sock, SHUT_RDWR);
		close(l->sock);
	}
	shutdown(s->listen_fd, SHUT_RDWR);
	close(s->listen_fd);
}
