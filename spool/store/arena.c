#include "spool/store/arena.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/memfd.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* PAGES: a class of its own, whose superblocks stay cut. PAGES_PART: of the arena, and so much more memory. */
enum { SUPERBLOCK = 2 * 1024 * 1024, CLASSES = 4, PAGES = CLASSES, PAGES_PART = 32, PER_BLOCK_MAX = SUPERBLOCK / EXTENT_MIN };

static const uint32_t class_bytes[CLASSES + 1] = { EXTENT_MIN, 16 * 1024, 64 * 1024, EXTENT_MAX, EXTENT_MIN };

/* One superblock: cut into extents of one class while any of them is in use. */
struct superblock {
	uint16_t free[PER_BLOCK_MAX]; /* a stack of extent numbers */
	uint16_t nfree, total;
	int8_t class;                 /* -1: not cut */
	uint32_t next, prev;          /* list of blocks of the class with a free extent; index + 1 */
};

struct arena {
	int fd;
	char *base;
	size_t bytes, map_bytes;
	size_t used, pages_used;
	bool huge;
	uint32_t nblocks;
	uint32_t head[CLASSES + 1]; /* index + 1 */
	uint32_t *uncut;         /* a stack of superblocks */
	uint32_t nuncut;
	struct superblock *block;
};

static int make_fd(size_t bytes, bool *huge)
{
	int fd = memfd_create("weir-arena", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_HUGETLB | MFD_HUGE_2MB);

	*huge = false;
	if (fd >= 0) {
		/* reserving is what fails when there are too few pages; without it the first touch would kill */
		void *p = ftruncate(fd, (off_t)bytes) == 0 ? mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) : MAP_FAILED;

		if (p != MAP_FAILED) {
			munmap(p, bytes);
			*huge = true;
			return fd;
		}
		close(fd);
	}
	fd = memfd_create("weir-arena", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd >= 0 && ftruncate(fd, (off_t)bytes) < 0) {
		close(fd);
		return -1;
	}
	return fd;
}

static void list_add(struct arena *a, uint32_t i)
{
	struct superblock *b = &a->block[i];

	b->prev = 0;
	b->next = a->head[b->class];
	if (b->next)
		a->block[b->next - 1].prev = i + 1;
	a->head[b->class] = i + 1;
}

static void list_del(struct arena *a, uint32_t i)
{
	struct superblock *b = &a->block[i];

	if (b->prev)
		a->block[b->prev - 1].next = b->next;
	else
		a->head[b->class] = b->next;
	if (b->next)
		a->block[b->next - 1].prev = b->prev;
}

static bool cut(struct arena *a, unsigned class)
{
	uint32_t i;
	struct superblock *b;

	if (!a->nuncut)
		return false;
	i = a->uncut[--a->nuncut];
	b = &a->block[i];
	b->class = (int8_t)class;
	b->total = b->nfree = (uint16_t)(SUPERBLOCK / class_bytes[class]);
	for (uint16_t k = 0; k < b->total; k++)
		b->free[k] = (uint16_t)(b->total - 1 - k);
	list_add(a, i);
	return true;
}

static size_t whole_superblocks(size_t bytes)
{
	return bytes ? (bytes + SUPERBLOCK - 1) & ~(size_t)(SUPERBLOCK - 1) : SUPERBLOCK;
}

enum status arena_new(size_t bytes, struct arena **ret)
{
	struct arena *a = calloc(1, sizeof(*a));
	int err;

	if (!a)
		return ST_NOMEM;
	a->bytes = whole_superblocks(bytes);
	a->map_bytes = a->bytes + whole_superblocks(a->bytes / PAGES_PART);
	a->nblocks = (uint32_t)(a->map_bytes / SUPERBLOCK);
	a->block = calloc(a->nblocks, sizeof(*a->block));
	a->uncut = calloc(a->nblocks, sizeof(*a->uncut));
	a->fd = make_fd(a->map_bytes, &a->huge);
	if (!a->block || !a->uncut || a->fd < 0 || fchmod(a->fd, 0600) < 0)
		goto fail;
	a->base = mmap(NULL, a->map_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, a->fd, 0);
	if (a->base == MAP_FAILED)
		goto fail;
	/* our mapping was made before: nobody else gets a writable one, ever */
	if (fcntl(a->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL) < 0)
		goto fail;
	for (uint32_t i = 0; i < a->nblocks; i++) {
		a->block[i].class = -1;
		a->uncut[a->nuncut++] = a->nblocks - 1 - i;
	}
	while (a->nuncut > a->bytes / SUPERBLOCK)
		cut(a, PAGES);
	*ret = a;
	return ST_OK;
fail:
	err = errno;
	arena_free(a);
	return trail_errno(err, "arena of %zu bytes", bytes);
}

void arena_free(struct arena *a)
{
	if (!a)
		return;
	if (a->base && a->base != MAP_FAILED)
		munmap(a->base, a->map_bytes);
	if (a->fd >= 0)
		close(a->fd);
	free(a->block);
	free(a->uncut);
	free(a);
}

static struct extent take(struct arena *a, unsigned class)
{
	uint32_t i = a->head[class] - 1;
	struct superblock *b = &a->block[i];
	struct extent e = { (uint64_t)i * SUPERBLOCK + (uint64_t)b->free[--b->nfree] * class_bytes[class], class_bytes[class] };

	if (!b->nfree)
		list_del(a, i);
	*(class == PAGES ? &a->pages_used : &a->used) += e.cap;
	return e;
}

enum status extent_alloc(struct arena *a, size_t want, struct extent *ret)
{
	unsigned class = 0, larger;

	while (class < CLASSES - 1 && class_bytes[class] < want)
		class++;
	if (!a->head[class] && !cut(a, class)) {
		/* no block to cut: one that is too large, or else too small, is better than none */
		for (larger = class; larger < CLASSES - 1 && !a->head[larger]; larger++)
			;
		if (a->head[larger])
			class = larger;
		while (class && !a->head[class])
			class--;
		if (!a->head[class])
			return ST_FULL;
	}
	*ret = take(a, class);
	return ST_OK;
}

enum status page_alloc(struct arena *a, struct extent *ret)
{
	if (!a->head[PAGES])
		return extent_alloc(a, EXTENT_MIN, ret);
	*ret = take(a, PAGES);
	return ST_OK;
}

void extent_release(struct arena *a, struct extent e)
{
	uint32_t i = (uint32_t)(e.off / SUPERBLOCK);
	struct superblock *b = &a->block[i];

	CHECK(i < a->nblocks && b->class >= 0 && class_bytes[b->class] == e.cap && b->nfree < b->total);
	b->free[b->nfree++] = (uint16_t)(e.off % SUPERBLOCK / e.cap);
	*(b->class == PAGES ? &a->pages_used : &a->used) -= e.cap;
	if (b->nfree == 1)
		list_add(a, i);
	if (b->nfree == b->total && b->class != PAGES) {
		list_del(a, i);
		b->class = -1;
		a->uncut[a->nuncut++] = i;
	}
}

void *arena_at(const struct arena *a, uint64_t off)
{
	CHECK(off < a->map_bytes);
	return a->base + off;
}

int arena_fd(const struct arena *a)
{
	return a->fd;
}

size_t arena_bytes(const struct arena *a)
{
	return a->bytes;
}

size_t arena_map_bytes(const struct arena *a)
{
	return a->map_bytes;
}

size_t arena_used(const struct arena *a)
{
	return a->used + a->pages_used;
}

size_t arena_left(const struct arena *a)
{
	return a->bytes - a->used;
}

bool arena_is_huge(const struct arena *a)
{
	return a->huge;
}
