/* Questions to scanners in every order of what worker and scanner can do, up to a length: the real scan.c, scan_link.c and store, and a scanner of the test's own
 * on the real socket and rings. (What happens inside a push or pop is ring_model_test's.) */
#include "tests/support/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "dataplane/scan_internal.h"
#include "spool/base/clock.h"

enum { STEPS = 6, QUESTIONS = 8, BODY = 3000, SEGMENT = 4 << 20 };

/* ---- the worker's side ---- */

static char dir[64];
static struct worker w;
static struct config config;
static struct worker_options options;
static struct {
	struct snap_header h;
	char spool_dir[64];
} snap;

struct question {
	struct mail mail;   /* first */
	uint64_t id;
	char fill;          /* what its body is made of */
	unsigned verdicts, deaths;
	enum mail_verdict verdict;
	bool cancelled;
};
static struct question question[QUESTIONS];
static unsigned nquestions;
static char next_fill = 'a';

static void settle(void)
{
	struct store_event ev;

	for (int i = 0; i < 3; i++) {
		store_commit(w.store[0]);
		assert_ok(uring_wait(&w.uring, 0));
	}
	while (store_busy(w.store[0])) {
		store_commit(w.store[0]);
		assert_ok(uring_wait(&w.uring, NS_PER_MS));
	}
	while (store_event(w.store[0], &ev))
		;
}

/* As mail_refuse ends it: the spool forgets it at once. */
static void forget(struct question *q)
{
	struct store_msg *m = q->mail.m;

	scan_cancel(w.scan, &q->mail);
	store_rcpt(m, 0, RCPT_DROPPED, NULL, 0);
	store_forget(m);
	q->mail.m = NULL;
}

/* In the place of the real one. */
void mail_verdict(struct mail *mail, enum mail_verdict v, struct span name)
{
	struct question *q = (struct question *)mail;

	assert_false(q->cancelled);
	assert_int_equal(q->verdicts, 0);
	assert_true(v != VERDICT_CLEAN); /* the test's scanner never says that */
	if (v == VERDICT_INFECTED) /* the answer is that of this message */
		assert_true(name.n == 1 && name.p[0] == q->fill);
	assert_int_equal(v == VERDICT_SUSPECT, q->deaths >= 2);
	q->verdicts++;
	q->verdict = v;
	forget(q);
}

static void post(struct question *q)
{
	struct env_rcpt rcpt = { .addr = SPAN("r@y.example") };
	struct envelope env = { .sender = SPAN("s@x.example"), .nrcpt = 1, .rcpt = &rcpt };
	char text[BODY];
	struct body *b;

	*q = (struct question){ .fill = next_fill };
	next_fill = next_fill == 'z' ? 'a' : (char)(next_fill + 1);
	memset(text, q->fill, sizeof(text));
	assert_ok(body_new(w.store[0], 0, &b));
	assert_ok(body_append(b, span_of(text, sizeof(text))));
	assert_ok(store_put(w.store[0], &env, b, false, q, &q->mail.m));
	q->mail.w = &w;
	q->id = q->mail.m->id;
	settle();
	assert_ok(scan_post(w.scan, &q->mail, false));
}

/* ---- the scanner's side ---- */

struct scanner {
	int sock;
	const char *arena;
	size_t arena_bytes;
	void *mem;
	struct scan_link *link;
	struct ring jobs, results;
	struct scan_job job;    /* at hand; 0: none */
	struct scan_piece piece;
};
static struct scanner scanner;
static struct scan_result stale; /* an answer to a job of a scanner that died */

static void connect_scanner(void)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(SCAN_NFDS * sizeof(int))];
	struct scan_hello h;
	struct iovec iov = { &h, sizeof(h) };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control) };
	int fd[SCAN_NFDS];

	scanner = (struct scanner){ .sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0) };
	snprintf(a.sun_path, sizeof(a.sun_path), "%s/scan-0", dir);
	assert_int_equal(connect(scanner.sock, (struct sockaddr *)&a, sizeof(a)), 0);
	while (recvmsg(scanner.sock, &msg, MSG_DONTWAIT) < 0) {
		assert_int_equal(errno, EAGAIN);
		assert_ok(uring_wait(&w.uring, NS_PER_MS));
	}
	memcpy(fd, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(fd));
	assert_int_equal(ftruncate(fd[SCAN_FD_LINK], 0), -1); /* would kill the worker that touches it */
	assert_ptr_equal(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd[SCAN_FD_ARENA], 0), MAP_FAILED);
	scanner.arena_bytes = h.arena_bytes;
	scanner.arena = mmap(NULL, h.arena_bytes, PROT_READ, MAP_SHARED, fd[SCAN_FD_ARENA], 0);
	scanner.mem = mmap(NULL, h.link_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd[SCAN_FD_LINK], 0);
	assert_true(scanner.arena != MAP_FAILED && scanner.mem != MAP_FAILED);
	for (int i = 0; i < SCAN_NFDS; i++)
		close(fd[i]);
	scanner.link = scanner.mem;
	ring_init(&scanner.jobs, (char *)scanner.mem + scan_jobs_off(), SCAN_RING, sizeof(struct scan_job));
	ring_init(&scanner.results, (char *)scanner.mem + scan_results_off(), SCAN_RING, sizeof(struct scan_result));
}

static struct question *asked(uint64_t id)
{
	for (unsigned i = 0; i < nquestions; i++)
		if (question[i].id == id)
			return &question[i];
	fail_msg("a job of no message");
	return NULL;
}

static bool take(void)
{
	if (scanner.job.job || ring_pop(&scanner.jobs, &scanner.job) != ST_OK)
		return false;
	atomic_store(&scanner.link->working, scanner.job.job);
	return true;
}

/* What the lease is for: list and body are this message's, whatever the worker did since. */
static bool look(void)
{
	const struct question *q;
	struct scan_piece piece;

	if (!scanner.job.job)
		return false;
	q = asked(scanner.job.msg_id);
	assert_int_equal(scanner.job.npieces, 1);
	memcpy(&piece, scanner.arena + scanner.job.list_off, sizeof(piece));
	assert_int_equal(piece.partition, SCAN_PIECE_ARENA);
	assert_int_equal(piece.len, BODY);
	for (uint32_t i = 0; i < piece.len; i++)
		assert_int_equal(scanner.arena[piece.off + i], q->fill);
	return true;
}

static struct scan_result result_for(const struct scan_job *j)
{
	return (struct scan_result){ .job = j->job, .verdict = SCAN_INFECTED, .name = { asked(j->msg_id)->fill } };
}

static bool answer(void)
{
	struct scan_result r;
	bool wake;

	if (!look())
		return false;
	r = result_for(&scanner.job);
	assert_ok(ring_push(&scanner.results, &r, &wake));
	atomic_store(&scanner.link->working, 0);
	scanner.job.job = 0;
	return true;
}

static void unmap_scanner(void)
{
	munmap((void *)(uintptr_t)scanner.arena, scanner.arena_bytes);
	munmap(scanner.mem, scan_link_bytes());
	close(scanner.sock);
}

/* The worker sees it before anything else happens: a turn follows. */
static void die(void)
{
	const struct scan_job j = scanner.job;
	uint32_t before = w.scan->link[0].gen;

	if (j.job) {
		struct question *q = asked(j.msg_id);

		q->deaths += !q->verdicts && !q->cancelled;
		stale = result_for(&j);
	}
	unmap_scanner();
	for (int i = 0; i < 1000 && w.scan->link[0].gen == before; i++)
		assert_ok(uring_wait(&w.uring, NS_PER_MS));
	assert_true(w.scan->link[0].gen != before);
	connect_scanner();
}

/* An answer of an earlier epoch, on today's link: refused, and its sender is ended. */
static bool say_stale(void)
{
	uint32_t before = w.scan->link[0].gen;
	bool wake;

	if (!stale.job)
		return false;
	assert_ok(ring_push(&scanner.results, &stale, &wake));
	stale.job = 0;
	if (scanner.job.job)
		asked(scanner.job.msg_id)->deaths += !asked(scanner.job.msg_id)->verdicts && !asked(scanner.job.msg_id)->cancelled;
	scan_poll(w.scan);
	assert_true(w.scan->link[0].gen != before);
	unmap_scanner();
	connect_scanner();
	return true;
}

/* ---- steps ---- */

enum step { POST, TIMEOUT, CANCEL, TURN, TAKE, LOOK, ANSWER, DIE, STALE, NSTEP };

static void pass_time(void)
{
	struct timer *t;

	w.now_ns += config.set->scan_timeout_ns + NS_PER_S;
	while ((t = wheel_expire(w.wheel, w.now_ns)))
		scan_timer(&w, t);
}

/* A hung scanner was ended, which a process cannot do to itself: the link is closed. */
static void reconnect_if_ended(void)
{
	char c;

	if (recv(scanner.sock, &c, 1, MSG_DONTWAIT | MSG_PEEK) != 0)
		return;
	unmap_scanner();
	connect_scanner();
}

static bool cancel(void)
{
	for (unsigned i = 0; i < nquestions; i++)
		if (!question[i].verdicts && !question[i].cancelled) {
			question[i].cancelled = true;
			forget(&question[i]);
			return true;
		}
	return false;
}

/* False: there is no such step now. */
static bool step(enum step s)
{
	switch (s) {
	case POST:
		if (nquestions == 3)
			return false;
		post(&question[nquestions++]);
		return true;
	case TIMEOUT:
		if (!w.scan->nactive)
			return false;
		if (scanner.job.job && w.scan->slot[(uint32_t)scanner.job.job - 1].state == SLOT_LEASED)
			stale = result_for(&scanner.job);
		pass_time();
		reconnect_if_ended();
		return true;
	case CANCEL:
		return cancel();
	case TURN:
		scan_poll(w.scan);
		assert_ok(uring_wait(&w.uring, 0));
		return true;
	case TAKE:
		return take();
	case LOOK:
		return look();
	case ANSWER:
		return answer();
	case DIE:
		die();
		return true;
	case STALE:
		return say_stale();
	case NSTEP:
		break;
	}
	return false;
}

/* Everything is answered or given up, and nothing is held any more. */
static void clean_up(size_t used)
{
	for (int i = 0; i < QUESTIONS && w.scan->nactive; i++) {
		scan_poll(w.scan);
		while (take() || answer())
			;
		scan_poll(w.scan);
	}
	assert_int_equal(w.scan->nactive, 0);
	for (unsigned i = 0; i < nquestions; i++)
		assert_int_equal(question[i].verdicts + question[i].cancelled, 1);
	settle();
	assert_int_equal(arena_used(w.arena), used);
	assert_int_equal(w.scan->link[0].outstanding, 0);
	nquestions = 0;
	stale.job = 0;
}

/* Runs the steps; gives the place of the first that was not possible, or STEPS. */
static int run(const uint8_t steps[STEPS])
{
	size_t used = arena_used(w.arena);
	int i;

	for (i = 0; i < STEPS && step((enum step)steps[i]); i++)
		;
	clean_up(used);
	return i;
}

/* The next sequence behind those that begin like this one up to and including `at`. */
static bool advance(uint8_t steps[STEPS], int at)
{
	if (at == STEPS)
		at--;
	memset(steps + at + 1, 0, (size_t)(STEPS - 1 - at));
	while (at >= 0 && ++steps[at] == NSTEP)
		steps[at--] = 0;
	return at >= 0;
}

static void every_order_of_steps(void **state)
{
	uint8_t steps[STEPS] = { 0 };
	unsigned long n = 0, whole = 0;
	int at;

	do {
		at = run(steps);
		n++;
		whole += at == STEPS;
	} while (advance(steps, at) && steps[0] == POST);
	print_message("%lu sequences of %d steps, %lu beginnings\n", whole, STEPS, n);
	assert_true(whole > 1000);
}

/* ---- scanners that do not keep to the protocol ---- */

static void push_result(uint64_t job, uint32_t verdict)
{
	struct scan_result r = { .job = job, .verdict = verdict };
	bool wake;

	memset(r.name, 0xff, sizeof(r.name)); /* no NUL either */
	assert_ok(ring_push(&scanner.results, &r, &wake));
}

static void ended_without_harm(size_t used)
{
	uint32_t before = w.scan->link[0].gen;

	scan_poll(w.scan);
	assert_true(w.scan->link[0].gen != before);
	unmap_scanner();
	connect_scanner();
	clean_up(used);
}

static void answers_to_what_was_not_asked(void **state)
{
	static const uint64_t job[] = { 0, 1, SCAN_SLOTS, SCAN_SLOTS + 1, 0xffffffff, UINT64_MAX, 1ull << 32, 1ull << 63 | 1 };

	for (size_t i = 0; i < sizeof(job) / sizeof(job[0]); i++) {
		size_t used = arena_used(w.arena);

		post(&question[nquestions++]);
		push_result(job[i], SCAN_CLEAN);
		ended_without_harm(used);
	}
}

static void the_same_answer_twice(void **state)
{
	size_t used = arena_used(w.arena);
	struct scan_result r;
	bool wake;

	post(&question[nquestions++]);
	post(&question[nquestions++]);
	assert_true(take());
	r = result_for(&scanner.job);
	assert_ok(ring_push(&scanner.results, &r, &wake));
	assert_ok(ring_push(&scanner.results, &r, &wake));
	ended_without_harm(used);
}

static void a_verdict_that_there_is_not(void **state)
{
	static const uint32_t verdict[] = { 0, 4, 255, UINT32_MAX };

	for (size_t i = 0; i < sizeof(verdict) / sizeof(verdict[0]); i++) {
		size_t used = arena_used(w.arena);

		post(&question[nquestions++]);
		assert_true(take());
		push_result(scanner.job.job, verdict[i]);
		scan_poll(w.scan);
		assert_int_equal(question[0].verdict, VERDICT_UNSCANNED);
		unmap_scanner();
		connect_scanner();
		clean_up(used);
	}
}

static void positions_out_of_range(void **state)
{
	static const uint64_t head[] = { SCAN_RING + 1, UINT64_MAX, 1ull << 63 };

	for (size_t i = 0; i < sizeof(head) / sizeof(head[0]); i++) {
		size_t used = arena_used(w.arena);

		post(&question[nquestions++]);
		atomic_store(&scanner.results.shared->head, head[i]);
		ended_without_harm(used);
		post(&question[nquestions++]);
		atomic_store(&scanner.jobs.shared->tail, head[i]); /* no room, for ever: others are asked, or time runs out */
		post(&question[nquestions++]);
		pass_time();
		pass_time();
		reconnect_if_ended();
		clean_up(used);
	}
}

/* ---- */

static int begin(void **state)
{
	static struct snap_settings *set = &snap.h.settings;

	strcpy(dir, access("/dev/shm", W_OK) == 0 ? "/dev/shm/weir-scan-XXXXXX" : "/var/tmp/weir-scan-XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	strcpy(snap.spool_dir, dir);
	set->spool_dir = (struct snap_str){ offsetof(typeof(snap), spool_dir), (uint32_t)strlen(dir) };
	set->scan_timeout_ns = 60 * NS_PER_S;
	snap.h.bytes = sizeof(snap);
	config.snap = (struct snapshot){ &snap.h, sizeof(snap) };
	config.set = set;
	options.run_dir = dir;
	w = (struct worker){ .opt = &options, .cfg = &config, .now_ns = clock_mono_ns(), .nstore = 1 };
	log_init(open("/dev/null", O_WRONLY | O_CLOEXEC), "scan-test", 0, LOG_LVL_ERROR);
	w.wheel = wheel_new(w.now_ns);
	if (!w.wheel || uring_init(&w.uring, 256) != ST_OK || arena_new(16 << 20, &w.arena) != ST_OK)
		return -1;
	if (store_open(&w.uring, w.arena, &(struct store_config){ .dir = dir, .segment_bytes = SEGMENT, .max_bytes = 16 * SEGMENT,
		.spill_bytes = 256 * 1024 }, &w.store[0]) != ST_OK || scan_new(&w, &w.scan) != ST_OK)
		return -1;
	connect_scanner();
	return 0;
}

static int end(void **state)
{
	char cmd[128];

	unmap_scanner();
	store_close(w.store[0]);
	scan_free(w.scan);
	arena_free(w.arena);
	wheel_free(w.wheel);
	uring_done(&w.uring);
	snprintf(cmd, sizeof(cmd), "rm -rf %s", dir);
	return system(cmd);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(answers_to_what_was_not_asked), cmocka_unit_test(the_same_answer_twice),
		cmocka_unit_test(a_verdict_that_there_is_not), cmocka_unit_test(positions_out_of_range), cmocka_unit_test(every_order_of_steps) };

	return cmocka_run_group_tests(tests, begin, end);
}
