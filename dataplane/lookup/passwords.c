#include "dataplane/lookup/passwords.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/queue.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include "dataplane/lookup/passtable.h"
#include "spool/base/clock.h"
#include "spool/base/file.h"
#include "spool/base/thread.h"

enum { SECRET_MIN = 16, HELPER_NICE = 5 };
#define UNSETTLED_NS (2 * NS_PER_S)

struct password_check {
	STAILQ_ENTRY(password_check) entry;
	struct passwords *p;
	password_fn *fn;  /* NULL: cancelled */
	void *ctx;
	bool queued;      /* not taken by the helper yet; under the lock */
	bool decoy, good;
	size_t password_len;
	struct passentry against;
	char password[PASSLINE_PASSWORD_MAX + 1];
};

STAILQ_HEAD(checks, password_check);

struct passwords {
	struct uring *uring;
	uint8_t key[SCRAM_KEY];
	struct passtable *table; /* NULL: none was ever read */
	struct passwords_state state;
	/* what the file was when last read */
	char path[4096];
	struct stat seen;
	uint8_t digest[SCRAM_KEY];
	/* the helper: everything between it and us is under the lock */
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t work;
	struct checks todo, done;
	unsigned ntodo;
	bool stop;
	int fd;          /* eventfd: something is done */
	uint64_t wakes;  /* where its count is read to */
};

/* ---- the helper thread ---- */

static void *helper(void *arg)
{
	struct passwords *p = arg;

	setpriority(PRIO_PROCESS, (id_t)gettid(), HELPER_NICE); /* mail that flows comes before logins */
	pthread_mutex_lock(&p->lock);
	for (;;) {
		struct password_check *c = STAILQ_FIRST(&p->todo);
		uint64_t one = 1;

		if (p->stop)
			break;
		if (!c) {
			pthread_cond_wait(&p->work, &p->lock);
			continue;
		}
		STAILQ_REMOVE_HEAD(&p->todo, entry);
		p->ntodo--;
		c->queued = false;
		pthread_mutex_unlock(&p->lock);
		c->good = passline_check(c->against.hash, &c->against.scram, c->password, c->password_len) && !c->decoy;
		explicit_bzero(c->password, sizeof(c->password));
		pthread_mutex_lock(&p->lock);
		STAILQ_INSERT_TAIL(&p->done, c, entry);
		if (write(p->fd, &one, sizeof(one)) < 0 && errno != EAGAIN)
			break; /* cannot be: an eventfd takes it */
	}
	pthread_mutex_unlock(&p->lock);
	return NULL;
}

static void check_free(struct password_check *c)
{
	explicit_bzero(c, sizeof(*c));
	free(c);
}

static void wait_for_wake(struct passwords *p)
{
	struct io_uring_sqe *sqe = uring_sqe(p->uring);

	io_uring_prep_read(sqe, p->fd, &p->wakes, sizeof(p->wakes), 0);
	uring_tag(sqe, URING_PASSWORDS, 0, 0, 0);
}

static void on_wake(void *ctx, const struct uring_event *ev)
{
	struct passwords *p = ctx;
	struct checks done = STAILQ_HEAD_INITIALIZER(done);
	struct password_check *c;

	(void)ev;
	pthread_mutex_lock(&p->lock);
	STAILQ_CONCAT(&done, &p->done);
	pthread_mutex_unlock(&p->lock);
	wait_for_wake(p);
	while ((c = STAILQ_FIRST(&done))) {
		STAILQ_REMOVE_HEAD(&done, entry);
		if (c->fn)
			c->fn(c->ctx, c->good);
		check_free(c);
	}
}

/* ---- the secret ---- */

/* Another worker may be making it: who links first has made it. */
static enum status make_secret(const char *path)
{
	uint8_t bytes[SCRAM_KEY];
	char temp[4200];
	bool ok;
	int fd;

	snprintf(temp, sizeof(temp), "%s.%d", path, (int)getpid());
	unlink(temp);
	fd = open(temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return trail_errno(errno, "%s", temp);
	ok = getrandom(bytes, sizeof(bytes), 0) == sizeof(bytes) && write(fd, bytes, sizeof(bytes)) == sizeof(bytes) && fsync(fd) == 0;
	close(fd);
	ok = ok && (link(temp, path) == 0 || errno == EEXIST);
	unlink(temp);
	return ok ? ST_OK : trail_errno(errno, "%s", path);
}

static enum status read_secret(const char *path, uint8_t key[SCRAM_KEY])
{
	static const uint8_t none[SCRAM_KEY];
	char bytes[4096];
	ssize_t n;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	enum status st;

	if (fd < 0 && errno == ENOENT) {
		st = make_secret(path);
		if (st != ST_OK)
			return st;
		fd = open(path, O_RDONLY | O_CLOEXEC);
	}
	if (fd < 0)
		return trail_errno(errno, "%s", path);
	n = read(fd, bytes, sizeof(bytes));
	close(fd);
	if (n < SECRET_MIN)
		return trail(ST_INVALID, "%s must have at least %d octets", path, SECRET_MIN);
	scram_hmac(none, span_of(bytes, (size_t)n), key);
	explicit_bzero(bytes, sizeof(bytes));
	return ST_OK;
}

/* ---- begin and end ---- */

enum status passwords_new(struct uring *u, const char *secret_file, struct passwords **ret)
{
	struct passwords *p = calloc(1, sizeof(*p));
	enum status st = p ? read_secret(secret_file, p->key) : ST_NOMEM;

	if (st != ST_OK) {
		free(p);
		return st;
	}
	p->uring = u;
	STAILQ_INIT(&p->todo);
	STAILQ_INIT(&p->done);
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->work, NULL);
	p->fd = eventfd(0, EFD_CLOEXEC);
	st = p->fd < 0 ? trail_errno(errno, "eventfd") : thread_start(&p->thread, helper, p);
	if (st != ST_OK) {
		if (p->fd >= 0)
			close(p->fd);
		free(p);
		return st;
	}
	uring_handle(u, URING_PASSWORDS, on_wake, p);
	wait_for_wake(p);
	*ret = p;
	return ST_OK;
}

static void free_all(struct checks *list)
{
	struct password_check *c;

	while ((c = STAILQ_FIRST(list))) {
		STAILQ_REMOVE_HEAD(list, entry);
		check_free(c);
	}
}

void passwords_free(struct passwords *p)
{
	if (!p)
		return;
	pthread_mutex_lock(&p->lock);
	p->stop = true;
	pthread_cond_signal(&p->work);
	pthread_mutex_unlock(&p->lock);
	pthread_join(p->thread, NULL);
	uring_handle(p->uring, URING_PASSWORDS, NULL, NULL);
	free_all(&p->todo);
	free_all(&p->done);
	passtable_free(p->table);
	close(p->fd);
	explicit_bzero(p->key, sizeof(p->key));
	free(p);
}

/* ---- the file ---- */

static bool is_same(const struct passwords *p, const char *path, const struct stat *st)
{
	return strcmp(p->path, path) == 0 && st->st_dev == p->seen.st_dev && st->st_ino == p->seen.st_ino && st->st_size == p->seen.st_size &&
		st->st_mtim.tv_sec == p->seen.st_mtim.tv_sec && st->st_mtim.tv_nsec == p->seen.st_mtim.tv_nsec;
}

static enum status load(struct passwords *p, const char *path, passwords_complain_fn *complain, void *ctx)
{
	uint8_t digest[SCRAM_KEY];
	struct passtable *t = NULL;
	struct stat seen = { 0 };
	char *bytes;
	size_t n;
	enum status st = file_read(path, PASSLINE_FILE_MAX, &seen, &bytes, &n);

	if (st != ST_OK)
		return st;
	scram_hmac(p->key, span_of(bytes, n), digest);
	if (!p->table || strcmp(path, p->path) != 0 || memcmp(digest, p->digest, sizeof(digest)) != 0)
		st = passtable_new(span_of(bytes, n), path, complain, ctx, &t);
	explicit_bzero(bytes, n);
	free(bytes);
	if (st != ST_OK)
		return st;
	if (t) {
		passtable_free(p->table);
		p->table = t;
		passtable_state(t, &p->state);
		memcpy(p->digest, digest, sizeof(digest));
	}
	p->seen = seen;
	/* a file that was changed just now may be changed again within the same tick of its clock: it is read once more */
	if (clock_wall_ns() - ((uint64_t)seen.st_mtim.tv_sec * NS_PER_S + (uint64_t)seen.st_mtim.tv_nsec) < UNSETTLED_NS)
		p->seen.st_mtim.tv_nsec = -1;
	return ST_OK;
}

static void forget(struct passwords *p)
{
	passtable_free(p->table);
	p->table = NULL;
	p->path[0] = '\0';
	p->state = (struct passwords_state){ 0 };
}

void passwords_watch(struct passwords *p, const char *path, passwords_complain_fn *complain, void *ctx)
{
	struct stat st;
	bool was_readable = p->state.readable || strcmp(p->path, path) != 0;

	if (!*path) {
		forget(p);
		return;
	}
	if (stat(path, &st) == 0 && p->state.readable && is_same(p, path, &st))
		return;
	p->state.readable = load(p, path, complain, ctx) == ST_OK;
	if (!p->state.readable && was_readable)
		complain(ctx, path, 0, trail_text()); /* once, not every second */
	snprintf(p->path, sizeof(p->path), "%s", path);
}

struct passwords_state passwords_state(const struct passwords *p)
{
	return p->state;
}

/* ---- questions ---- */

enum status passwords_check(struct passwords *p, struct span user, struct span password, password_fn *fn, void *ctx, struct password_check **ret)
{
	struct password_check *c;
	struct out o;
	bool full;

	if (!p->table)
		return trail(ST_CLOSED, "the password file cannot be read");
	c = calloc(1, sizeof(*c));
	if (!c)
		return ST_NOMEM;
	c->p = p;
	c->fn = fn;
	c->ctx = ctx;
	o = out_of(c->password, sizeof(c->password) - 1);
	out_add(&o, password);
	c->password_len = o.n;
	passtable_find(p->table, p->key, user, false, &c->against, &c->decoy);
	pthread_mutex_lock(&p->lock);
	full = p->ntodo >= PASSWORDS_QUEUE_MAX;
	if (!full) {
		c->queued = true;
		p->ntodo++;
		STAILQ_INSERT_TAIL(&p->todo, c, entry);
		pthread_cond_signal(&p->work);
	}
	pthread_mutex_unlock(&p->lock);
	if (full) {
		check_free(c);
		return trail(ST_FULL, "too many passwords wait for their check");
	}
	*ret = c;
	return ST_OK;
}

void passwords_cancel(struct password_check *c)
{
	struct passwords *p = c->p;
	bool queued;

	c->fn = NULL;
	pthread_mutex_lock(&p->lock);
	queued = c->queued;
	if (queued) {
		STAILQ_REMOVE(&p->todo, c, password_check, entry);
		p->ntodo--;
	}
	pthread_mutex_unlock(&p->lock);
	if (queued)
		check_free(c);
}

enum status passwords_verifier(struct passwords *p, struct span user, struct scram_verifier *ret, bool *ret_decoy)
{
	struct passentry e;

	if (!p->table)
		return trail(ST_CLOSED, "the password file cannot be read");
	passtable_find(p->table, p->key, user, true, &e, ret_decoy);
	*ret = e.scram;
	explicit_bzero(&e, sizeof(e));
	return ST_OK;
}
