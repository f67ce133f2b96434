#include "control/ask.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "spool/base/log.h"
#include "spool/store/command.h"

const char *row_value(struct span row, const char *key, char *buf, size_t cap)
{
	struct span k, v;

	while (row_next(&row, &k, &v, buf, cap - 1)) {
		buf[v.n] = '\0';
		if (span_eq(k, span_str(key)))
			return buf;
	}
	buf[0] = '\0';
	return buf;
}

/* Hands on the rows of a packet. Gives ST_AGAIN until the last row came. */
static enum status take_packet(struct span packet, unsigned worker, row_fn *fn, void *ctx)
{
	while (packet.n) {
		struct span row = span_cut(&packet, '\n');
		char buf[1024];

		if (row.n < 4 || memcmp(row.p, "end=", 4) != 0) {
			fn(ctx, worker, row);
			continue;
		}
		if (memcmp(row.p, "end=ok", 6) == 0)
			return ST_OK;
		return trail(ST_INVALID, "%s", row_value(row, "msg", buf, sizeof(buf)));
	}
	return ST_AGAIN;
}

enum status ask_worker_within(const char *run_dir, unsigned worker, struct span request, unsigned limit_s, row_fn *fn, void *ctx)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	struct timeval limit = { .tv_sec = limit_s };
	char *packet = malloc(COMMAND_PACKET);
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	int n = snprintf(a.sun_path, sizeof(a.sun_path), "%s/command-%u", run_dir, worker);
	enum status st = ST_AGAIN;
	ssize_t got;

	if (!packet || fd < 0 || n >= (int)sizeof(a.sun_path)) {
		st = trail(ST_IO, "no socket");
		goto out;
	}
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	if (connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0) {
		st = trail_errno(errno, "worker %u", worker);
		st = errno == EACCES ? ST_DENIED : ST_NOT_FOUND;
		goto out;
	}
	if (send(fd, request.p, request.n, MSG_NOSIGNAL) < 0) {
		st = trail_errno(errno, "worker %u", worker);
		goto out;
	}
	while (st == ST_AGAIN) {
		got = recv(fd, packet, COMMAND_PACKET, 0);
		if (got <= 0) {
			st = trail(ST_TIMEOUT, "worker %u does not answer", worker);
			break;
		}
		st = take_packet(span_of(packet, (size_t)got), worker, fn, ctx);
	}
out:
	if (fd >= 0)
		close(fd);
	free(packet);
	return st;
}

enum status ask_worker(const char *run_dir, unsigned worker, struct span request, row_fn *fn, void *ctx)
{
	return ask_worker_within(run_dir, worker, request, 5, fn, ctx);
}

static int compare(const void *a, const void *b)
{
	const unsigned *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

unsigned ask_workers(const char *run_dir, unsigned *ret, unsigned max)
{
	DIR *d = opendir(run_dir);
	struct dirent *e;
	unsigned n = 0;

	while (d && n < max && (e = readdir(d)))
		if (strncmp(e->d_name, "command-", 8) == 0)
			ret[n++] = (unsigned)atoi(e->d_name + 8);
	if (d)
		closedir(d);
	qsort(ret, n, sizeof(*ret), compare);
	return n;
}

enum status ask_control(const char *run_dir, const char *request, char *text, size_t cap)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	size_t n = 0;
	ssize_t got;

	snprintf(a.sun_path, sizeof(a.sun_path), "%.99s/control", run_dir);
	if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || send(fd, request, strlen(request), MSG_NOSIGNAL) < 0) {
		enum status st = trail_errno(errno, "weir-control does not answer");

		if (fd >= 0)
			close(fd);
		return st;
	}
	while (n < cap - 1 && (got = recv(fd, text + n, cap - 1 - n, 0)) > 0)
		n += (size_t)got;
	close(fd);
	text[n] = '\0';
	if (n < 3 || strcmp(text + n - 3, "ok\n") != 0 || (n > 3 && text[n - 4] != '\n'))
		return ST_INVALID;
	text[n - 3] = '\0';
	return ST_OK;
}
