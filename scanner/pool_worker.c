#include "scanner/pool_worker.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include "scanner/sandbox.h"
#include "spool/base/clock.h"
#include "spool/base/counters.h"
#include "spool/base/log.h"

enum { LINKS = 64, SPIN_US = 30 };

struct link {
	int sock, spool_fd;
	const char *arena;
	uint64_t arena_bytes;
	struct scan_link *shared;
	struct ring jobs, results;
};

static volatile sig_atomic_t stop;
static struct link link_of[LINKS];
static unsigned nlinks;

static void on_stop(int sig)
{
	(void)sig;
	stop = 1;
}

/* ---- linking ---- */

static void close_all(const int *fds, size_t n)
{
	for (size_t i = 0; i < n; i++)
		close(fds[i]);
}

/* On false no descriptor is left over: a worker of another version is asked again and again. */
static bool receive_hello(int sock, struct scan_hello *h, int fds[SCAN_NFDS])
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int) * SCAN_NFDS)];
	struct iovec iov = { h, sizeof(*h) };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control) };
	struct timeval limit = { .tv_sec = 2 };
	struct cmsghdr *c;
	ssize_t len;
	size_t n;

	setsockopt(sock, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	len = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);
	c = len < 0 ? NULL : CMSG_FIRSTHDR(&msg);
	if (!c || c->cmsg_type != SCM_RIGHTS)
		return false;
	n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
	n = n < SCAN_NFDS ? n : SCAN_NFDS;
	memcpy(fds, CMSG_DATA(c), n * sizeof(int));
	if (n == SCAN_NFDS && !(msg.msg_flags & MSG_CTRUNC) && len == sizeof(*h) && h->magic == SCAN_MAGIC && h->version == SCAN_VERSION &&
		h->link_bytes == scan_link_bytes())
		return true;
	close_all(fds, n);
	return false;
}

static bool file_has(int fd, uint64_t bytes)
{
	struct stat st;

	return fstat(fd, &st) == 0 && (uint64_t)st.st_size >= bytes;
}

/* Takes the descriptors. */
static bool link_map(struct link *l, const struct scan_hello *h, const int fds[SCAN_NFDS])
{
	const char *arena = MAP_FAILED;
	void *mem = MAP_FAILED;

	if (file_has(fds[SCAN_FD_ARENA], h->arena_bytes) && file_has(fds[SCAN_FD_LINK], h->link_bytes)) {
		arena = mmap(NULL, h->arena_bytes, PROT_READ, MAP_SHARED, fds[SCAN_FD_ARENA], 0);
		mem = mmap(NULL, h->link_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fds[SCAN_FD_LINK], 0);
	}
	close(fds[SCAN_FD_ARENA]);
	close(fds[SCAN_FD_LINK]);
	if (arena == MAP_FAILED || mem == MAP_FAILED) {
		if (arena != MAP_FAILED)
			munmap((void *)(uintptr_t)arena, h->arena_bytes);
		if (mem != MAP_FAILED)
			munmap(mem, h->link_bytes);
		close(fds[SCAN_FD_SPOOL]);
		return false;
	}
	l->arena = arena;
	l->arena_bytes = h->arena_bytes;
	l->shared = mem;
	ring_init(&l->jobs, (char *)mem + scan_jobs_off(), SCAN_RING, sizeof(struct scan_job));
	ring_init(&l->results, (char *)mem + scan_results_off(), SCAN_RING, sizeof(struct scan_result));
	l->spool_fd = fds[SCAN_FD_SPOOL];
	return true;
}

static bool link_to(const char *path)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	struct link *l = &link_of[nlinks];
	struct scan_hello h;
	int fds[SCAN_NFDS];

	if (strlen(path) >= sizeof(a.sun_path) || nlinks == LINKS)
		return false;
	memcpy(a.sun_path, path, strlen(path));
	l->sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (l->sock < 0)
		return false;
	if (connect(l->sock, (struct sockaddr *)&a, sizeof(a)) < 0 || !receive_hello(l->sock, &h, fds) || !link_map(l, &h, fds)) {
		close(l->sock);
		return false;
	}
	nlinks++;
	return true;
}

/* Links to every dataplane worker that answers. */
static void link_all(const char *run_dir)
{
	DIR *d = opendir(run_dir);
	struct dirent *e;
	char path[4096];

	while (d && (e = readdir(d)))
		if (strncmp(e->d_name, "scan-", 5) == 0) {
			snprintf(path, sizeof(path), "%s/%s", run_dir, e->d_name);
			link_to(path);
		}
	if (d)
		closedir(d);
}

/* ---- scanning ---- */

/* The list of pieces as it was at this moment, checked: what is in the arena may change under a worker that lies, our copy does not. */
static struct scan_piece *copy_list(const struct link *l, const struct scan_job *j)
{
	uint64_t off = j->list_off, sum = 0;
	struct scan_piece *p;

	if (!j->npieces || j->npieces > SCAN_PIECES_MAX)
		return NULL;
	p = malloc(j->npieces * sizeof(*p));
	if (!p)
		return NULL;
	for (uint32_t i = 0, n; i < j->npieces; i += n) {
		n = j->npieces - i < SCAN_PAGE_PIECES ? j->npieces - i : SCAN_PAGE_PIECES;
		if (off > l->arena_bytes || l->arena_bytes - off < sizeof(struct scan_page))
			goto bad;
		memcpy(p + i, l->arena + off, n * sizeof(*p));
		memcpy(&off, l->arena + off + offsetof(struct scan_page, next_off), sizeof(off));
	}
	for (uint32_t i = 0; i < j->npieces; i++) {
		sum += p[i].len;
		if (p[i].partition == SCAN_PIECE_ARENA && (p[i].off > l->arena_bytes || p[i].len > l->arena_bytes - p[i].off))
			goto bad;
	}
	if (sum == j->len)
		return p;
bad:
	free(p);
	return NULL;
}

static void scan_one(const struct pool_config *cfg, struct link *l, const struct scan_job *j)
{
	struct scan_result r = { .job = j->job, .verdict = SCAN_ERROR };
	uint64_t start = clock_mono_ns();
	struct scan_piece *p;
	bool wake;

	atomic_store(&l->shared->working, j->job);
	p = copy_list(l, j);
	alarm(cfg->max_seconds + 5); /* an engine that does not keep to its own limit ends with its process */
	if (!p) {
		snprintf(r.name, sizeof(r.name), "bad-job");
	} else {
		struct scan_input in = { .arena = l->arena, .piece = p, .npieces = j->npieces, .len = j->len, .spool_fd = l->spool_fd };

		r.verdict = cfg->engine->scan(&in, r.name);
	}
	alarm(0);
	free(p);
	r.micros = (uint32_t)((clock_mono_ns() - start) / NS_PER_US);
	counter_add(C_SCANNER_JOBS, 1);
	counter_add(C_SCANNER_BUSY_NS, clock_mono_ns() - start);
	if (ring_push(&l->results, &r, &wake) == ST_OK && wake && write(l->sock, "", 1) < 0)
		stop = 1;
	atomic_store(&l->shared->working, 0);
}

/* One round over the links. False when there was nothing to do. */
static bool serve(const struct pool_config *cfg)
{
	struct scan_job j;
	bool any = false;

	for (unsigned i = 0; i < nlinks && !stop; i++) {
		enum status st = ring_pop(&link_of[i].jobs, &j);

		if (st == ST_OK) {
			scan_one(cfg, &link_of[i], &j);
			any = true;
		} else if (st == ST_CORRUPT) {
			stop = 1;
		}
	}
	return any;
}

/* Takes the wakeups off a socket. False: that dataplane worker is gone. */
static bool take_wakes(int sock)
{
	char wakes[64];
	ssize_t n;

	while ((n = recv(sock, wakes, sizeof(wakes), MSG_DONTWAIT)) > 0)
		;
	return n < 0 && (errno == EAGAIN || errno == EINTR);
}

/* Waits until a job comes. Returns when one may be there, or a link broke (stop). */
static void wait_for_work(void)
{
	struct pollfd p[LINKS];
	bool may = true;

	for (unsigned i = 0; i < nlinks; i++) {
		may = ring_sleep(&link_of[i].jobs) && may;
		p[i] = (struct pollfd){ .fd = link_of[i].sock, .events = POLLIN | POLLRDHUP };
	}
	if (may && poll(p, nlinks, 1000) > 0)
		for (unsigned i = 0; i < nlinks; i++)
			if (p[i].revents && !take_wakes(p[i].fd))
				stop = 1; /* a fresh process links to its successor */
	for (unsigned i = 0; i < nlinks; i++)
		ring_awake(&link_of[i].jobs);
}

static void on_alarm(int sig)
{
	(void)sig;
	_exit(3);
}

void pool_worker_signals(sigset_t *ret)
{
	sigemptyset(ret);
	sigaddset(ret, SIGTERM);
	sigaddset(ret, SIGINT);
	sigaddset(ret, SIGUSR1);
}

static void signals(void)
{
	struct sigaction sa = { .sa_handler = on_stop };
	sigset_t told;

	sigaction(SIGTERM, &sa, NULL);
	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGUSR1, &sa, NULL);
	sa.sa_handler = on_alarm;
	sigaction(SIGALRM, &sa, NULL);
	signal(SIGPIPE, SIG_IGN);
	pool_worker_signals(&told);
	sigprocmask(SIG_UNBLOCK, &told, NULL);
}

int pool_worker_run(const struct pool_config *cfg)
{
	char tmp[4096];
	bool landlock;
	uint64_t last = 0;

	signals();
	while (!stop) {
		link_all(cfg->run_dir);
		if (nlinks)
			break;
		usleep(100 * 1000);
	}
	snprintf(tmp, sizeof(tmp), "%s/scan-tmp-%u", cfg->run_dir, cfg->instance);
	if (mkdir(tmp, 0700) < 0 && errno != EEXIST)
		return 2;
	setenv("TMPDIR", tmp, 1);
	if (sandbox_enter(cfg->spool_dir, tmp, &landlock) != ST_OK) {
		log_msg(LOG_LVL_ERROR, "sandbox", "%s", trail_text());
		log_flush();
		return 2;
	}
	counter_set(C_SCANNER_LANDLOCK, landlock);
	counter_set(C_SCANNER_LINKS, nlinks);
	log_msg(LOG_LVL_INFO, "linked", "to %u dataplane workers, landlock %s", nlinks, landlock ? "on" : "not available");
	log_flush();
	while (!stop) {
		if (serve(cfg)) {
			last = clock_mono_ns();
			continue;
		}
		atomic_store_explicit(&counters_self->beat_ns, clock_mono_ns(), memory_order_relaxed);
		if (last && clock_mono_ns() - last < SPIN_US * NS_PER_US)
			continue;
		last = 0;
		wait_for_work();
	}
	return 0;
}
