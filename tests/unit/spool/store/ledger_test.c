/* The ledger: rows and frames as they are on the disk, what is in it after any restart, and that damage does not pass. */
#include "tests/support/unit.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "spool/base/clock.h"
#include "spool/base/counters.h"
#include "spool/store/ledger.h"
#include "spool/store/look.h"

enum { SEGMENT = 4 << 20, MESSAGES = 4000 };

static char dir[64];
static struct uring uring;
static struct arena *arena;
static struct store *store;

static void open_store(void)
{
	assert_ok(store_open(&uring, arena, &(struct store_config){ .dir = dir, .partition = 3, .segment_bytes = SEGMENT, .max_bytes = 8 * SEGMENT,
		.spill_bytes = 256 * 1024, .direct = true, .ledger_keep_ns = 35 * LEDGER_DAY_NS }, &store));
}

static int begin(void **state)
{
	strcpy(dir, "/var/tmp/weir-ledger-XXXXXX");
	if (!mkdtemp(dir) || uring_init(&uring, 256) != ST_OK || arena_new(16 << 20, &arena) != ST_OK)
		return -1;
	open_store();
	return 0;
}

static int end(void **state)
{
	char cmd[128];

	if (store)
		store_close(store);
	store = NULL;
	arena_free(arena);
	uring_done(&uring);
	snprintf(cmd, sizeof(cmd), "rm -rf %s", dir);
	return system(cmd);
}

static void turn(void)
{
	struct store_event ev;

	store_commit(store);
	assert_ok(uring_wait(&uring, store_busy(store) ? 20 * NS_PER_MS : NS_PER_MS));
	while (store_event(store, &ev))
		;
}

static void until_idle(void)
{
	for (int i = 0; i < 500 && store_busy(store); i++)
		turn();
	assert_false(store_busy(store));
}

static struct store_msg *put(unsigned nrcpt, bool scanned)
{
	struct env_rcpt rcpt[8] = { 0 };
	struct envelope env = { .sender = SPAN("s@x.example"), .helo = SPAN("client.example"), .arrived_ns = clock_steady_ns(), .nrcpt = nrcpt,
		.rcpt = rcpt, .flags = scanned ? ENV_INTERNAL : 0 };
	struct body *b;
	struct store_msg *m;

	for (unsigned i = 0; i < nrcpt; i++)
		rcpt[i].addr = SPAN("r@y.example");
	assert_ok(body_new(store, 0, &b));
	assert_ok(body_append(b, SPAN("Subject: x\r\n\r\nhello\r\n")));
	assert_ok(store_put(store, &env, b, scanned, NULL, &m));
	return m;
}

/* ---- what a reader finds ---- */

struct seen {
	unsigned attempts[2]; /* of deferred rows, and how many of those rows have an enhanced code */
	unsigned begins, accepted, own, rcpts, delivered, bounced, deleted, deferred, held, released, refused, repaired, damage, queued, lacking;
	char text[300];
};

static void on_row(void *ctx, const struct ledger_row *row, bool repaired)
{
	struct seen *s = ctx;
	struct span addrs = row->addrs, a;

	s->repaired += repaired;
	s->begins += row->type == LEDGER_BEGIN;
	s->accepted += row->type == LEDGER_ACCEPTED;
	s->own += row->type == LEDGER_ACCEPTED && (row->flags & ENV_INTERNAL);
	s->refused += row->type == LEDGER_REFUSED;
	s->held += row->type == LEDGER_STATE && row->state == MSG_HELD;
	s->released += row->type == LEDGER_STATE && row->state == MSG_QUEUED;
	while (row->type == LEDGER_RCPTS && ledger_addr_read(&addrs, &a))
		s->rcpts++;
	assert_true(row->arrived_ns > 0 || (row->type != LEDGER_ACCEPTED && row->type != LEDGER_FATE));
	if (row->type != LEDGER_FATE)
		return;
	s->deferred += row->state == RCPT_QUEUED;
	if (row->state == RCPT_QUEUED) {
		s->attempts[0] += row->attempts;
		s->attempts[1] += row->enhanced[0] != 0;
	}
	s->delivered += row->state == RCPT_DELIVERED;
	s->bounced += row->state == RCPT_BOUNCED;
	s->deleted += row->state == RCPT_DELETED;
}

static void on_damage(void *ctx, const char *text)
{
	struct seen *s = ctx;

	s->damage++;
	snprintf(s->text, sizeof(s->text), "%s", text);
}

static struct seen read_ledger(void)
{
	struct ledger_sink sink = { .row = on_row, .damage = on_damage };
	struct ledger_reader *r;
	struct seen s = { 0 };
	char why[200];

	sink.ctx = &s;
	assert_ok(ledger_read_new(dir, 3, clock_wall_ns() - 3600 * NS_PER_S, &r));
	assert_ok(ledger_read(r, false, &sink));
	s.damage += ledger_read_tail(r) > 0 || !ledger_read_whole(r, why, sizeof(why));
	ledger_read_free(r);
	return s;
}

static void on_message(void *ctx, const struct store_row *row)
{
	((struct seen *)ctx)->queued += row->open;
}

static void on_lacking(void *ctx, const struct ledger_row *row)
{
	((struct seen *)ctx)->lacking += row->type != LEDGER_BEGIN;
	on_row(ctx, row, true);
}

static struct seen look(const char *at)
{
	struct seen s = { 0 };

	assert_ok(store_look(at, 3, &(struct look_sink){ .ctx = &s, .message = on_message, .lacking = on_lacking }));
	return s;
}

/* The partition's files as a power cut would leave them now, in another directory. */
static void crash_copy(char *to, size_t cap)
{
	char cmd[256];

	snprintf(to, cap, "%s-copy", dir);
	snprintf(cmd, sizeof(cmd), "rm -rf %s && cp -r %s %s", to, dir, to);
	assert_int_equal(system(cmd), 0);
}

/* The process is gone without having closed anything; the next one starts from the copy. */
static void crash(void)
{
	char copy[80], cmd[256];

	crash_copy(copy, sizeof(copy));
	store_close(store);
	snprintf(cmd, sizeof(cmd), "rm -rf %s && mv %s %s", dir, copy, dir);
	assert_int_equal(system(cmd), 0);
	open_store();
}

static void ledger_path(char *path, size_t cap)
{
	char name[LEDGER_NAME];

	ledger_name((uint32_t)(clock_steady_ns() / LEDGER_DAY_NS), name);
	snprintf(path, cap, "%s/%s", dir, name);
}

/* ---- tests ---- */

static void rows_come_back(void **state)
{
	char buf[LEDGER_ROW_MAX], addrs[64];
	struct out o = out_of(buf, sizeof(buf)), a = out_of(addrs, sizeof(addrs));
	struct ledger_row fate = { .type = LEDGER_FATE, .state = RCPT_BOUNCED, .id = 77, .at_ns = 5, .arrived_ns = 9 * NS_PER_S, .rcpt = 4, .attempts = 3,
		.code = 550, .enhanced = { 5, 1, 1 }, .remote = SPAN("mx.example"), .text = SPAN("no such user") }, back;
	struct ledger_row refused = { .type = LEDGER_REFUSED, .size = 12, .nrcpt = 2, .sender = SPAN("a@b"), .helo = SPAN("h") };
	struct span rest, addr;

	ledger_addr_write(&a, SPAN("x@y"));
	ledger_addr_write(&a, SPAN("z@y"));
	refused.addrs = out_span(&a);
	ledger_row_write(&fate, &o);
	ledger_row_write(&refused, &o);
	rest = out_span(&o);
	assert_true(ledger_row_read(&rest, &back));
	assert_int_equal(back.id, 77);
	assert_int_equal(back.arrived_ns, 9 * NS_PER_S);
	assert_int_equal(back.rcpt, 4);
	assert_int_equal(back.enhanced[2], 1);
	assert_span(back.remote, "mx.example");
	assert_span(back.text, "no such user");
	assert_true(ledger_row_read(&rest, &back));
	assert_span(back.sender, "a@b");
	assert_true(ledger_addr_read(&back.addrs, &addr) && ledger_addr_read(&back.addrs, &addr));
	assert_span(addr, "z@y");
	assert_int_equal(rest.n, 0);
	for (size_t n = 0; n < o.n; n++) { /* cut anywhere: never read beyond, never a row too many */
		char *cut = malloc(n + 1);
		unsigned rows = 0;

		memcpy(cut, buf, n);
		rest = span_of(cut, n);
		while (ledger_row_read(&rest, &back))
			rows++;
		assert_true(rows < 2);
		free(cut);
	}
}

static void names(void **state)
{
	char name[LEDGER_NAME];
	uint32_t day;

	ledger_name(20778, name);
	assert_string_equal(name, "ledger-20261121");
	assert_true(ledger_name_day(name, &day));
	assert_int_equal(day, 20778);
	assert_false(ledger_name_day("ledger-20261131", &day));
	assert_false(ledger_name_day("ledger-2026112", &day));
	assert_false(ledger_name_day("seg-00000000", &day));
}

static void a_life(void **state)
{
	struct store_msg *a = put(2, false), *b = put(1, true), *c = put(1, false);
	struct reply r;
	struct seen s;

	until_idle();
	store_set_state(a, MSG_QUEUED, SPAN_NONE);
	reply_set(&r, 250, "2.0.0", "taken");
	store_rcpt_at(a, 0, RCPT_DELIVERED, &r, 0, SPAN("mx.example"));
	store_rcpt(a, 1, RCPT_QUEUED, &r, 1);
	store_set_state(a, MSG_HELD, SPAN("held by me"));
	store_set_state(a, MSG_QUEUED, SPAN("released by me"));
	store_rcpt(a, 1, RCPT_BOUNCED, &r, 0);
	store_forget(a);
	store_rcpt(b, 0, RCPT_DELETED, &r, 0);
	store_forget(b);
	store_note_refused(store, c->id, &c->env, SPAN_NONE, c->body_len, &r);
	store_rcpt(c, 0, RCPT_DROPPED, NULL, 0);
	store_forget(c);
	until_idle();
	store_close(store);
	store = NULL;
	s = read_ledger();
	assert_int_equal(s.damage, 0);
	assert_int_equal(s.begins, 1);
	assert_int_equal(s.accepted, 2);
	assert_int_equal(s.own, 1);
	assert_int_equal(s.rcpts, 3);
	assert_int_equal(s.delivered, 1);
	assert_int_equal(s.bounced, 1);
	assert_int_equal(s.deleted, 1);
	assert_int_equal(s.deferred, 1);
	assert_int_equal(s.held, 1);
	assert_int_equal(s.released, 1);
	assert_int_equal(s.refused, 1);
	s = look(dir);
	assert_int_equal(s.queued, 0);
	assert_int_equal(s.lacking, 0);
}

/* Nothing of the last turns was in the ledger when the process died: the log has it. */
static void recovery_writes_what_is_missing(void **state)
{
	struct store_msg *m[50];
	struct reply r;
	struct seen s, before;
	char copy[80];

	reply_set(&r, 250, "2.0.0", "taken");
	for (unsigned i = 0; i < 50; i++)
		m[i] = put(2, false);
	until_idle();
	for (unsigned i = 0; i < 50; i++)
		store_set_state(m[i], MSG_QUEUED, SPAN_NONE);
	until_idle();
	for (unsigned i = 0; i < 50; i++) {
		store_rcpt(m[i], 0, RCPT_DELIVERED, &r, 0);
		if (i < 20) {
			store_rcpt(m[i], 1, RCPT_BOUNCED, &r, 0);
			store_forget(m[i]);
		}
	}
	until_idle();
	crash_copy(copy, sizeof(copy));
	before = look(copy); /* a tool sees without a start what a start will find */
	crash();
	s = read_ledger();
	assert_int_equal(s.damage, 0);
	assert_int_equal(s.accepted, 50);
	assert_int_equal(s.delivered, 50);
	assert_int_equal(s.bounced, 20);
	assert_true(s.repaired > 0);
	assert_int_equal(s.repaired - s.begins, before.repaired);
	assert_int_equal(before.queued, 30);
	crash(); /* again: nothing is written twice */
	s = read_ledger();
	assert_int_equal(s.accepted, 50);
	assert_int_equal(s.delivered, 50);
	assert_int_equal(s.bounced, 20);
	assert_int_equal(s.damage, 0);
}

/* What a row says is the same whether the worker wrote it or a start had to: the mark of a delay notice is no attempt, and a code of our own making not the remote's. */
static void a_mended_row_is_as_it_would_have_been(void **state)
{
	struct store_msg *m = put(2, false);
	struct seen written, mended;
	struct reply r;
	char copy[80];

	until_idle();
	store_set_state(m, MSG_QUEUED, SPAN_NONE);
	reply_set(&r, 451, NULL, "later");
	reply_derive(&r, REPLY_TO_RCPT);
	assert_true(r.derived);
	m->rcpt[0].told = 1;
	store_rcpt(m, 0, RCPT_QUEUED, &r, 1);
	store_rcpt(m, 1, RCPT_QUEUED, &r, 1);
	until_idle();
	crash_copy(copy, sizeof(copy));
	mended = look(copy);
	store_close(store);
	store = NULL;
	written = read_ledger();
	assert_int_equal(mended.repaired, 4);
	assert_int_equal(written.deferred, 2);
	assert_int_equal(mended.deferred, 2);
	assert_int_equal(written.attempts[0], 2);
	assert_int_equal(mended.attempts[0], 2);
	assert_int_equal(written.attempts[1], 0);
	assert_int_equal(mended.attempts[1], 0);
}

/* So much that checkpoints are made and segments recycled, with a crash in the middle of it all. */
static void over_checkpoints(void **state)
{
	struct store_msg *m[MESSAGES / 10];
	unsigned accepted = 0, delivered = 0;
	struct reply r;
	struct seen s;

	reply_set(&r, 250, "2.0.0", "taken");
	for (unsigned round = 0; round < 30; round++) {
		unsigned n = MESSAGES / 10;

		for (unsigned i = 0; i < n; i++)
			m[i] = put(1, i % 2);
		until_idle();
		for (unsigned i = 0; i < n; i++)
			store_set_state(m[i], MSG_QUEUED, SPAN_NONE);
		accepted += n;
		for (unsigned i = 0; i < n; i += round % 3 == 2 ? 2 : 1) {
			store_rcpt(m[i], 0, RCPT_DELIVERED, &r, 0);
			store_forget(m[i]);
			delivered++;
		}
		until_idle();
		if (round % 7 == 6)
			crash();
	}
	crash();
	s = read_ledger();
	assert_int_equal(s.damage, 0);
	assert_int_equal(s.accepted, accepted);
	assert_int_equal(s.delivered, delivered);
	assert_int_equal(look(dir).queued, accepted - delivered);
}

/* Messages that a checkpoint has as not yet accepted, in the segment in which the replay begins: their acceptance alone is replayed, and their envelopes stand before it. */
static void accepted_behind_a_checkpoint(void **state)
{
	enum { ENOUGH = 6 * SEGMENT / BLOCK };
	struct store_msg **m = calloc(ENOUGH, sizeof(struct store_msg *));
	uint64_t before = counter_get(C_SPOOL_CHECKPOINTS);
	unsigned n = 0;
	struct seen s;

	assert_non_null(m);
	while (n < ENOUGH && counter_get(C_SPOOL_CHECKPOINTS) == before) {
		m[n++] = put(1, false);
		turn();
	}
	assert_true(n < ENOUGH);
	until_idle();
	for (unsigned i = 0; i < n; i++)
		store_set_state(m[i], MSG_QUEUED, SPAN_NONE);
	until_idle();
	crash();
	s = read_ledger();
	assert_int_equal(s.damage, 0);
	assert_int_equal(s.accepted, n);
	assert_int_equal(s.rcpts, n);
	assert_true(s.repaired > n);
	free(m);
}

/* A message with more recipients than a page has room for. */
static void many_recipients(void **state)
{
	enum { MANY = 20000 };
	struct env_rcpt *rcpt = calloc(MANY, sizeof(*rcpt));
	struct envelope env = { .sender = SPAN("s@x.example"), .arrived_ns = clock_steady_ns(), .nrcpt = MANY, .rcpt = rcpt };
	struct body *b;
	struct store_msg *m;
	struct seen s;

	for (unsigned i = 0; i < MANY; i++)
		rcpt[i].addr = SPAN("somebody@department.example.org");
	assert_ok(body_new(store, 0, &b));
	assert_ok(body_append(b, SPAN("x\r\n")));
	assert_ok(store_put(store, &env, b, true, NULL, &m));
	for (unsigned i = 0; i < MANY; i++)
		store_rcpt(m, i, i % 2 ? RCPT_DELIVERED : RCPT_BOUNCED, NULL, 0);
	store_forget(m);
	until_idle();
	crash();
	store_close(store);
	store = NULL;
	free(rcpt);
	s = read_ledger();
	assert_int_equal(s.damage, 0);
	assert_int_equal(s.accepted, 1);
	assert_int_equal(s.rcpts, MANY);
	assert_int_equal(s.delivered, MANY / 2);
	assert_int_equal(s.bounced, MANY / 2);
}

/* Every byte that matters, changed: it is said, and what is left is read. */
static void damage_is_noticed(void **state)
{
	struct stat st;
	char path[128], *bytes;
	unsigned all;
	int fd;

	for (unsigned i = 0; i < 5; i++) {
		put(1, true);
		until_idle();
		usleep(110 * 1000); /* a frame of its own */
		turn();
		turn();
	}
	store_close(store);
	store = NULL;
	all = read_ledger().accepted;
	assert_int_equal(all, 5);
	ledger_path(path, sizeof(path));
	fd = open(path, O_RDWR);
	assert_int_equal(fstat(fd, &st), 0);
	bytes = malloc((size_t)st.st_size);
	assert_int_equal(pread(fd, bytes, (size_t)st.st_size, 0), st.st_size);
	for (off_t at = 0; at < 700; at += 3) {
		char other = (char)(bytes[at] ^ 0x40);
		struct seen s;

		if (pwrite(fd, &other, 1, at) != 1)
			fail();
		s = read_ledger();
		assert_true(s.damage > 0);
		assert_true(s.accepted + 1 >= all);
		if (pwrite(fd, &bytes[at], 1, at) != 1)
			fail();
	}
	assert_int_equal(read_ledger().damage, 0);
	free(bytes);
	close(fd);
}

/* The end of the file is cut off while nothing runs: the log has it still. */
static void a_cut_is_mended(void **state)
{
	char path[128];

	for (unsigned i = 0; i < 100; i++)
		put(1, true);
	until_idle();
	store_close(store);
	ledger_path(path, sizeof(path));
	assert_int_equal(truncate(path, 4096), 0);
	open_store();
	assert_int_equal(read_ledger().accepted, 100);
	assert_int_equal(read_ledger().damage, 0);
}

/* All of it is taken away although the log goes on: the reader says that there was something before. */
static void a_beginning_in_the_middle_is_said(void **state)
{
	char path[128];

	put(1, true);
	until_idle();
	store_close(store);
	ledger_path(path, sizeof(path));
	assert_int_equal(unlink(path), 0);
	open_store();
	assert_int_equal(read_ledger().damage, 1);
}

/* Midnight: the next day has a file of its own, and the numbers go on. */
static void a_day_has_a_file(void **state)
{
	uint64_t mono = clock_mono_ns(), wall = clock_wall_ns();
	struct seen s;
	unsigned files = 0;
	struct dirent *e;
	DIR *d;

	for (unsigned day = 0; day < 3; day++) {
		clock_fake(mono + day * LEDGER_DAY_NS, wall + day * LEDGER_DAY_NS);
		for (unsigned i = 0; i < 10; i++)
			put(1, true);
		until_idle();
		for (unsigned i = 0; i < 10; i++) {
			clock_fake(mono + day * LEDGER_DAY_NS + i * NS_PER_S, wall + day * LEDGER_DAY_NS + i * NS_PER_S);
			turn();
		}
	}
	clock_fake_off();
	store_close(store);
	store = NULL;
	d = opendir(dir);
	while ((e = readdir(d)))
		files += strncmp(e->d_name, "ledger-", 7) == 0;
	closedir(d);
	assert_int_equal(files, 3);
	s = read_ledger();
	assert_int_equal(s.damage, 0);
	assert_int_equal(s.accepted, 30);
}

static void old_files_go(void **state)
{
	uint32_t today = (uint32_t)(clock_steady_ns() / LEDGER_DAY_NS);
	char name[LEDGER_NAME], old[128], young[128];

	store_close(store);
	ledger_name(today, name);
	snprintf(old, sizeof(old), "%s/%s", dir, name);
	assert_int_equal(unlink(old), 0);
	ledger_name(today - 40, name);
	snprintf(old, sizeof(old), "%s/%s", dir, name);
	ledger_name(today - 30, name);
	snprintf(young, sizeof(young), "%s/%s", dir, name);
	close(open(old, O_WRONLY | O_CREAT, 0600));
	close(open(young, O_WRONLY | O_CREAT, 0600));
	open_store();
	assert_int_equal(access(old, F_OK), -1);
	assert_int_equal(access(young, F_OK), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(rows_come_back),
		cmocka_unit_test(names),
		cmocka_unit_test_setup_teardown(a_life, begin, end),
		cmocka_unit_test_setup_teardown(recovery_writes_what_is_missing, begin, end),
		cmocka_unit_test_setup_teardown(a_mended_row_is_as_it_would_have_been, begin, end),
		cmocka_unit_test_setup_teardown(over_checkpoints, begin, end),
		cmocka_unit_test_setup_teardown(accepted_behind_a_checkpoint, begin, end),
		cmocka_unit_test_setup_teardown(many_recipients, begin, end),
		cmocka_unit_test_setup_teardown(damage_is_noticed, begin, end),
		cmocka_unit_test_setup_teardown(a_cut_is_mended, begin, end),
		cmocka_unit_test_setup_teardown(a_beginning_in_the_middle_is_said, begin, end),
		cmocka_unit_test_setup_teardown(old_files_go, begin, end),
		cmocka_unit_test_setup_teardown(a_day_has_a_file, begin, end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
