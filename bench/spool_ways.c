/* Three ways of making messages durable, each until the time is over, each in a steady state: what was made durable is thrown away again. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include "bench/spool.h"
#include "spool/base/clock.h"

enum { KEPT_FILES = 256, DIRECT_BYTES = 256 << 20 };

static void must(bool ok, const char *what)
{
	if (ok)
		return;
	perror(what);
	_exit(1);
}

static void dir_of(const struct measure *m, char ret[4096])
{
	snprintf(ret, 4096, "%s/p%u", m->o->dir, m->producer);
	must(mkdir(ret, 0700) == 0 || errno == EEXIST, ret);
}

/* ---- the spool ---- */

struct flow {
	struct rig rig;
	struct measure *m;
	struct span text;
	uint64_t *since;      /* when each of the outstanding ones was complete */
	uint32_t *free, nfree;
	uint64_t durable, next_ns, step_ns;
};

static void put_all(struct flow *f)
{
	uint64_t now = clock_mono_ns();

	while (f->nfree && (!f->step_ns || now >= f->next_ns)) {
		uint32_t i = f->free[f->nfree - 1];

		/* at a given rate the times are fixed beforehand: a stall counts for all whom it delays */
		f->since[i] = f->step_ns ? f->next_ns : now;
		if (!rig_put(&f->rig, f->text, 1, &f->since[i]))
			return;
		f->nfree--;
		f->next_ns += f->step_ns;
	}
}

static void take_events(struct flow *f)
{
	uint64_t now = clock_mono_ns();
	struct store_event ev;

	while (store_event(f->rig.store, &ev)) {
		uint64_t *since;

		if (ev.type == STORE_FAILED || ev.type == STORE_FENCED) {
			fprintf(stderr, "weir-bench: spool: %s\n", ev.reason);
			_exit(1);
		}
		if (ev.type != STORE_DURABLE)
			continue;
		since = ev.msg->user;
		measure_latency(f->m, now - *since);
		f->free[f->nfree++] = (uint32_t)(since - f->since);
		f->durable++;
		rig_deliver(ev.msg);
	}
}

static void flow_turn(struct flow *f)
{
	uint64_t now = clock_mono_ns(), wait = 100 * NS_PER_MS;

	if (f->step_ns && f->nfree)
		wait = f->next_ns > now ? f->next_ns - now : 0;
	rig_turn(&f->rig, wait);
	take_events(f);
	put_all(f);
}

void way_spool(struct measure *m)
{
	const struct spool_options *o = m->o;
	struct flow f = { .m = m, .text = bench_text(o->size), .step_ns = o->rate > 0 ? (uint64_t)(1e9 / o->rate) : 0 };
	uint64_t warm_ns, before;
	char dir[4096];

	dir_of(m, dir);
	f.since = calloc(o->outstanding, sizeof(*f.since));
	f.free = calloc(o->outstanding, sizeof(*f.free));
	CHECK(f.since && f.free);
	while (f.nfree < o->outstanding) {
		f.free[f.nfree] = f.nfree;
		f.nfree++;
	}
	rig_open(&f.rig, dir, m->producer, (64u << 20) + 2ull * o->outstanding * o->size, o);
	warm_ns = clock_mono_ns() + (uint64_t)(o->warm_s * 1e9);
	f.next_ns = clock_mono_ns();
	put_all(&f);
	while (clock_mono_ns() < warm_ns)
		flow_turn(&f);
	measure_begin(m);
	f.next_ns = clock_mono_ns();
	before = f.durable;
	while (!measure_over(m))
		flow_turn(&f);
	measure_end(m, f.durable - before);
	rig_close(&f.rig);
}

/* ---- one file each, as classic mail servers do it ---- */

static void write_file(int dir, const char *dir_name, const char *temp, const char *name, struct span text)
{
	int fd = openat(dir, temp, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	must(fd >= 0 && write(fd, text.p, text.n) == (ssize_t)text.n && fsync(fd) == 0 && close(fd) == 0, dir_name);
	must(renameat(dir, temp, dir, name) == 0 && fsync(dir) == 0, dir_name);
}

void way_file(struct measure *m)
{
	struct span text = bench_text(m->o->size);
	uint64_t n = 0, before = 0, warm_ns = clock_mono_ns() + (uint64_t)(m->o->warm_s * 1e9);
	char dir[4096], name[32];
	bool warm = false;
	int fd;

	dir_of(m, dir);
	fd = open(dir, O_RDONLY | O_DIRECTORY);
	must(fd >= 0, dir);
	while (!warm || !measure_over(m)) {
		uint64_t since = clock_mono_ns();

		snprintf(name, sizeof(name), "m%llu", (unsigned long long)n);
		write_file(fd, dir, "incoming", name, text);
		measure_latency(m, clock_mono_ns() - since);
		if (n++ >= KEPT_FILES) {
			snprintf(name, sizeof(name), "m%llu", (unsigned long long)(n - KEPT_FILES - 1));
			unlinkat(fd, name, 0);
		}
		if (!warm && clock_mono_ns() >= warm_ns) {
			warm = true;
			before = n;
			measure_begin(m);
		}
	}
	measure_end(m, n - before);
	for (uint64_t i = n > KEPT_FILES ? n - KEPT_FILES : 0; i < n; i++) {
		snprintf(name, sizeof(name), "m%llu", (unsigned long long)i);
		unlinkat(fd, name, 0);
	}
}

/* ---- one write and one fdatasync each, into blocks that are there already ---- */

static int prewritten(const char *dir, char *buf, unsigned n)
{
	char path[4200];
	struct stat st;
	int fd;

	snprintf(path, sizeof(path), "%s/direct", dir);
	fd = open(path, O_RDWR | O_CREAT | O_DIRECT, 0600);
	must(fd >= 0 && fstat(fd, &st) == 0, path);
	for (off_t off = 0; st.st_size < DIRECT_BYTES && off < DIRECT_BYTES; off += n)
		must(pwrite(fd, buf, n, off) == (ssize_t)n, path);
	must(fsync(fd) == 0, path);
	return fd;
}

void way_direct(struct measure *m)
{
	struct span text = bench_text(m->o->size);
	unsigned padded = (m->o->size + 4095) / 4096 * 4096;
	char dir[4096], *buf = aligned_alloc(4096, padded);
	uint64_t n = 0, before = 0, warm_ns;
	bool warm = false;
	int fd;

	dir_of(m, dir);
	CHECK(buf);
	memset(buf, 0, padded);
	fd = prewritten(dir, buf, padded);
	warm_ns = clock_mono_ns() + (uint64_t)(m->o->warm_s * 1e9);
	while (!warm || !measure_over(m)) {
		uint64_t since = clock_mono_ns();

		memcpy(buf, text.p, text.n);
		must(pwrite(fd, buf, padded, (off_t)(n % (DIRECT_BYTES / padded) * padded)) == (ssize_t)padded && fdatasync(fd) == 0, dir);
		measure_latency(m, clock_mono_ns() - since);
		n++;
		if (!warm && clock_mono_ns() >= warm_ns) {
			warm = true;
			before = n;
			measure_begin(m);
		}
	}
	measure_end(m, n - before);
}
