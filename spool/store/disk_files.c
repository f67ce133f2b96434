/* Real files over io_uring. */
#include "spool/store/disk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include "spool/base/uring.h"

/* One read of recovery: long, so that the disk has a queue of it; below what one call may do at the most (2 GiB). */
enum { READ_MAX = 64 << 20 };

struct disk_file {
	struct disk_file *next;
	int fd;
};

struct files {
	struct disk disk; /* first */
	struct uring *uring;
	char *dir;
	int dir_fd, lock_fd;
	bool lent;
	struct disk_file *open;
};

static enum status files_lock(struct disk *d)
{
	struct files *f = (struct files *)d;
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

	f->lock_fd = openat(f->dir_fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (f->lock_fd < 0)
		return trail_errno(errno, "%s/lock", f->dir);
	if (fcntl(f->lock_fd, F_OFD_SETLK, &lock) < 0)
		return trail(ST_EXISTS, "%s is in use by another process", f->dir);
	return ST_OK;
}

static enum status files_open(struct disk *d, const char *name, bool make, struct disk_file **ret, uint64_t *ret_bytes)
{
	struct files *f = (struct files *)d;
	int flags = O_RDWR | O_CLOEXEC | (make ? O_CREAT : 0), fd;
	struct disk_file *file;
	struct stat st;

	fd = openat(f->dir_fd, name, flags | (d->direct ? O_DIRECT : 0), 0600);
	if (fd < 0 && d->direct && errno == EINVAL) { /* a file system without it */
		d->direct = false;
		fd = openat(f->dir_fd, name, flags, 0600);
	}
	if (fd < 0)
		return errno == ENOENT ? trail(ST_NOT_FOUND, "%s/%s", f->dir, name) : trail_errno(errno, "%s/%s", f->dir, name);
	file = malloc(sizeof(*file));
	if (!file || fstat(fd, &st) < 0) {
		free(file);
		close(fd);
		return ST_NOMEM;
	}
	*file = (struct disk_file){ .next = f->open, .fd = fd };
	f->open = file;
	*ret = file;
	*ret_bytes = (uint64_t)st.st_size;
	return ST_OK;
}

static void files_remove(struct disk *d, const char *name, struct disk_file *file)
{
	struct files *f = (struct files *)d;
	struct disk_file **at = &f->open;

	unlinkat(f->dir_fd, name, 0);
	while (*at && *at != file)
		at = &(*at)->next;
	if (*at)
		*at = file->next;
	close(file->fd);
	free(file);
}

static void files_begin(struct disk *d, const struct disk_io *io)
{
	struct files *f = (struct files *)d;
	struct io_uring_sqe *sqe = uring_sqe(f->uring);

	switch (io->kind) {
	case DISK_READ:
		io_uring_prep_read(sqe, io->file->fd, io->p, io->n, io->off);
		break;
	case DISK_WRITE:
		if (io->registered >= 0)
			io_uring_prep_write_fixed(sqe, io->file->fd, io->p, io->n, io->off, io->registered);
		else
			io_uring_prep_write(sqe, io->file->fd, io->p, io->n, io->off);
		break;
	case DISK_DATASYNC:
		io_uring_prep_fsync(sqe, io->file->fd, IORING_FSYNC_DATASYNC);
		break;
	case DISK_SYNC:
		io_uring_prep_fsync(sqe, io->file->fd, 0);
		break;
	case DISK_SYNC_DIR:
		io_uring_prep_fsync(sqe, f->dir_fd, 0);
		break;
	}
	uring_tag(sqe, URING_STORE, io->tag.op, io->tag.slot, io->tag.gen);
}

static enum status files_read(struct disk *d, struct disk_file *file, void *p, size_t n, uint64_t off)
{
	for (size_t at = 0; at < n;) {
		ssize_t got = pread(file->fd, (char *)p + at, n - at > READ_MAX ? READ_MAX : n - at, (off_t)(off + at));

		if (got <= 0)
			return trail_errno(got < 0 ? errno : EIO, "reading %s", ((struct files *)d)->dir);
		at += (size_t)got;
	}
	return ST_OK;
}

static enum status files_write(struct disk *d, struct disk_file *file, const void *p, size_t n, uint64_t off)
{
	for (size_t at = 0; at < n;) {
		ssize_t put = pwrite(file->fd, (const char *)p + at, n - at, (off_t)(off + at));

		if (put <= 0)
			return trail_errno(put < 0 ? errno : ENOSPC, "writing %s", ((struct files *)d)->dir);
		at += (size_t)put;
	}
	return ST_OK;
}

static enum status files_sync(struct disk *d, struct disk_file *file)
{
	struct files *f = (struct files *)d;

	return fsync(file ? file->fd : f->dir_fd) < 0 ? trail_errno(errno, "flushing %s", f->dir) : ST_OK;
}

static enum status files_wait(struct disk *d, uint64_t timeout_ns)
{
	return uring_wait(((struct files *)d)->uring, timeout_ns);
}

static void files_lend(struct disk *d, const struct iovec *iov, unsigned n)
{
	struct files *f = (struct files *)d;

	f->lent = io_uring_register_buffers(&f->uring->ring, iov, n) == 0;
	d->registered = f->lent;
}

static uint64_t files_room(struct disk *d)
{
	struct statvfs v;

	return fstatvfs(((struct files *)d)->dir_fd, &v) < 0 ? UINT64_MAX : (uint64_t)v.f_bavail * v.f_frsize;
}

static void files_free(struct disk *d)
{
	struct files *f = (struct files *)d;
	struct disk_file *file;

	while ((file = f->open)) {
		f->open = file->next;
		close(file->fd);
		free(file);
	}
	if (f->lent)
		io_uring_unregister_buffers(&f->uring->ring);
	if (f->lock_fd >= 0)
		close(f->lock_fd);
	if (f->dir_fd >= 0)
		close(f->dir_fd);
	free(f->dir);
	free(f);
}

static const struct disk_ops files_ops = { .lock = files_lock, .open = files_open, .remove = files_remove, .begin = files_begin,
	.read = files_read, .write = files_write, .sync = files_sync, .wait = files_wait, .lend = files_lend, .room = files_room, .free = files_free };

enum status disk_files_new(struct uring *u, const char *dir, bool direct, struct disk **ret)
{
	struct files *f = calloc(1, sizeof(*f));
	enum status st;

	if (!f)
		return ST_NOMEM;
	f->disk = (struct disk){ .ops = &files_ops, .direct = direct };
	f->uring = u;
	f->dir_fd = f->lock_fd = -1;
	f->dir = strdup(dir);
	if (!f->dir || (mkdir(dir, 0700) < 0 && errno != EEXIST) || (f->dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0) {
		st = trail_errno(errno, "%s", dir);
		files_free(&f->disk);
		return st;
	}
	*ret = &f->disk;
	return ST_OK;
}
