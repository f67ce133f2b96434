#include "spool/store/check.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include "spool/store/internal.h"

struct checking {
	check_fn *fn;
	void *ctx;
	uint32_t segment;
	struct check_sums *sums;
};

static enum status on_record(void *p, const struct batch_header *b, const struct record_header *r, uint64_t off)
{
	struct checking *c = p;

	c->sums->records++;
	c->sums->messages += r->type == REC_MESSAGE;
	c->sums->outcomes += r->type == REC_OUTCOME;
	c->sums->done += r->type == REC_DONE;
	if (c->fn)
		c->fn(c->ctx, c->segment, off, b, r);
	return ST_OK;
}

static enum status read_file(const char *path, char **ret, size_t *ret_n)
{
	struct stat st;
	size_t n = 0;
	ssize_t got;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || fstat(fd, &st) < 0)
		return trail_errno(errno, "%s", path);
	*ret = malloc((size_t)st.st_size + 1);
	while (*ret && n < (size_t)st.st_size && (got = pread(fd, *ret + n, (size_t)st.st_size - n, (off_t)n)) > 0)
		n += (size_t)got;
	close(fd);
	*ret_n = n;
	return *ret ? ST_OK : ST_NOMEM;
}

static enum status check_segment(struct checking *c, const char *path)
{
	struct seg_header h;
	struct batch_header b;
	char *buf = NULL;
	size_t n = 0, hole = 0;
	enum status st = read_file(path, &buf, &n);

	if (st != ST_OK)
		return st;
	c->sums->segments++;
	c->sums->bytes += n;
	if (n < BLOCK || !seg_header_ok(buf, &h)) {
		free(buf);
		return ST_OK;
	}
	c->sums->claimed++;
	if (h.version != FORMAT_VERSION || h.incompatible) {
		free(buf);
		return trail(ST_UNSUPPORTED, "%s has format %u with features %x, this program knows format %d", path, h.version, h.incompatible,
			FORMAT_VERSION);
	}
	for (uint64_t off = BLOCK; off + BLOCK <= n;) {
		uint32_t len = batch_parse(buf + off, n - off, h.generation, off, on_record, c, &b);

		if (len && hole)
			c->sums->holes++;
		hole = !len;
		c->sums->batches += len != 0;
		off += len ? len : BLOCK;
	}
	free(buf);
	return ST_OK;
}

enum status store_check(const char *dir, check_fn *fn, void *ctx, struct check_sums *ret)
{
	struct checking c = { .fn = fn, .ctx = ctx, .sums = ret };
	enum status st = ST_OK;
	char path[4096];

	*ret = (struct check_sums){ 0 };
	for (c.segment = 0; st == ST_OK; c.segment++) {
		snprintf(path, sizeof(path), "%s/seg-%08x", dir, c.segment);
		if (access(path, F_OK) < 0)
			break;
		st = check_segment(&c, path);
	}
	if (st == ST_OK && !ret->segments)
		return trail(ST_NOT_FOUND, "%s has no segments: it is not a partition's directory", dir);
	return st;
}
