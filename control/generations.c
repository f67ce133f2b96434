#include "control/generations.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>
#include "spool/base/clock.h"

/* ---- names ---- */

static int by_number(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

size_t generations_list(const char *run_dir, uint64_t **ret)
{
	char dir[4096];
	struct dirent *e;
	uint64_t g;
	size_t n = 0;
	DIR *d;

	*ret = NULL;
	snprintf(dir, sizeof(dir), "%s/tables", run_dir);
	d = opendir(dir);
	while (d && (e = readdir(d)))
		if (strncmp(e->d_name, "gen-", 4) == 0 && span_u64(span_str(e->d_name + 4), UINT64_MAX - 1, &g) && g) {
			*ret = realloc(*ret, (n + 1) * sizeof(**ret));
			CHECK(*ret);
			(*ret)[n++] = g;
		}
	if (d)
		closedir(d);
	if (n)
		qsort(*ret, n, sizeof(**ret), by_number);
	return n;
}

const char *generations_path(const char *run_dir, uint64_t generation, char *path)
{
	snprintf(path, 4200, "%s/tables/gen-%llu", run_dir, (unsigned long long)generation);
	return path;
}

/* ---- writing ---- */

static enum status sync_dir(const char *run_dir)
{
	char dir[4096];
	int fd;
	bool ok;

	snprintf(dir, sizeof(dir), "%s/tables", run_dir);
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	ok = fd >= 0 && fsync(fd) == 0;
	if (fd >= 0)
		close(fd);
	return ok ? ST_OK : trail_errno(errno, "%s", dir);
}

static bool write_all(int fd, const void *p, size_t n)
{
	const char *at = p;

	while (n) {
		ssize_t done = write(fd, at, n > INT_MAX ? INT_MAX : n);

		if (done <= 0)
			return false;
		at += done;
		n -= (size_t)done;
	}
	return true;
}

static bool write_image(int fd, const struct tables_image *image)
{
	if (!write_all(fd, &image->h, sizeof(image->h)))
		return false;
	for (unsigned i = 0; i < TABLES_SECTIONS; i++)
		if (!write_all(fd, image->section[i].p, image->section[i].n))
			return false;
	return fsync(fd) == 0;
}

static enum status make_dir(const char *run_dir)
{
	char dir[4096];

	snprintf(dir, sizeof(dir), "%s/tables", run_dir);
	return mkdir(dir, 0750) == 0 || errno == EEXIST ? ST_OK : trail_errno(errno, "%s", dir);
}

int generations_lock(const char *run_dir)
{
	char path[4200];
	int fd;

	if (make_dir(run_dir) != ST_OK)
		return -1;
	snprintf(path, sizeof(path), "%s/tables/lock", run_dir);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0640);
	if (fd >= 0 && flock(fd, LOCK_EX) == 0)
		return fd;
	if (trail_errno(errno, "%s", path) != ST_OK && fd >= 0)
		close(fd);
	return -1;
}

enum status generations_write(const char *run_dir, struct tables_image *image)
{
	char temp[4200], path[4200];
	uint64_t *all;
	size_t n;
	int fd;
	bool ok;

	if (make_dir(run_dir) != ST_OK)
		return ST_IO;
	n = generations_list(run_dir, &all);
	tables_image_seal(image, n ? all[n - 1] + 1 : 1, clock_wall_ns());
	free(all);
	snprintf(temp, sizeof(temp), "%s/tables/new", run_dir);
	fd = open(temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);
	if (fd < 0)
		return trail_errno(errno, "%s", temp);
	ok = write_image(fd, image);
	close(fd);
	if (!ok || rename(temp, generations_path(run_dir, image->h.generation, path)) < 0) {
		enum status st = trail_errno(errno, "%s", temp);

		unlink(temp);
		return st;
	}
	return sync_dir(run_dir);
}

enum status generations_switch(const char *run_dir, uint64_t generation)
{
	char path[4200], temp[4200], name[32];
	struct tables t;
	enum status st = tables_open(generations_path(run_dir, generation, path), &t);

	if (st != ST_OK)
		return st;
	tables_close(&t);
	snprintf(name, sizeof(name), "gen-%llu", (unsigned long long)generation);
	snprintf(temp, sizeof(temp), "%s/tables/current.new", run_dir);
	snprintf(path, sizeof(path), "%s/tables/current", run_dir);
	unlink(temp);
	if (symlink(name, temp) < 0 || rename(temp, path) < 0)
		return trail_errno(errno, "%s", path);
	return sync_dir(run_dir);
}

void generations_prune(const char *run_dir, uint32_t keep)
{
	uint64_t *all, current = tables_current(run_dir);
	size_t n = generations_list(run_dir, &all);
	char path[4200];

	for (size_t i = 0; i + keep < n; i++)
		if (all[i] != current)
			unlink(generations_path(run_dir, all[i], path));
	free(all);
}

/* ---- the pin ---- */

static void pin_path(const char *run_dir, char *path, size_t n)
{
	snprintf(path, n, "%s/tables/pinned", run_dir);
}

bool generations_pinned(const char *run_dir)
{
	char path[4200];

	pin_path(run_dir, path, sizeof(path));
	return access(path, F_OK) == 0;
}

enum status generations_pin(const char *run_dir, bool on)
{
	char path[4200];
	int fd;

	pin_path(run_dir, path, sizeof(path));
	if (!on) {
		if (unlink(path) < 0)
			return errno == ENOENT ? ST_OK : trail_errno(errno, "%s", path);
		return sync_dir(run_dir);
	}
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0640);
	if (fd < 0)
		return trail_errno(errno, "%s", path);
	close(fd);
	return sync_dir(run_dir);
}

/* ---- the whole ---- */

/* The live tables' seed and content; false: there are none that are good. */
static bool live_header(const char *run_dir, struct tables_header *ret)
{
	char path[4200];
	struct tables t;
	uint64_t current = tables_current(run_dir);

	if (!current || tables_open(generations_path(run_dir, current, path), &t) != ST_OK)
		return false;
	*ret = *t.h;
	tables_close(&t);
	return true;
}

static bool fail(FILE *errors, struct tables_image *image)
{
	fprintf(errors, "%s\n", trail_text());
	tables_image_free(image);
	return false;
}

bool tables_publish(const struct snapshot *s, const char *run_dir, enum publish_tables how, FILE *errors, struct progress *p, uint64_t *ret_generation)
{
	struct tables_header live = { 0 };
	struct tables_image image;
	bool have = live_header(run_dir, &live);

	*ret_generation = live.generation;
	if (!have && getrandom(&live.seed, sizeof(live.seed), 0) != sizeof(live.seed))
		live.seed = clock_wall_ns();
	if (!tables_compile(s, live.seed, errors, p, &image))
		return false;
	if (how == TABLES_BY_COMMAND && generations_pin(run_dir, false) != ST_OK)
		return fail(errors, &image);
	if ((have && live.content == image.h.content) || (!have && !image.h.domains.n) || generations_pinned(run_dir)) {
		tables_image_free(&image);
		return true;
	}
	progress_tell(p, PROGRESS_WRITING, image.h.domains.n, image.h.domains.n);
	if (generations_write(run_dir, &image) != ST_OK || generations_switch(run_dir, image.h.generation) != ST_OK)
		return fail(errors, &image);
	*ret_generation = image.h.generation;
	tables_image_free(&image);
	generations_prune(run_dir, s->h->settings.tables_keep);
	return true;
}

enum status tables_rollback(const char *run_dir, uint64_t generation, uint64_t *ret_generation)
{
	uint64_t *all, current;
	int lock = generations_lock(run_dir);
	enum status st;
	size_t n;

	if (lock < 0)
		return ST_IO;
	current = tables_current(run_dir);
	n = generations_list(run_dir, &all);
	for (size_t i = 0; i < n && !generation; i++)
		if (all[n - 1 - i] < current)
			generation = all[n - 1 - i];
	free(all);
	st = generation ? ST_OK : trail(ST_NOT_FOUND, "there is no generation before %llu", (unsigned long long)current);
	/* pinned first: a kill in between leaves the old tables, not a rollback that the next start undoes */
	if (st == ST_OK)
		st = generations_pin(run_dir, true);
	if (st == ST_OK)
		st = generations_switch(run_dir, generation);
	close(lock);
	*ret_generation = generation;
	return st;
}
