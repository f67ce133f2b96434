#include "spool/base/counters.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "spool/base/clock.h"

#define TOTAL COUNTER_TOTAL
#define GAUGE COUNTER_GAUGE
const struct counter_desc counter_desc[C_COUNT] = {
#define COUNTER(id, kind, name, help) [C_##id] = { name, help, kind },
#include "spool/base/counters.def"
#undef COUNTER
};

static const char magic[8] = "WEIRCNT";
static struct counters_page private_page;
struct counters_page *counters_self = &private_page;

/* FNV-1a over the names: a process with another table is told apart. */
static uint64_t layout_hash(void)
{
	uint64_t h = 0xcbf29ce484222325ull;

	for (int i = 0; i < C_COUNT; i++)
		for (const char *p = counter_desc[i].name;; p++) {
			h = (h ^ (unsigned char)*p) * 0x100000001b3ull;
			if (!*p)
				break;
		}
	return h;
}

enum status counters_open(const char *dir, const char *role, int n)
{
	char path[4096];
	struct counters_page *p;
	struct stat sb;
	int fd;

	snprintf(path, sizeof(path), "%s/%s-%d", dir, role, n);
	if (mkdir(dir, 0750) < 0 && errno != EEXIST)
		return trail_errno(errno, "%s", dir);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0640);
	if (fd < 0)
		return trail_errno(errno, "%s", path);
	/* never shorter: a reader of another version may have it mapped */
	if (fstat(fd, &sb) < 0 || (sb.st_size < (off_t)sizeof(*p) && ftruncate(fd, sizeof(*p)) < 0)) {
		enum status st = trail_errno(errno, "%s", path);

		close(fd);
		return st;
	}
	p = mmap(NULL, sizeof(*p), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (p == MAP_FAILED)
		return trail_errno(errno, "%s", path);
	if (memcmp(p->magic, magic, sizeof(magic)) != 0 || p->layout != layout_hash())
		memset(p, 0, sizeof(*p));
	memcpy(p->magic, magic, sizeof(magic));
	p->layout = layout_hash();
	for (int i = 0; i < C_COUNT; i++)
		if (counter_desc[i].kind == COUNTER_GAUGE)
			atomic_store(&p->v[i], 0);
	atomic_store(&p->start_wall_ns, clock_wall_ns());
	atomic_store(&p->beat_ns, clock_mono_ns());
	atomic_fetch_add(&p->restarts, 1);
	atomic_store(&p->pid, (uint32_t)getpid());
	counters_self = p;
	return ST_OK;
}

void counters_close(void)
{
	atomic_store(&counters_self->pid, 0);
}

enum status counters_map(const char *path, const struct counters_page **ret)
{
	struct stat st;
	const struct counters_page *p;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return trail_errno(errno, "%s", path);
	if (fstat(fd, &st) < 0 || st.st_size < (off_t)sizeof(*p)) {
		close(fd);
		return trail(ST_UNSUPPORTED, "%s: not a counters file of this version", path);
	}
	p = mmap(NULL, sizeof(*p), PROT_READ, MAP_SHARED, fd, 0);
	close(fd);
	if (p == MAP_FAILED)
		return trail_errno(errno, "%s", path);
	if (memcmp(p->magic, magic, sizeof(magic)) != 0 || p->layout != layout_hash()) {
		counters_unmap(p);
		return trail(ST_UNSUPPORTED, "%s: counters of another version", path);
	}
	*ret = p;
	return ST_OK;
}

void counters_unmap(const struct counters_page *p)
{
	munmap((void *)(uintptr_t)p, sizeof(*p));
}
