#include "tests/sim/scanner.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "scanner/engine.h"

static struct {
	char path[108];
	int sock;
	bool asked, linked;
	const char *arena;
	struct ring jobs, results;
} it;

void scanner_begin(const char *run_dir)
{
	CHECK(engine_trivial.load(NULL, 0) == ST_OK);
	CHECK(snprintf(it.path, sizeof(it.path), "%s/scan-0", run_dir) < (int)sizeof(it.path));
}

static bool ask(void)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };

	memcpy(a.sun_path, it.path, sizeof(a.sun_path));
	it.sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	CHECK(it.sock >= 0 && connect(it.sock, (struct sockaddr *)&a, sizeof(a)) == 0);
	it.asked = true;
	return true;
}

/* What the worker answers, once it has. */
static bool take_hello(void)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int) * SCAN_NFDS)];
	struct scan_hello h;
	struct iovec iov = { &h, sizeof(h) };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control) };
	ssize_t n = recvmsg(it.sock, &msg, MSG_CMSG_CLOEXEC);
	int fds[SCAN_NFDS];
	char *link;

	if (n < 0)
		return false;
	CHECK(n == sizeof(h) && h.magic == SCAN_MAGIC && h.version == SCAN_VERSION && CMSG_FIRSTHDR(&msg));
	memcpy(fds, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(fds));
	it.arena = mmap(NULL, h.arena_bytes, PROT_READ, MAP_SHARED, fds[SCAN_FD_ARENA], 0);
	link = mmap(NULL, h.link_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fds[SCAN_FD_LINK], 0);
	CHECK(it.arena != MAP_FAILED && link != MAP_FAILED);
	ring_init(&it.jobs, link + scan_jobs_off(), SCAN_RING, sizeof(struct scan_job));
	ring_init(&it.results, link + scan_results_off(), SCAN_RING, sizeof(struct scan_result));
	it.linked = true;
	return true;
}

static struct scan_piece *list_of(const struct scan_job *j)
{
	struct scan_piece *p = malloc(j->npieces * sizeof(*p));
	uint64_t off = j->list_off;

	CHECK(p);
	for (uint32_t i = 0, n; i < j->npieces; i += n) {
		const struct scan_page *page = (const struct scan_page *)(const void *)(it.arena + off);

		n = j->npieces - i < SCAN_PAGE_PIECES ? j->npieces - i : SCAN_PAGE_PIECES;
		memcpy(p + i, page->piece, n * sizeof(*p));
		off = page->next_off;
	}
	return p;
}

static bool scan_next(void)
{
	struct scan_job j;
	struct scan_result r = { 0 };
	struct scan_piece *p;
	bool wake;

	if (ring_pop(&it.jobs, &j) != ST_OK)
		return false;
	p = list_of(&j);
	r.job = j.job;
	r.verdict = engine_trivial.scan(&(struct scan_input){ .arena = it.arena, .piece = p, .npieces = j.npieces, .len = j.len, .spool_fd = -1 }, r.name);
	free(p);
	CHECK(ring_push(&it.results, &r, &wake) == ST_OK); /* it looks at the ring in its next turn, woken or not */
	return true;
}

bool scanner_turn(void)
{
	if (!it.asked)
		return ask();
	return it.linked ? scan_next() : take_hello();
}
