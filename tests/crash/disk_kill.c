/* Kill points: a worker that dies before, in the middle of, or after the n-th operation of one kind on its disk.
 *
 * Linked only into the worker of the crash tests (--wrap=disk_files_new), never into another program.
 *
 * WEIR_KILL_AT names the points, e.g. "write:17:before,start_read:3:after". The first one counts from the start of the process. When it is
 * reached the rest of the list waits for the next process. With WEIR_KILL_FILE the list is in that file instead: whoever sees it first takes it away, and
 * counts from then on; FILE.killed gets a line for every death: the point, the process, and the monotonic time in ns. */
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "spool/base/clock.h"
#include "spool/store/internal.h" /* the kinds of operations are the store's own */
#include "tests/crash/disk_over.h"

enum point { P_NONE, P_WRITE, P_FLUSH, P_READ, P_FILL, P_FILL_FLUSH, P_FILL_DIR, P_CLAIM, P_CLAIM_FLUSH, P_RECORD_READ, P_MOVE_READ,
	P_CHECKPOINT_DATA, P_CHECKPOINT_FLUSH, P_CHECKPOINT_HEADER, P_CHECKPOINT_HEADER_FLUSH, P_START_READ, P_START_WRITE, P_START_FLUSH };

static const char *const names[] = { "", "write", "flush", "read", "fill", "fill_flush", "fill_dir", "claim", "claim_flush", "record_read",
	"move_read", "checkpoint_data", "checkpoint_flush", "checkpoint_header", "checkpoint_header_flush", "start_read", "start_write",
	"start_flush" };

enum when { BEFORE, TORN, AFTER };
static const char *const when_names[] = { "before", "torn", "after" };

/* Of the process: all its partitions count together. */
static struct {
	enum point point; /* P_NONE: nothing is planned */
	unsigned n;       /* operations still to come, with the fatal one */
	enum when when;
	char text[64], rest[512];
} plan;
static const char *file; /* WEIR_KILL_FILE */
static bool header_was_last;

enum status __real_disk_files_new(struct uring *u, const char *dir, bool direct, struct disk **ret);
enum status __wrap_disk_files_new(struct uring *u, const char *dir, bool direct, struct disk **ret);

/* ---- the plan ---- */

static unsigned lookup(const char *const *table, size_t n, const char *word)
{
	for (unsigned i = 0; i < n; i++)
		if (strcmp(table[i], word) == 0)
			return i;
	fprintf(stderr, "there is no kill point %s\n", word);
	abort();
}

static void take(const char *list)
{
	char point[32], when[16];

	if (sscanf(list, "%63[^,\n],%511[^\n]", plan.text, plan.rest) < 2)
		plan.rest[0] = '\0';
	if (sscanf(plan.text, "%31[^:]:%u:%15s", point, &plan.n, when) != 3 || !plan.n) {
		fprintf(stderr, "a kill point is kind:n:before|torn|after, not %s\n", plan.text);
		abort();
	}
	plan.point = (enum point)lookup(names, sizeof(names) / sizeof(names[0]), point);
	plan.when = (enum when)lookup(when_names, sizeof(when_names) / sizeof(when_names[0]), when);
}

static void put_text(const char *path, int flags, const char *text)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | flags, 0666);

	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		abort();
	close(fd);
}

/* Only one process gets it: its name goes away at once. */
static void look_for_plan(void)
{
	char mine[PATH_MAX], list[600] = "";
	int fd;

	if (!file)
		return;
	snprintf(mine, sizeof(mine), "%s.%d", file, (int)getpid());
	if (rename(file, mine) < 0)
		return;
	fd = open(mine, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || read(fd, list, sizeof(list) - 1) <= 0)
		abort();
	close(fd);
	unlink(mine);
	take(list);
}

static _Noreturn void die(void)
{
	char path[PATH_MAX], line[160];

	if (file) {
		snprintf(path, sizeof(path), "%s.killed", file);
		snprintf(line, sizeof(line), "%s %d %llu\n", plan.text, (int)getpid(), (unsigned long long)clock_mono_ns());
		put_text(path, O_APPEND, line);
		if (plan.rest[0]) {
			snprintf(path, sizeof(path), "%s.%d", file, (int)getpid());
			put_text(path, O_TRUNC, plan.rest);
			if (rename(path, file) < 0)
				abort();
		}
	}
	raise(SIGKILL);
	abort();
}

static bool reached(enum point p)
{
	return p == plan.point && --plan.n == 0;
}

/* ---- the operations ---- */

static enum point checkpoint_point(const struct disk_io *io)
{
	bool after_header = header_was_last;

	header_was_last = io->kind == DISK_WRITE && io->off == 0;
	if (io->kind == DISK_WRITE)
		return header_was_last ? P_CHECKPOINT_HEADER : P_CHECKPOINT_DATA;
	return after_header ? P_CHECKPOINT_HEADER_FLUSH : P_CHECKPOINT_FLUSH;
}

static enum point point_of(const struct disk_io *io)
{
	static const enum point of[] = { [OP_WRITE] = P_WRITE, [OP_SYNC] = P_FLUSH, [OP_READ] = P_READ, [OP_FILL] = P_FILL,
		[OP_FILL_DIR] = P_FILL_FLUSH, [OP_FILL_SYNC] = P_FILL_DIR, [OP_CLAIM] = P_CLAIM, [OP_CLAIM_SYNC] = P_CLAIM_FLUSH,
		[OP_RECORD] = P_RECORD_READ, [OP_MOVE] = P_MOVE_READ };

	return io->tag.op == OP_CHECKPOINT ? checkpoint_point(io) : of[io->tag.op];
}

/* The whole operation, waiting; what else is with the kernel is as far as it is. */
static void carry_out(struct disk *d, const struct disk_io *io, uint32_t n)
{
	if (io->kind == DISK_WRITE)
		(void)!d->ops->write(d, io->file, io->p, n, io->off);
	else if (io->kind == DISK_READ)
		(void)!d->ops->read(d, io->file, io->p, n, io->off);
	else
		(void)!d->ops->sync(d, io->kind == DISK_SYNC_DIR ? NULL : io->file);
}

static void begin(struct disk_over *o, const struct disk_io *io)
{
	look_for_plan();
	if (reached(point_of(io))) {
		if (plan.when == AFTER)
			carry_out(o->below, io, io->n);
		else if (plan.when == TORN && io->kind == DISK_WRITE)
			carry_out(o->below, io, io->n > BLOCK ? io->n / 2 / BLOCK * BLOCK : io->n);
		die();
	}
	o->below->ops->begin(o->below, io);
}

static void waits(struct disk_over *o, enum disk_kind kind, bool over)
{
	static const enum point of[] = { [DISK_READ] = P_START_READ, [DISK_WRITE] = P_START_WRITE, [DISK_DATASYNC] = P_START_FLUSH,
		[DISK_SYNC] = P_START_FLUSH, [DISK_SYNC_DIR] = P_START_FLUSH };

	if (over == (plan.when == AFTER) && reached(of[kind]))
		die();
}

enum status __wrap_disk_files_new(struct uring *u, const char *dir, bool direct, struct disk **ret)
{
	const char *at = getenv("WEIR_KILL_AT");
	struct disk *below;
	enum status st = __real_disk_files_new(u, dir, direct, &below);

	if (st != ST_OK)
		return st;
	file = getenv("WEIR_KILL_FILE");
	if (at && !plan.point)
		take(at);
	look_for_plan();
	st = disk_over_new(below, begin, waits, ret);
	if (st != ST_OK)
		below->ops->free(below);
	return st;
}
