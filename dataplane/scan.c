#include "dataplane/scan.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "spool/base/clock.h"
#include "spool/base/counters.h"
#include "spool/store/scan.h"

enum { SCAN_LINKS = 64, SCAN_SLOTS = 4096, SCAN_NONE_GRACE_S = 5, SCAN_DEATHS_MAX = 2 };

enum scan_op { OP_ACCEPT, OP_WAKE, OP_GONE };

struct scan_link_state {
	int sock, wake_scanner, wake_worker;
	void *mem;
	struct scan_link *link;
	struct ring jobs, results;
	uint64_t wake_value; /* io_uring reads the eventfd into it */
	uint32_t gen;
	uint32_t outstanding;
	bool used;
};

enum slot_state { SLOT_FREE, SLOT_WAITING, SLOT_GIVEN };

/* One question. Waiting slots have no link yet. */
struct scan_slot {
	struct timer timer;
	TAILQ_ENTRY(scan_slot) entry; /* among the waiting */
	struct mail *mail;
	uint64_t list_off;
	uint32_t npieces;
	uint32_t gen;
	uint32_t next_free;
	uint8_t state, deaths, link;
	bool patient;
};

struct scan {
	struct worker *w;
	int listen_fd;
	int spool_fd;
	uint32_t nlinks, nwaiting, nactive;
	bool accept_rests;   /* it failed, for want of descriptors for example: again at the next tick */
	uint32_t free_slot;  /* index + 1; 0: none */
	TAILQ_HEAD(, scan_slot) waiting;
	uint64_t none_since_ns; /* when the last link went; 0: there is one */
	struct scan_link_state link[SCAN_LINKS];
	struct scan_slot slot[SCAN_SLOTS];
};

static void accept_arm(struct scan *s)
{
	struct io_uring_sqe *sqe = uring_sqe(&s->w->uring);

	io_uring_prep_accept(sqe, s->listen_fd, NULL, NULL, SOCK_CLOEXEC);
	uring_tag(sqe, URING_SCAN, OP_ACCEPT, 0, 0);
}

static void wake_arm(struct scan *s, uint32_t i)
{
	struct io_uring_sqe *sqe = uring_sqe(&s->w->uring);

	io_uring_prep_read(sqe, s->link[i].wake_worker, &s->link[i].wake_value, 8, 0);
	uring_tag(sqe, URING_SCAN, OP_WAKE, i, s->link[i].gen);
}

static void gone_arm(struct scan *s, uint32_t i)
{
	struct io_uring_sqe *sqe = uring_sqe(&s->w->uring);

	io_uring_prep_poll_add(sqe, s->link[i].sock, POLLIN | POLLRDHUP);
	uring_tag(sqe, URING_SCAN, OP_GONE, i, s->link[i].gen);
}

static void slot_wait(struct scan *s, struct scan_slot *slot, bool first)
{
	slot->state = SLOT_WAITING;
	s->nwaiting++;
	if (first)
		TAILQ_INSERT_HEAD(&s->waiting, slot, entry);
	else
		TAILQ_INSERT_TAIL(&s->waiting, slot, entry);
}

static void slot_unwait(struct scan *s, struct scan_slot *slot)
{
	TAILQ_REMOVE(&s->waiting, slot, entry);
	s->nwaiting--;
}

static void slot_free(struct scan *s, struct scan_slot *slot)
{
	wheel_cancel(s->w->wheel, &slot->timer);
	if (slot->state == SLOT_WAITING)
		slot_unwait(s, slot);
	slot->mail->scan_slot = 0;
	store_scan_done(slot->mail->m);
	slot->mail = NULL;
	slot->state = SLOT_FREE;
	slot->gen++;
	slot->next_free = s->free_slot;
	s->free_slot = (uint32_t)(slot - s->slot) + 1;
	s->nactive--;
}

/* The slot's life ends with a verdict. */
static void slot_answer(struct scan *s, struct scan_slot *slot, enum mail_verdict v, struct span name)
{
	struct mail *mail = slot->mail;

	slot_free(s, slot);
	mail_verdict(mail, v, name);
}

static uint64_t slot_job(const struct scan *s, const struct scan_slot *slot)
{
	return (uint64_t)slot->gen << 32 | (uint64_t)(slot - s->slot + 1);
}

/* Gives the slot to the least busy link. False when no link has room. */
static bool slot_give(struct scan *s, struct scan_slot *slot)
{
	struct scan_link_state *best = NULL;
	struct scan_job job;
	bool wake;
	uint64_t one = 1;

	for (uint32_t i = 0; i < SCAN_LINKS; i++)
		if (s->link[i].used && s->link[i].outstanding < SCAN_RING && (!best || s->link[i].outstanding < best->outstanding))
			best = &s->link[i];
	if (!best)
		return false;
	job = (struct scan_job){ .job = slot_job(s, slot), .msg_id = slot->mail->m->id, .len = slot->mail->m->body_len,
		.list_off = slot->list_off, .npieces = slot->npieces };
	if (ring_push(&best->jobs, &job, &wake) != ST_OK)
		return false;
	/* an eventfd write cannot block here: its counter never comes near the end */
	if (wake && write(best->wake_scanner, &one, sizeof(one)) < 0)
		counter_add(C_SCAN_FAILED, 1);
	best->outstanding++;
	slot->state = SLOT_GIVEN;
	slot->link = (uint8_t)(best - s->link);
	return true;
}

static void serve_waiting(struct scan *s)
{
	struct scan_slot *slot;

	while ((slot = TAILQ_FIRST(&s->waiting)) && slot_give(s, slot))
		slot_unwait(s, slot);
}

static void link_close(struct scan *s, uint32_t i)
{
	struct scan_link_state *l = &s->link[i];
	uint64_t working = atomic_load(&l->link->working);

	l->used = false;
	l->gen++;
	s->nlinks--;
	if (!s->nlinks)
		s->none_since_ns = s->w->now_ns;
	counter_add(C_SCAN_DEATHS, 1);
	counter_set(C_SCANNERS, s->nlinks);
	for (uint32_t k = 0; k < SCAN_SLOTS; k++) {
		struct scan_slot *slot = &s->slot[k];

		if (slot->state != SLOT_GIVEN || slot->link != i)
			continue;
		counter_add(C_SCAN_REQUEUED, 1);
		if (slot_job(s, slot) == working && ++slot->deaths >= SCAN_DEATHS_MAX) {
			counter_add(C_SCAN_SUSPECT, 1);
			slot_answer(s, slot, VERDICT_SUSPECT, SPAN("scanners died on it"));
			continue;
		}
		slot->gen++; /* a late result of the dead link means nothing */
		slot_wait(s, slot, true);
	}
	munmap(l->mem, scan_link_bytes());
	close(l->wake_scanner);
	close(l->wake_worker);
	close(l->sock);
	serve_waiting(s);
}

static enum status send_hello(struct scan *s, struct scan_link_state *l, int link_fd)
{
	struct scan_hello hello = { .magic = SCAN_MAGIC, .version = SCAN_VERSION, .worker = s->w->opt->index,
		.arena_bytes = arena_bytes(s->w->arena), .link_bytes = scan_link_bytes() };
	int fds[SCAN_NFDS] = { [SCAN_FD_ARENA] = arena_fd(s->w->arena), [SCAN_FD_LINK] = link_fd,
		[SCAN_FD_WAKE_SCANNER] = l->wake_scanner, [SCAN_FD_WAKE_WORKER] = l->wake_worker, [SCAN_FD_SPOOL] = s->spool_fd };
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

static void link_open(struct scan *s, int sock)
{
	struct scan_link_state *l = NULL;
	size_t bytes = scan_link_bytes();
	int fd = -1;
	uint32_t i;

	for (i = 0; i < SCAN_LINKS && s->link[i].used; i++)
		;
	if (i == SCAN_LINKS) {
		close(sock);
		return;
	}
	l = &s->link[i];
	l->sock = sock;
	l->wake_scanner = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	l->wake_worker = eventfd(0, EFD_CLOEXEC);
	l->mem = MAP_FAILED;
	fd = memfd_create("weir-scan-link", MFD_CLOEXEC);
	if (fd < 0 || ftruncate(fd, (off_t)bytes) < 0 || l->wake_scanner < 0 || l->wake_worker < 0)
		goto fail;
	l->mem = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (l->mem == MAP_FAILED)
		goto fail;
	l->link = l->mem;
	ring_init(&l->jobs, (char *)l->mem + scan_jobs_off(), SCAN_RING, sizeof(struct scan_job));
	ring_init(&l->results, (char *)l->mem + scan_results_off(), SCAN_RING, sizeof(struct scan_result));
	if (send_hello(s, l, fd) != ST_OK)
		goto fail;
	close(fd);
	l->used = true;
	l->outstanding = 0;
	s->nlinks++;
	s->none_since_ns = 0;
	counter_set(C_SCANNERS, s->nlinks);
	wake_arm(s, i);
	gone_arm(s, i);
	serve_waiting(s);
	return;
fail:
	log_msg(LOG_LVL_WARN, "scan-link", "a scanner could not be linked: %s", strerror(errno));
	if (l->mem != MAP_FAILED)
		munmap(l->mem, bytes);
	if (fd >= 0)
		close(fd);
	if (l->wake_scanner >= 0)
		close(l->wake_scanner);
	if (l->wake_worker >= 0)
		close(l->wake_worker);
	close(sock);
}

/* A result is what a process that may be taken over has written: everything is checked. */
static void take_result(struct scan *s, uint32_t i, const struct scan_result *r)
{
	uint32_t k = (uint32_t)(r->job & 0xffffffffu);
	struct scan_slot *slot;
	char name[SCAN_NAME_MAX];
	size_t n = 0;

	if (k == 0 || k > SCAN_SLOTS)
		return;
	slot = &s->slot[k - 1];
	if (slot->state != SLOT_GIVEN || slot->link != i || slot_job(s, slot) != r->job)
		return;
	for (; n < SCAN_NAME_MAX && r->name[n]; n++)
		name[n] = r->name[n] > ' ' && r->name[n] < 0x7f ? r->name[n] : '_';
	switch (r->verdict) {
	case SCAN_CLEAN:
		counter_add(C_SCAN_CLEAN, 1);
		slot_answer(s, slot, VERDICT_CLEAN, SPAN_NONE);
		break;
	case SCAN_INFECTED:
		slot_answer(s, slot, VERDICT_INFECTED, span_of(name, n));
		break;
	default:
		counter_add(C_SCAN_FAILED, 1);
		slot_answer(s, slot, VERDICT_UNSCANNED, span_of(name, n));
		break;
	}
}

void scan_poll(struct scan *s)
{
	struct scan_result r;
	enum status st;

	for (uint32_t i = 0; i < SCAN_LINKS && s->nlinks; i++) {
		struct scan_link_state *l = &s->link[i];

		if (!l->used)
			continue;
		while ((st = ring_pop(&l->results, &r)) == ST_OK) {
			if (l->outstanding)
				l->outstanding--;
			take_result(s, i, &r);
			if (!l->used)
				break;
		}
		if (l->used && st == ST_CORRUPT) {
			log_msg(LOG_LVL_ERROR, "scan-link", "a scanner broke the protocol; its link is closed");
			link_close(s, i);
		}
	}
	serve_waiting(s);
}

bool scan_sleep(struct scan *s)
{
	bool may = true;

	for (uint32_t i = 0; i < SCAN_LINKS && s->nlinks; i++)
		if (s->link[i].used && !ring_sleep(&s->link[i].results))
			may = false;
	return may;
}

void scan_awake(struct scan *s)
{
	for (uint32_t i = 0; i < SCAN_LINKS && s->nlinks; i++)
		if (s->link[i].used)
			ring_awake(&s->link[i].results);
}

static void on_completion(void *ctx, const struct uring_event *ev)
{
	struct scan *s = ctx;

	switch ((enum scan_op)ev->op) {
	case OP_ACCEPT:
		s->accept_rests = ev->res < 0;
		if (ev->res >= 0) {
			link_open(s, ev->res);
			accept_arm(s);
		}
		break;
	case OP_WAKE:
		if (ev->slot < SCAN_LINKS && s->link[ev->slot].used && (s->link[ev->slot].gen & 0xffffff) == ev->gen)
			wake_arm(s, ev->slot); /* what woke us is found by scan_poll */
		break;
	case OP_GONE:
		if (ev->slot < SCAN_LINKS && s->link[ev->slot].used && (s->link[ev->slot].gen & 0xffffff) == ev->gen) {
			scan_poll(s); /* its last words count */
			if (s->link[ev->slot].used && (s->link[ev->slot].gen & 0xffffff) == ev->gen)
				link_close(s, ev->slot);
		}
		break;
	}
}

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

enum status scan_new(struct worker *w, struct scan **ret)
{
	struct scan *s = calloc(1, sizeof(*s));

	if (!s)
		return ST_NOMEM;
	s->w = w;
	s->spool_fd = open(snap_cstr(&w->cfg->snap, w->cfg->set->spool_dir), O_PATH | O_DIRECTORY | O_CLOEXEC);
	s->listen_fd = listen_unix(w->opt->run_dir, w->opt->index);
	if (s->listen_fd < 0 || s->spool_fd < 0) {
		enum status st = trail_errno(errno, "%s/scan-%u", w->opt->run_dir, w->opt->index);

		free(s);
		return st;
	}
	for (uint32_t i = 0; i < SCAN_SLOTS; i++) {
		s->slot[i].next_free = i + 1 < SCAN_SLOTS ? i + 2 : 0;
		s->slot[i].gen = 1;
	}
	s->free_slot = 1;
	TAILQ_INIT(&s->waiting);
	s->none_since_ns = clock_mono_ns();
	uring_handle(&w->uring, URING_SCAN, on_completion, s);
	accept_arm(s);
	*ret = s;
	return ST_OK;
}

void scan_free(struct scan *s)
{
	if (!s)
		return;
	for (uint32_t i = 0; i < SCAN_LINKS; i++)
		if (s->link[i].used) {
			munmap(s->link[i].mem, scan_link_bytes());
			close(s->link[i].wake_scanner);
			close(s->link[i].wake_worker);
			close(s->link[i].sock);
		}
	shutdown(s->listen_fd, SHUT_RDWR);
	close(s->listen_fd);
	close(s->spool_fd);
	free(s);
}

enum status scan_post(struct scan *s, struct mail *mail, bool patient)
{
	struct scan_slot *slot;
	enum status st;

	if (!s->free_slot)
		return trail(ST_FULL, "%d messages wait for scanners already", SCAN_SLOTS);
	slot = &s->slot[s->free_slot - 1];
	st = store_scan_begin(mail->m, &slot->list_off, &slot->npieces);
	if (st != ST_OK)
		return st;
	s->free_slot = slot->next_free;
	s->nactive++;
	slot->mail = mail;
	slot->patient = patient;
	slot->deaths = 0;
	slot->timer.kind = TIMER_SCAN;
	mail->scan_slot = (uint32_t)(slot - s->slot) + 1;
	counter_add(C_SCAN_JOBS, 1);
	wheel_set(s->w->wheel, &slot->timer, s->w->now_ns + s->w->cfg->set->scan_timeout_ns);
	if (s->nwaiting || !slot_give(s, slot))
		slot_wait(s, slot, false);
	return ST_OK;
}

void scan_cancel(struct scan *s, struct mail *mail)
{
	struct scan_slot *slot;

	if (!mail->scan_slot)
		return;
	slot = &s->slot[mail->scan_slot - 1];
	slot_free(s, slot);
}

void scan_timer(struct worker *w, struct timer *t)
{
	struct scan_slot *slot = container_of(t, struct scan_slot, timer);

	if (slot->patient && slot->state == SLOT_WAITING) {
		wheel_set(w->wheel, t, w->now_ns + w->cfg->set->scan_timeout_ns);
		return;
	}
	counter_add(C_SCAN_TIMEOUTS, 1);
	slot_answer(w->scan, slot, VERDICT_UNSCANNED, SPAN("no verdict in time"));
}

/* Without any scanner for some seconds the impatient are answered at once rather than at their time-out. */
void scan_tick(struct scan *s)
{
	if (s->accept_rests)
		accept_arm(s);
	s->accept_rests = false;
	if (!s->none_since_ns || s->w->now_ns - s->none_since_ns < SCAN_NONE_GRACE_S * NS_PER_S || !s->nwaiting)
		return;
	for (uint32_t i = 0; i < SCAN_SLOTS; i++)
		if (s->slot[i].state == SLOT_WAITING && !s->slot[i].patient)
			slot_answer(s, &s->slot[i], VERDICT_UNSCANNED, SPAN("no scanner is running"));
}

void scan_describe(const struct scan *s, struct logline *row)
{
	log_str(row, "kind", "scanner");
	log_u64(row, "links", s->nlinks);
	log_u64(row, "waiting", s->nwaiting);
	log_u64(row, "active", s->nactive);
}
