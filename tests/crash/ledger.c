#include "tests/crash/ledger.h"

#include <stdarg.h>
#include <stdlib.h>
#include "spool/base/clock.h"
#include "spool/store/internal.h" /* the kinds of operations are the store's own */
#include "tests/crash/disk_over.h"

enum { SEGMENT = 4 << 20, SEGMENTS = 9 };

struct uring uring;
struct store *store;
static struct arena *arena;
static const char *lied_about;

_Noreturn void die(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, ": %s\n", trail_text());
	exit(1);
}

/* ---- a disk that lies ---- */

static bool is_lie(const struct disk_io *io)
{
	if (io->kind != DISK_DATASYNC && io->kind != DISK_SYNC)
		return false;
	if (strcmp(lied_about, "flush") == 0)
		return io->tag.op == OP_SYNC;
	if (strcmp(lied_about, "claim_flush") == 0)
		return io->tag.op == OP_CLAIM_SYNC;
	return io->tag.op == OP_CHECKPOINT && strcmp(lied_about, "checkpoint_flush") == 0;
}

static void begin(struct disk_over *o, const struct disk_io *io)
{
	struct io_uring_sqe *sqe;

	if (!is_lie(io)) {
		o->below->ops->begin(o->below, io);
		return;
	}
	sqe = uring_sqe(&uring);
	io_uring_prep_nop(sqe);
	uring_tag(sqe, URING_STORE, io->tag.op, io->tag.slot, io->tag.gen);
}

/* ---- the store ---- */

void open_spool(const char *dir, const char *lie)
{
	struct store_config cfg = { .dir = dir, .segment_bytes = SEGMENT, .max_bytes = (uint64_t)SEGMENTS * SEGMENT, .spill_bytes = 256 * 1024,
		.direct = true };
	struct disk *below;

	if (uring_init(&uring, 256) != ST_OK || arena_new(32 << 20, &arena) != ST_OK)
		die("starting");
	lied_about = lie;
	if (lie && (disk_files_new(&uring, dir, true, &below) != ST_OK || disk_over_new(below, begin, NULL, &cfg.disk) != ST_OK))
		die("starting");
	if (store_open(&uring, arena, &cfg, &store) != ST_OK)
		die("opening");
}

void close_spool(void)
{
	store_close(store);
	arena_free(arena);
	uring_done(&uring);
}

void turn(void (*fn)(const struct store_event *ev))
{
	struct store_event ev;

	store_commit(store);
	if (uring_wait(&uring, 2 * NS_PER_MS) != ST_OK)
		die("waiting");
	while (store_event(store, &ev))
		if (fn)
			fn(&ev);
}

void content(uint64_t seed, uint64_t at, char *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		p[i] = (char)('a' + (seed * 7 + (at + i) / 100 + seed % 5 * ((at + i) % 3)) % 26);
}

struct store_msg *put(uint64_t seed, size_t bytes, unsigned nrcpt, bool scanned, void (*fn)(const struct store_event *ev))
{
	struct env_rcpt rcpt[4] = { 0 };
	struct envelope env = { .sender = SPAN("s@x.example"), .arrived_ns = seed, .nrcpt = nrcpt, .rcpt = rcpt };
	struct store_msg *m;
	struct body *b;
	char part[8192];

	for (unsigned i = 0; i < nrcpt; i++)
		rcpt[i].addr = SPAN("r@y.example");
	if (body_new(store, 0, &b) != ST_OK)
		die("a body");
	for (size_t at = 0, n; at < bytes; at += n) {
		n = bytes - at < sizeof(part) ? bytes - at : sizeof(part);
		content(seed, at, part, n);
		while (body_room(b, n) == ST_AGAIN)
			turn(fn);
		if (body_append(b, span_of(part, n)) != ST_OK) {
			body_drop(b);
			return NULL;
		}
	}
	return store_put(store, &env, b, scanned, NULL, &m) == ST_OK ? m : NULL;
}
