/* The spool's only way to a disk: files of one directory, read, written and flushed without waiting. Two things are behind it: real files over io_uring
 * (disk_files.c), and in tests a simulated disk that drops, reorders, tears and fails.
 *
 * Owner: one store. Thread: one. What is begun with disk_begin ends as a URING_STORE event with the tag's op, slot and gen: the bytes done, or -errno. Order is by
 * completion only: what must come after something is begun after that one's end. */
#ifndef WEIR_SPOOL_STORE_DISK_H
#define WEIR_SPOOL_STORE_DISK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>
#include "spool/base/status.h"

struct uring;
struct disk_file;

enum disk_kind {
	DISK_READ,
	DISK_WRITE,
	DISK_DATASYNC, /* contents, and the length when it grew */
	DISK_SYNC,
	DISK_SYNC_DIR, /* names made or removed; file is NULL */
};

struct disk_tag {
	uint8_t op;
	uint32_t slot, gen; /* 24 bits each */
};

struct disk_io {
	enum disk_kind kind;
	struct disk_file *file;
	void *p;            /* aligned to BLOCK, as are n and off; must stay until the end of the operation */
	uint32_t n;
	uint64_t off;
	int registered;     /* which of the registered buffers p lies in, or -1 */
	struct disk_tag tag;
};

struct disk {
	const struct disk_ops *ops;
	bool direct;     /* past the page cache */
	bool registered; /* buffers are registered with the kernel */
};

struct disk_ops {
	/* Exclusive use of the directory. ST_EXISTS: somebody else has it. */
	enum status (*lock)(struct disk *d);
	/* ST_NOT_FOUND when it is not there and is not to be made. A file stays open until disk_free. */
	enum status (*open)(struct disk *d, const char *name, bool make, struct disk_file **ret, uint64_t *ret_bytes);
	/* Removes the file and its name. */
	void (*remove)(struct disk *d, const char *name, struct disk_file *f);
	void (*begin)(struct disk *d, const struct disk_io *io);
	/* These wait: for the start, when nothing else goes on. All of n or ST_IO. */
	enum status (*read)(struct disk *d, struct disk_file *f, void *p, size_t n, uint64_t off);
	enum status (*write)(struct disk *d, struct disk_file *f, const void *p, size_t n, uint64_t off);
	enum status (*sync)(struct disk *d, struct disk_file *f); /* NULL: the directory */
	/* Waits for completions up to timeout_ns and hands them out. */
	enum status (*wait)(struct disk *d, uint64_t timeout_ns);
	/* Buffers that are written from often. Sets registered when the kernel takes them. */
	void (*lend)(struct disk *d, const struct iovec *iov, unsigned n);
	/* Bytes that new files may still take. NULL: nobody knows. */
	uint64_t (*room)(struct disk *d);
	void (*free)(struct disk *d);
};

/* The directory is made when missing, mode 0700. direct: try O_DIRECT. */
enum status disk_files_new(struct uring *u, const char *dir, bool direct, struct disk **ret);

#endif
