#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>
#include "scanner/engine.h"

static long read_segment(const struct scan_input *in, const struct scan_piece *p, uint64_t skip, void *buf, size_t len)
{
	char name[64];
	long n;
	int fd;

	snprintf(name, sizeof(name), "p%u/seg-%08x", p->partition, p->segment);
	fd = openat(in->spool_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return -1;
	n = pread(fd, buf, len, (off_t)(p->off + skip));
	close(fd);
	return n;
}

long scan_read(const struct scan_input *in, uint64_t off, void *buf, size_t len)
{
	size_t done = 0;
	uint64_t at = 0;

	for (uint32_t i = 0; i < in->npieces && done < len; at += in->piece[i++].len) {
		const struct scan_piece *p = &in->piece[i];
		uint64_t skip = off + done - at;
		size_t n;

		if (off + done >= at + p->len)
			continue;
		n = p->len - (size_t)skip < len - done ? p->len - (size_t)skip : len - done;
		if (p->partition == SCAN_PIECE_ARENA)
			memcpy((char *)buf + done, in->arena + p->off + skip, n);
		else if (read_segment(in, p, skip, (char *)buf + done, n) != (long)n)
			return -1;
		done += n;
	}
	return (long)done;
}
