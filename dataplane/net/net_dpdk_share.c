#include "dataplane/net/net_dpdk_share.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "spool/base/ring.h"

enum { LINK_EXTRA = 64, ALIGN = 64 };

struct entry {
	uint32_t n;
	uint8_t frame[];
};

struct shape {
	uint64_t magic;
	uint32_t workers, entry_size;
};
static_assert(sizeof(struct shape) <= ALIGN);
static const uint64_t magic = 0x3173656d61726657; /* "Wframes1" */

struct share {
	uint32_t worker, workers, entry_size, turn;
	unsigned char *map;
	size_t bytes;
	struct entry *out, *in;
	uint64_t given, lost;
	struct ring ring[]; /* to each worker, then from each */
};

static size_t round_up(size_t n)
{
	return (n + ALIGN - 1) / ALIGN * ALIGN;
}

static size_t ring_room(uint32_t entry_size)
{
	return round_up(ring_bytes(SHARE_FRAMES, entry_size));
}

static struct ring_shared *ring_at(const struct share *s, uint32_t from, uint32_t to)
{
	return (struct ring_shared *)(void *)(s->map + ALIGN + ((size_t)from * s->workers + to) * ring_room(s->entry_size));
}

/* A place that was left: the producer goes on where it was, the consumer forgets what came meanwhile. */
static void attach(struct share *s)
{
	for (uint32_t w = 0; w < s->workers; w++) {
		struct ring *to = &s->ring[w], *from = &s->ring[s->workers + w];

		ring_init(to, ring_at(s, s->worker, w), SHARE_FRAMES, s->entry_size);
		to->pos = atomic_load(&to->shared->head);
		ring_init(from, ring_at(s, w, s->worker), SHARE_FRAMES, s->entry_size);
		from->pos = atomic_load(&from->shared->head);
		atomic_store(&from->shared->tail, from->pos);
	}
}

/* The file, of the right shape; locked while one looks, so that only one makes it. */
static int open_file(const char *dir, const struct shape *want, size_t bytes)
{
	char path[PATH_MAX];
	struct shape is = { 0 };
	struct stat sb;
	int fd;

	snprintf(path, sizeof(path), "%s/frames", dir);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return -1;
	if (flock(fd, LOCK_EX) < 0 || fstat(fd, &sb) < 0)
		goto fail;
	if ((size_t)sb.st_size == bytes && pread(fd, &is, sizeof(is), 0) == sizeof(is) && memcmp(&is, want, sizeof(is)) == 0) {
		flock(fd, LOCK_UN);
		return fd;
	}
	if (ftruncate(fd, 0) < 0 || ftruncate(fd, (off_t)bytes) < 0 || pwrite(fd, want, sizeof(*want), 0) != sizeof(*want))
		goto fail;
	flock(fd, LOCK_UN);
	return fd;
fail:
	close(fd);
	return -1;
}

enum status share_open(const char *dir, uint32_t worker, uint32_t workers, uint32_t mtu, struct share **ret)
{
	uint32_t entry_size = (uint32_t)round_up(sizeof(struct entry) + mtu + LINK_EXTRA);
	struct shape want = { .magic = magic, .workers = workers, .entry_size = entry_size };
	size_t bytes = ALIGN + (size_t)workers * workers * ring_room(entry_size);
	struct share *s = calloc(1, sizeof(*s) + 2 * workers * sizeof(s->ring[0]));
	int fd = -1;
	enum status st = ST_NOMEM;

	if (!s)
		return st;
	*s = (struct share){ .worker = worker, .workers = workers, .entry_size = entry_size, .map = MAP_FAILED, .bytes = bytes,
		.out = calloc(1, entry_size), .in = calloc(1, entry_size) };
	if (!s->out || !s->in)
		goto fail;
	fd = open_file(dir, &want, bytes);
	if (fd >= 0)
		s->map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (s->map == MAP_FAILED) {
		st = trail_errno(errno, "%s/frames", dir);
		goto fail;
	}
	close(fd);
	attach(s);
	*ret = s;
	return ST_OK;
fail:
	if (fd >= 0)
		close(fd);
	share_close(s);
	return st;
}

int share_lock(const char *dir)
{
	char path[PATH_MAX];
	int fd;

	snprintf(path, sizeof(path), "%s/frames", dir);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd >= 0)
		flock(fd, LOCK_EX);
	return fd;
}

void share_unlock(int lock)
{
	if (lock >= 0)
		close(lock);
}

void share_close(struct share *s)
{
	if (!s)
		return;
	if (s->map != MAP_FAILED)
		munmap(s->map, s->bytes);
	free(s->out);
	free(s->in);
	free(s);
}

uint32_t share_owner(const struct share *s, uint16_t local_port)
{
	return s ? local_port % s->workers : 0;
}

bool share_is_own(const struct share *s, uint16_t local_port)
{
	return !s || share_owner(s, local_port) == s->worker;
}

void share_give(struct share *s, uint32_t worker, const void *frame, size_t n)
{
	bool wake;

	if (!s || worker == s->worker)
		return;
	if (n > s->entry_size - sizeof(*s->out)) {
		s->lost++;
		return;
	}
	s->out->n = (uint32_t)n;
	memcpy(s->out->frame, frame, n);
	if (ring_push(&s->ring[worker], s->out, &wake) == ST_OK) /* who sleeps looks again soon */
		s->given++;
	else
		s->lost++;
}

void share_give_all(struct share *s, const void *frame, size_t n)
{
	for (uint32_t w = 0; s && w < s->workers; w++)
		share_give(s, w, frame, n);
}

const uint8_t *share_next(struct share *s, size_t *ret_n)
{
	for (uint32_t i = 0; s && i < s->workers; i++) {
		struct ring *from = &s->ring[s->workers + s->turn];

		s->turn = (s->turn + 1) % s->workers;
		if (ring_pop(from, s->in) == ST_OK && s->in->n <= s->entry_size - sizeof(*s->in)) {
			*ret_n = s->in->n;
			return s->in->frame;
		}
	}
	return NULL;
}

void share_stats(const struct share *s, uint64_t *ret_given, uint64_t *ret_lost)
{
	*ret_given = s ? s->given : 0;
	*ret_lost = s ? s->lost : 0;
}
