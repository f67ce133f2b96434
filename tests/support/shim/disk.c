/* LD_PRELOAD: a disk that fails when the test says so. io_uring's operations do not pass through libc, but their submission passes through liburing: operations that are
 * to fail get another file there. $WEIR_FAULTS names a file; while it exists, each of its lines is "OP TEXT": OP is sync (fails with EBADF), full (writes fail with ENOSPC)
 * or write (EBADF), for files with TEXT in their path. */
#include <dlfcn.h>
#include <fcntl.h>
#include <liburing.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { RULES = 16 };

static struct rule {
	char op[16], text[128];
} rule[RULES];
static int full = -1;

static int read_rules(void)
{
	const char *path = getenv("WEIR_FAULTS");
	FILE *f = path ? fopen(path, "re") : NULL;
	int n = 0;

	if (!f)
		return 0;
	while (n < RULES && fscanf(f, "%15s %127s", rule[n].op, rule[n].text) == 2)
		n++;
	fclose(f);
	return n;
}

static void path_of(int fd, char ret[512])
{
	char link[64];
	ssize_t n;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, ret, 511);
	ret[n > 0 ? n : 0] = '\0';
}

static void apply(struct io_uring_sqe *sqe, const struct rule *r)
{
	int write = sqe->opcode == IORING_OP_WRITE || sqe->opcode == IORING_OP_WRITE_FIXED, sync = sqe->opcode == IORING_OP_FSYNC;
	char path[512];

	if (!(sync && !strcmp(r->op, "sync")) && !(write && (!strcmp(r->op, "full") || !strcmp(r->op, "write"))))
		return;
	path_of(sqe->fd, path);
	if (!strstr(path, r->text))
		return;
	if (full < 0)
		full = open("/dev/full", O_WRONLY | O_CLOEXEC);
	sqe->fd = strcmp(r->op, "full") == 0 ? full : -1;
}

static void doctor(struct io_uring *ring)
{
	struct io_uring_sq *sq = &ring->sq;
	int n = sq->sqe_head == sq->sqe_tail ? 0 : read_rules();

	for (unsigned i = sq->sqe_head; n && i != sq->sqe_tail; i++)
		for (int k = 0; k < n; k++)
			apply(&sq->sqes[i & sq->ring_mask], &rule[k]);
}

#define REAL(name) ((__typeof__(&(name)))dlsym(RTLD_NEXT, #name))

int io_uring_submit(struct io_uring *ring)
{
	doctor(ring);
	return REAL(io_uring_submit)(ring);
}

int io_uring_submit_and_get_events(struct io_uring *ring)
{
	doctor(ring);
	return REAL(io_uring_submit_and_get_events)(ring);
}

int io_uring_submit_and_wait_timeout(struct io_uring *ring, struct io_uring_cqe **cqe, unsigned n, struct __kernel_timespec *ts, sigset_t *mask)
{
	doctor(ring);
	return REAL(io_uring_submit_and_wait_timeout)(ring, cqe, n, ts, mask);
}
