#include "spool/base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static enum status read_all(int fd, size_t size, char **ret, size_t *ret_n)
{
	char *bytes = malloc(size + 1);
	size_t n = 0;
	ssize_t got = 0;

	if (!bytes)
		return trail(ST_NOMEM, "out of memory");
	while (n < size && (got = read(fd, bytes + n, size - n)) > 0)
		n += (size_t)got;
	if (got < 0) {
		enum status st = trail(ST_IO, "%s", strerror(errno));

		free(bytes);
		return st;
	}
	*ret = bytes;
	*ret_n = n;
	return ST_OK;
}

enum status file_read(const char *path, size_t max, struct stat *ret_stat, char **ret, size_t *ret_n)
{
	int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC); /* a pipe that nobody writes is "not a file", too */
	struct stat sb;
	enum status st;

	if (fd < 0 || fstat(fd, &sb) < 0)
		st = trail(ST_IO, "%s", strerror(errno));
	else if (!S_ISREG(sb.st_mode))
		st = trail(ST_INVALID, "not a file");
	else if ((size_t)sb.st_size > max)
		st = trail(ST_TOO_BIG, "larger than %zu MiB", max >> 20);
	else
		st = read_all(fd, (size_t)sb.st_size, ret, ret_n);
	if (st == ST_OK && ret_stat)
		*ret_stat = sb;
	if (fd >= 0)
		close(fd);
	return st;
}
