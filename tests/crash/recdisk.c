/* A disk that remembers: a file system of one file, "disk", below which every write and every flush is recorded in the order of their completion.
 *
 * recdisk IMAGE RECORD POSITION MOUNTPOINT
 *
 * IMAGE is what the disk holds at the beginning, changed in place. RECORD gets struct recorded and its bytes for each operation. POSITION holds the number of operations
 * that are recorded as a native uint64_t: a program that maps it can say when it was told something. Stays in the foreground until it is unmounted. One thread: what
 * is recorded before a flush was complete when that flush was. */
#define FUSE_USE_VERSION 35
#include <errno.h>
#include <fcntl.h>
#include <fuse.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { OP_DATA = 1, OP_BARRIER = 2 };

struct recorded {
	uint64_t op, off, len; /* then len bytes */
};

static int image, record;
static off_t image_bytes;
static _Atomic uint64_t *position;

static void append(struct recorded r, const void *p)
{
	struct iovec iov[2] = { { &r, sizeof(r) }, { (void *)(uintptr_t)p, r.len } };

	if (writev(record, iov, p ? 2 : 1) != (ssize_t)(sizeof(r) + r.len)) {
		perror("recording");
		exit(1);
	}
	atomic_fetch_add(position, 1);
}

static int disk_getattr(const char *path, struct stat *st, struct fuse_file_info *fi)
{
	memset(st, 0, sizeof(*st));
	if (strcmp(path, "/") == 0) {
		st->st_mode = S_IFDIR | 0700;
		st->st_nlink = 2;
		return 0;
	}
	if (strcmp(path, "/disk") != 0)
		return -ENOENT;
	st->st_mode = S_IFREG | 0600;
	st->st_nlink = 1;
	st->st_size = image_bytes;
	return 0;
}

static int disk_open(const char *path, struct fuse_file_info *fi)
{
	fi->direct_io = 1; /* nothing is kept above us */
	return strcmp(path, "/disk") == 0 ? 0 : -ENOENT;
}

static int disk_read(const char *path, char *p, size_t n, off_t off, struct fuse_file_info *fi)
{
	ssize_t got = pread(image, p, n, off);

	return got < 0 ? -errno : (int)got;
}

static int disk_write(const char *path, const char *p, size_t n, off_t off, struct fuse_file_info *fi)
{
	if (off + (off_t)n > image_bytes)
		return -ENOSPC;
	if (pwrite(image, p, n, off) != (ssize_t)n)
		return -EIO;
	append((struct recorded){ .op = OP_DATA, .off = (uint64_t)off, .len = n }, p);
	return (int)n;
}

static int disk_fsync(const char *path, int data_only, struct fuse_file_info *fi)
{
	append((struct recorded){ .op = OP_BARRIER }, NULL);
	return 0;
}

static void *disk_init(struct fuse_conn_info *conn, struct fuse_config *config)
{
	conn->max_write = 1024 * 1024;
	return NULL;
}

static const struct fuse_operations operations = { .getattr = disk_getattr, .open = disk_open, .read = disk_read, .write = disk_write,
	.fsync = disk_fsync, .init = disk_init };

static int open_all(char **path)
{
	int at = open(path[2], O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	struct stat st;

	image = open(path[0], O_RDWR | O_CLOEXEC);
	record = open(path[1], O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
	if (image < 0 || record < 0 || at < 0 || fstat(image, &st) < 0 || ftruncate(at, sizeof(*position)) < 0)
		return -1;
	image_bytes = st.st_size;
	position = mmap(NULL, sizeof(*position), PROT_READ | PROT_WRITE, MAP_SHARED, at, 0);
	return position == MAP_FAILED ? -1 : 0;
}

int main(int argc, char **argv)
{
	if (argc != 5) {
		fputs("usage: recdisk IMAGE RECORD POSITION MOUNTPOINT\n", stderr);
		return 2;
	}
	if (open_all(argv + 1) < 0) {
		perror("recdisk");
		return 1;
	}
	return fuse_main(4, ((char *[]){ argv[0], "-f", "-s", argv[4], NULL }), &operations, NULL);
}
