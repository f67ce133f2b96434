#include "spool/store/check.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include "spool/base/hash.h"
#include "spool/store/internal.h"

struct checking {
	check_fn *fn;
	void *ctx;
	uint32_t segment;
	uint64_t off; /* of the batch */
	struct check_sums *sums;
};

static enum status on_record(void *p, const struct batch_header *b, const struct record_header *r, size_t rel)
{
	struct checking *c = p;

	c->sums->records++;
	c->sums->messages += r->type == REC_MESSAGE;
	c->sums->outcomes += r->type == REC_OUTCOME;
	c->sums->done += r->type == REC_DONE;
	if (c->fn)
		c->fn(c->ctx, c->segment, c->off + rel, b, r);
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

static enum status check_batches(struct checking *c, const char *buf, size_t n, uint64_t generation)
{
	struct batch_header b;
	uint64_t last = 0;
	bool hole = false;
	enum status st = ST_OK;

	for (c->off = BLOCK; c->off + BLOCK <= n && st == ST_OK;) {
		uint32_t len = batch_valid(buf + c->off, n - c->off, generation, &b);

		if (!len) {
			hole = true;
			c->off += BLOCK;
			continue;
		}
		if (hole && b.durable > last) /* what stood there was durable when this batch was made */
			c->sums->holes++;
		hole = false;
		last = b.seq;
		c->sums->batches++;
		st = batch_records(buf + c->off, &b, on_record, c);
		c->off += len;
	}
	return st;
}

static enum status check_segment(struct checking *c, const char *path)
{
	struct seg_header h;
	char *buf = NULL;
	size_t n = 0;
	enum status st = read_file(path, &buf, &n);

	if (st != ST_OK)
		return st;
	c->sums->segments++;
	c->sums->bytes += n;
	switch (n < BLOCK ? HEADER_NONE : seg_header_read(buf, &h)) {
	case HEADER_NONE:
		break;
	case HEADER_DAMAGED:
		c->sums->claimed++;
		c->sums->holes++;
		break;
	case HEADER_UNKNOWN:
		st = trail(ST_UNSUPPORTED, "%s has format %u with features %x, this program knows formats %d to %d", path, h.version, h.incompatible,
			FORMAT_OLDEST, FORMAT_VERSION);
		break;
	case HEADER_OK:
		c->sums->claimed++;
		c->sums->cold += h.stream == STREAM_COLD;
		st = check_batches(c, buf, n, h.generation);
		break;
	}
	free(buf);
	return st;
}

/* A checkpoint that is being written, or was when the power went, is no damage: the other file counts then. */
static enum status check_checkpoint(struct check_sums *sums, const char *path)
{
	struct checkpoint_header h;
	char *buf = NULL;
	size_t n = 0;
	enum status st = access(path, F_OK) < 0 ? ST_NOT_FOUND : read_file(path, &buf, &n);

	if (st == ST_OK && n >= BLOCK) {
		memcpy(&h, buf, sizeof(h));
		if (h.magic == CHECKPOINT_MAGIC && h.checksum == XXH3_64bits(&h, offsetof(struct checkpoint_header, checksum)) &&
			h.bytes <= n - BLOCK && XXH3_64bits(buf + BLOCK, h.bytes) == h.data_checksum && h.number > sums->checkpoint) {
			sums->checkpoint = h.number;
			sums->checkpoint_entries = h.nentries;
		}
	}
	free(buf);
	return st == ST_NOT_FOUND ? ST_OK : st;
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
	for (unsigned i = 0; i < 2 && st == ST_OK; i++) {
		snprintf(path, sizeof(path), "%s/checkpoint-%u", dir, i);
		st = check_checkpoint(ret, path);
	}
	if (st == ST_OK && !ret->segments)
		return trail(ST_NOT_FOUND, "%s has no segments: it is not a partition's directory", dir);
	return st;
}
