#include "control/publish.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <unistd.h>
#include "control/compile.h"
#include "control/holds.h"
#include "control/model_clients.h"
#include "control/schema.h"
#include "control/tls_keys.h"
#include "spool/base/clock.h"
#include "spool/base/counters.h"
#include "spool/base/log.h"

/* AGAIN_NS: after a compiler that died, which is not for the files to be mended. */
#define AGAIN_NS (10 * NS_PER_S)

enum kind { KIND_TABLES, KIND_CONFIG, KIND_START, KIND_NONE };

struct waiter {
	TAILQ_ENTRY(waiter) entry;
	int fd;
	char *good, *bad; /* NULL: none */
};
TAILQ_HEAD(waiters, waiter);

/* What is asked for and not begun, by kind. */
static struct wish {
	bool is;
	enum publish_tables how;
	char by[80];
	struct waiters waiters;
} wish[2];

/* The one that is under way. */
static struct {
	enum kind kind;
	struct wish w;
	struct model m;   /* not of tables: what is to be published */
	bool made, published, failed;
	char *text;       /* errors and warnings, so far */
	size_t text_len;
	FILE *errors;
	uint64_t began_ns;
} job = { .kind = KIND_NONE };

static const char *config, *run;
static enum kind last = KIND_NONE;
static uint64_t changed_ns;    /* since when a change waits for its compilation; 0: none does */
static uint64_t not_before_ns; /* for a change */
static uint64_t took_ns;       /* how long the last one took: no more than a sixth of the time is spent on changes that come one upon another */
static bool is_other;          /* another configuration is published since the last turn */
static bool hopeless;

/* ---- answers ---- */

static void say(int fd, const char *text)
{
	size_t n = text ? strlen(text) : 0;

	/* one who went away, or does not read, gets no answer */
	if (n && send(fd, text, n, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		log_msg(LOG_LVL_DEBUG, "control-socket", "%s", strerror(errno));
}

/* Where nobody waits for an answer. At the start somebody may look on. */
static void tell(enum kind kind, const char *text)
{
	struct span rest = span_str(text);

	if (kind == KIND_START) {
		fputs(text, stderr);
		return;
	}
	while (rest.n) {
		struct span line = span_cut(&rest, '\n');

		log_msg(LOG_LVL_ERROR, kind == KIND_TABLES ? "tables" : "configuration-error", "%.*s", SPAN_FMT(line));
	}
}

static void answer(struct waiter *w, bool ok, const char *text)
{
	char generation[40];

	snprintf(generation, sizeof(generation), "generation %llu\n", (unsigned long long)tables_current(run));
	say(w->fd, text);
	if (ok)
		say(w->fd, w->good ? w->good : generation);
	else
		say(w->fd, w->bad);
	if (ok)
		say(w->fd, "ok\n");
	close(w->fd);
	free(w->good);
	free(w->bad);
	free(w);
}

static void answer_all(struct wish *w, bool ok, const char *text)
{
	struct waiter *one;

	while ((one = TAILQ_FIRST(&w->waiters))) {
		TAILQ_REMOVE(&w->waiters, one, entry);
		answer(one, ok, text);
	}
}

/* ---- publishing a configuration ---- */

static void snapshot_path(char *path, size_t n)
{
	snprintf(path, n, "%s/snapshot", run);
}

uint64_t publish_generation(void)
{
	char path[4200];
	struct snapshot s;
	uint64_t g;

	snapshot_path(path, sizeof(path));
	if (snapshot_open(path, &s) != ST_OK)
		return 0;
	g = s.h->generation;
	snapshot_close(&s);
	return g;
}

static struct snapshot in_the_making(const struct model *m)
{
	return (struct snapshot){ .h = (const struct snap_header *)(const void *)m->bytes, .bytes = m->n };
}

/* The registry of clients may have changed while tables were compiled, and with it the generation (A3). */
static bool take_registry(struct model *m, uint64_t generation, FILE *errors)
{
	const struct snapshot s = in_the_making(m);
	struct model made;
	char *text;
	size_t n;
	bool ok;

	if (s.h->generation == generation)
		return true;
	if (registry_text(&s, &text, &n) != ST_OK) {
		fprintf(errors, "%s\n", trail_text());
		return false;
	}
	ok = registry_replace(&made, &s, span_of(text, text ? n : 0), errors);
	free(text);
	if (!ok) {
		free(made.bytes);
		return false;
	}
	model_seal(&made, generation);
	free(m->bytes);
	*m = made;
	return true;
}

static bool publish_model(struct model *m, FILE *errors)
{
	uint64_t generation = publish_generation() + 1;
	struct snapshot s;

	if (!take_registry(m, generation, errors))
		return false;
	s = in_the_making(m);
	if (!tls_keys_publish(&s, run, errors))
		return false;
	holds_prune(m);
	if (model_publish(m, run) != ST_OK) {
		fprintf(errors, "%s\n", trail_text());
		return false;
	}
	counter_set(C_SNAPSHOT_GENERATION, generation);
	log_msg(LOG_LVL_INFO, "published", "generation %llu", (unsigned long long)generation);
	is_other = true;
	return true;
}

/* ---- the job ---- */

static void job_publish(void)
{
	if (job.kind == KIND_TABLES || job.published)
		return;
	job.published = publish_model(&job.m, job.errors);
	job.failed = !job.published;
}

/* Tables are in use. */
static void made(uint64_t generation)
{
	counter_set(C_TABLES_GENERATION, generation);
	counter_set(C_TABLES_STALE, 0);
	log_msg(LOG_LVL_INFO, "tables", "generation %llu%s", (unsigned long long)generation, generations_pinned(run) ? ", pinned by a rollback" : "");
	job.made = true;
	job_publish();
}

static void job_end(bool ok)
{
	fflush(job.errors);
	if (TAILQ_EMPTY(&job.w.waiters) && !ok)
		tell(job.kind, job.text);
	answer_all(&job.w, ok, job.text);
	fclose(job.errors);
	free(job.text);
	free(job.m.bytes);
	job.text = NULL;
	job.m = (struct model){ 0 };
	took_ns = clock_mono_ns() - job.began_ns;
	hopeless = job.kind == KIND_START && !job.published && !publish_generation();
	last = job.kind;
	job.kind = KIND_NONE;
}

/* The files have errors, or the compiler died: the tables stay as they are, unless it was in the histories already. */
static void not_done(bool died)
{
	if (died) {
		publish_changed();
		not_before_ns = clock_mono_ns() + AGAIN_NS;
	}
	if (job.made)
		return;
	counter_add(C_TABLES_FAILED, 1);
	counter_set(C_TABLES_STALE, 1);
	if (job.kind == KIND_START)
		job_publish();
}

/* A file with the configuration's bytes, for the compiler. */
static enum status open_model(const struct model *m, int *ret)
{
	enum status st;

	*ret = memfd_create("weir-configuration", MFD_CLOEXEC);
	if (*ret >= 0 && write(*ret, m->bytes, m->n) == (ssize_t)m->n)
		return ST_OK;
	st = trail_errno(errno, "the configuration for the compiler");
	if (*ret >= 0)
		close(*ret);
	return st;
}

static enum status open_published(int *ret)
{
	char path[4200];

	snapshot_path(path, sizeof(path));
	*ret = open(path, O_RDONLY | O_CLOEXEC);
	return *ret < 0 ? trail_errno(errno, "%s", path) : ST_OK;
}

/* Most nodes of tests, and many others, have no mail domains: there is nothing to compile. */
static bool needs_tables(void)
{
	const struct snapshot s = in_the_making(&job.m);
	uint32_t n;

	if (job.kind == KIND_TABLES)
		return true;
	snap_mail_domains(&s, &n);
	return n || tables_current(run);
}

static void job_compile(void)
{
	enum status st;
	int fd;

	if (!needs_tables()) {
		job_publish();
		job_end(!job.failed);
		return;
	}
	st = job.kind == KIND_TABLES ? open_published(&fd) : open_model(&job.m, &fd);
	if (st == ST_OK && compile_begin(run, fd, job.w.how, job.w.by) == ST_OK)
		return;
	fprintf(job.errors, "%s\n", trail_text());
	not_done(true);
	job_end(false);
}

static void job_new(enum kind kind)
{
	job.kind = kind;
	job.made = job.published = job.failed = false;
	job.errors = open_memstream(&job.text, &job.text_len);
	CHECK(job.errors);
	job.began_ns = clock_mono_ns();
	TAILQ_INIT(&job.w.waiters);
}

static void begin(enum kind kind)
{
	job_new(kind);
	job.w.how = wish[kind].how;
	memcpy(job.w.by, wish[kind].by, sizeof(job.w.by));
	TAILQ_CONCAT(&job.w.waiters, &wish[kind].waiters, entry);
	wish[kind].is = false;
	wish[kind].how = TABLES_AT_START;
	if (kind == KIND_TABLES)
		changed_ns = 0;
	if (kind == KIND_TABLES || model_read(&job.m, config, run, publish_generation() + 1, job.errors))
		job_compile();
	else
		job_end(false);
}

/* ---- wishes ---- */

static void want(enum kind kind, enum publish_tables how, const char *by, int fd, const char *good, const char *bad)
{
	struct wish *w = &wish[kind];
	struct waiter *one = fd >= 0 ? calloc(1, sizeof(*one)) : NULL;

	if (!w->is)
		snprintf(w->by, sizeof(w->by), "%s", by);
	w->is = true;
	w->how = how == TABLES_BY_COMMAND ? how : w->how;
	if (fd < 0)
		return;
	CHECK(one);
	one->fd = fd;
	one->good = good ? strdup(good) : NULL;
	one->bad = bad ? strdup(bad) : NULL;
	TAILQ_INSERT_TAIL(&w->waiters, one, entry);
}

void publish_config(int fd, const char *by)
{
	want(KIND_CONFIG, TABLES_AT_START, by, fd, "", NULL);
}

void publish_tables(int fd, enum publish_tables how, const char *by, const char *good, const char *bad)
{
	want(KIND_TABLES, how, by, fd, good, bad);
}

void publish_changed(void)
{
	changed_ns = changed_ns ? changed_ns : clock_mono_ns();
	not_before_ns = changed_ns + 5 * took_ns;
}

bool publish_is_changed(void)
{
	return changed_ns != 0;
}

static void begin_next(void)
{
	if (changed_ns && clock_mono_ns() >= not_before_ns)
		want(KIND_TABLES, TABLES_AT_START, "weir-control", -1, NULL, NULL);
	if (wish[KIND_CONFIG].is && !(last == KIND_CONFIG && wish[KIND_TABLES].is))
		begin(KIND_CONFIG);
	else if (wish[KIND_TABLES].is)
		begin(KIND_TABLES);
}

/* ---- rollback ---- */

bool publish_rollback(uint64_t generation, FILE *out)
{
	bool ran = compile_runs() && !job.made, ok;

	if (ran)
		compile_kill(); /* what it makes would undo this, or be undone by it: it comes after */
	ok = tables_rollback(run, generation, &generation) == ST_OK;
	if (!ok)
		fprintf(out, "%s\n", trail_text());
	if (ran && ok && job.kind == KIND_TABLES) {
		fprintf(job.errors, "a rollback to generation %llu came before this was done\n", (unsigned long long)generation);
		job_end(false);
	} else if (ran) {
		job_compile();
	}
	if (!ok)
		return false;
	counter_set(C_TABLES_GENERATION, generation);
	log_msg(LOG_LVL_WARN, "tables-rollback", "generation %llu", (unsigned long long)generation);
	fprintf(out, "generation %llu\n", (unsigned long long)generation);
	return true;
}

/* ---- the whole ---- */

void publish_init(const char *config_file, const char *run_dir)
{
	config = config_file;
	run = run_dir;
	TAILQ_INIT(&wish[KIND_TABLES].waiters);
	TAILQ_INIT(&wish[KIND_CONFIG].waiters);
}

bool publish_start(FILE *errors, char **ret_metrics)
{
	struct snapshot s;

	job_new(KIND_START);
	snprintf(job.w.by, sizeof(job.w.by), "start");
	job.w.how = TABLES_AT_START;
	if (!model_read(&job.m, config, run, publish_generation() + 1, errors)) {
		job_end(false);
		return false;
	}
	s = in_the_making(&job.m);
	*ret_metrics = strdup(snap_cstr(&s, s.h->settings.metrics));
	CHECK(*ret_metrics);
	job_compile();
	return true;
}

int publish_fd(void)
{
	return compile_fd();
}

static void take_events(void)
{
	enum compile_event ev;

	while (compile_runs() && (ev = compile_turn(job.errors)) != COMPILE_GOES_ON) {
		if (ev == COMPILE_MADE) {
			made(compile_generation());
			continue;
		}
		if (ev == COMPILE_DONE)
			counter_add(C_DOMAIN_CHANGES, compile_changes());
		else
			not_done(ev == COMPILE_DIED);
		job_end(job.made && !job.failed);
	}
}

bool publish_turn(void)
{
	bool was_other;

	take_events();
	if (job.kind == KIND_NONE)
		begin_next();
	was_other = is_other;
	is_other = false;
	return was_other;
}

bool publish_is_hopeless(void)
{
	return hopeless;
}

void publish_stop(void)
{
	compile_leave();
	if (job.kind != KIND_NONE)
		job_end(false);
	for (int kind = KIND_TABLES; kind <= KIND_CONFIG; kind++)
		answer_all(&wish[kind], false, "weir-control ends\n");
}
