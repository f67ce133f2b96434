#include "spool/base/uring.h"

#include <errno.h>
#include <string.h>
#include "spool/base/clock.h"

enum status uring_init(struct uring *u, unsigned entries)
{
	static const unsigned flags[] = {
		IORING_SETUP_CQSIZE | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SUBMIT_ALL,
		IORING_SETUP_CQSIZE | IORING_SETUP_SUBMIT_ALL,
		IORING_SETUP_CQSIZE,
	};
	int err = 0;

	memset(u, 0, sizeof(*u));
	for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
		struct io_uring_params p = { .flags = flags[i], .cq_entries = entries * 4 };

		err = -io_uring_queue_init_params(entries, &u->ring, &p);
		if (err == 0) {
			u->defer_taskrun = flags[i] & IORING_SETUP_DEFER_TASKRUN;
			return ST_OK;
		}
		if (err != EINVAL)
			break;
	}
	return trail_errno(err, "io_uring_queue_init");
}

void uring_done(struct uring *u)
{
	io_uring_queue_exit(&u->ring);
}

void uring_handle(struct uring *u, enum uring_class c, uring_fn *fn, void *ctx)
{
	u->handler[c].fn = fn;
	u->handler[c].ctx = ctx;
}

/* What another try may mend. */
static bool goes_on(int r)
{
	return r >= 0 || r == -ETIME || r == -EINTR || r == -EAGAIN || r == -EBUSY;
}

struct io_uring_sqe *uring_sqe(struct uring *u)
{
	struct io_uring_sqe *sqe;

	while (!(sqe = io_uring_get_sqe(&u->ring))) {
		int r = io_uring_submit(&u->ring);

		if (r < 0 && goes_on(r))
			r = io_uring_get_events(&u->ring); /* completions that are due may be what is in the way */
		if (!goes_on(r)) {
			CHECK(r == -EBADR); /* the system had no memory for a completion: told once, and the end (uring_wait) */
			u->lost = true;
		}
	}
	return sqe;
}

void uring_tag(struct io_uring_sqe *sqe, enum uring_class c, uint8_t op, uint32_t slot, uint32_t gen)
{
	sqe->user_data = (uint64_t)c << 56 | (uint64_t)op << 48 | (uint64_t)(slot & 0xffffff) << 24 | (gen & 0xffffff);
}

/* Copies completions out before their handlers run, as handlers submit and so may move the queue. */
static unsigned dispatch(struct uring *u)
{
	struct io_uring_cqe *cqe[64];
	struct {
		uint64_t data;
		int res;
		uint32_t flags;
	} got[64];
	unsigned n = io_uring_peek_batch_cqe(&u->ring, cqe, 64);

	for (unsigned i = 0; i < n; i++) {
		got[i].data = cqe[i]->user_data;
		got[i].res = cqe[i]->res;
		got[i].flags = cqe[i]->flags;
	}
	io_uring_cq_advance(&u->ring, n);
	for (unsigned i = 0; i < n; i++) {
		struct uring_event ev = { .op = (uint8_t)(got[i].data >> 48), .slot = (uint32_t)(got[i].data >> 24) & 0xffffff,
			.gen = (uint32_t)got[i].data & 0xffffff, .res = got[i].res, .flags = got[i].flags };
		unsigned c = (unsigned)(got[i].data >> 56);

		if (c < URING_NCLASS && u->handler[c].fn)
			u->handler[c].fn(u->handler[c].ctx, &ev);
	}
	return n;
}

/* Nothing to submit, nothing done: a loop that polls the network comes here a million times a second and saves the system call. */
static bool is_quiet(struct uring *u)
{
	return u->defer_taskrun && !io_uring_sq_ready(&u->ring) && !io_uring_cq_ready(&u->ring) &&
		!(__atomic_load_n(u->ring.sq.kflags, __ATOMIC_RELAXED) & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW));
}

enum status uring_wait(struct uring *u, uint64_t timeout_ns)
{
	struct __kernel_timespec ts = { .tv_sec = (long long)(timeout_ns / NS_PER_S), .tv_nsec = (long long)(timeout_ns % NS_PER_S) };
	struct io_uring_cqe *cqe;
	int r;

	if (timeout_ns == 0 && is_quiet(u))
		return ST_OK;
	if (timeout_ns == 0)
		r = u->defer_taskrun ? io_uring_submit_and_get_events(&u->ring) : io_uring_submit(&u->ring);
	else
		r = io_uring_submit_and_wait_timeout(&u->ring, &cqe, 1, timeout_ns == UINT64_MAX ? NULL : &ts, NULL);
	if (!goes_on(r) || u->lost)
		return trail_errno(u->lost ? EBADR : -r, "io_uring_enter");
	while (dispatch(u) == 64)
		;
	return ST_OK;
}
