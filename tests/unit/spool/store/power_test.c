/* The spool on a simulated disk: the power goes at any operation, again during recovery, and operations fail. What was told durable is there, everything else is
 * as it was at some moment.
 *
 * WEIR_SEED and WEIR_RUNS repeat or lengthen it: one failure is one seed. */
#include "tests/support/unit.h"

#include <stdio.h>
#include <stdlib.h>
#include "spool/base/clock.h"
#include "spool/base/counters.h"
#include "spool/store/internal.h"
#include "tests/support/simdisk.h"

enum { SEGMENT = 1 << 20, MESSAGES = 4096, RCPTS = 3, CHANGES = 24, SIZES = 7 };

/* How a message is, as far as a restart must know. */
struct look {
	uint64_t stamp; /* the change that made it so, in the order of composing */
	bool there;
	uint8_t state, rcpt[RCPTS];
	uint16_t attempts[RCPTS];
};

struct truth {
	uint64_t id, seed;
	uint32_t size, nrcpt;
	struct store_msg *m; /* awake */
	bool durable, waking;
	uint32_t n;
	struct look look[CHANGES]; /* [0] is the oldest that may still be found */
};

struct world {
	struct sim_image *im;
	struct arena *arena;
	struct store *s;
	struct truth t[MESSAGES];
	uint32_t nt;
	uint64_t stamp, durable_stamp, seed;
	unsigned lost, wrong, fenced, recovered;
	char what[256];
};

static const uint32_t size_of[SIZES] = { 0, 10, 900, 4096, 30000, 70000, 400000 };

static char fill_byte(uint64_t seed, uint64_t i)
{
	return (char)('a' + (seed * 7 + i / 100) % 26);
}

static unsigned dice(struct world *w, unsigned n)
{
	return (unsigned)(sim_random(w->im) % n);
}

static enum status open_store(struct world *w, const struct sim_rules *rules)
{
	struct store_config cfg = { .dir = "sim", .segment_bytes = SEGMENT, .max_bytes = 12 * SEGMENT, .spill_bytes = 64 * 1024,
		.staging_bytes = 256 * 1024, .disk = sim_disk(w->im, store_completion, rules) };

	return store_open(NULL, w->arena, &cfg, &w->s);
}

/* ---- what is done ---- */

static void look_now(struct world *w, struct truth *t, bool there)
{
	struct look *l;

	if (t->n == CHANGES) { /* the oldest that counts no more goes */
		memmove(t->look, t->look + 1, (CHANGES - 1) * sizeof(t->look[0]));
		t->n--;
	}
	l = &t->look[t->n++];
	*l = (struct look){ .stamp = ++w->stamp, .there = there, .state = t->m->state };
	for (uint32_t i = 0; i < t->nrcpt; i++) {
		l->rcpt[i] = t->m->rcpt[i].state;
		l->attempts[i] = t->m->rcpt[i].attempts;
	}
}

static void put(struct world *w)
{
	struct env_rcpt rcpt[RCPTS] = { { .addr = SPAN("a@y.example") }, { .addr = SPAN("b@y.example") }, { .addr = SPAN("c@y.example") } };
	struct truth *t = &w->t[w->nt];
	struct envelope env = { .sender = SPAN("s@x.example"), .arrived_ns = w->nt + 1, .nrcpt = 1 + dice(w, RCPTS), .rcpt = rcpt };
	char piece[8000];
	struct body *b;

	if (w->nt == MESSAGES)
		return;
	*t = (struct truth){ .seed = w->nt + 1, .size = size_of[dice(w, SIZES)], .nrcpt = env.nrcpt };
	if (t->size == 400000 && dice(w, 4))
		t->size = 2000;
	assert_ok(body_new(w->s, 0, &b));
	for (uint32_t at = 0; at < t->size;) {
		uint32_t n = t->size - at < sizeof(piece) ? t->size - at : (uint32_t)sizeof(piece);

		for (uint32_t i = 0; i < n; i++)
			piece[i] = fill_byte(t->seed, at + i);
		if (body_append(b, span_of(piece, n)) != ST_OK) {
			body_drop(b);
			return;
		}
		at += n;
	}
	if (store_put(w->s, &env, b, true, t, &t->m) != ST_OK)
		return;
	t->id = t->m->id;
	look_now(w, t, true);
	w->nt++;
}

static void change(struct world *w, struct truth *t)
{
	struct reply r;
	uint32_t i = dice(w, t->nrcpt);

	if (!t->m || !t->durable)
		return;
	switch (dice(w, 6)) {
	case 0:
	case 1:
		if (t->m->rcpt[i].state != RCPT_QUEUED)
			return;
		reply_set(&r, 450, "4.2.1", "later");
		store_rcpt(t->m, i, RCPT_QUEUED, &r, 77);
		break;
	case 2:
	case 3:
		if (t->m->rcpt[i].state != RCPT_QUEUED)
			return;
		store_rcpt(t->m, i, RCPT_DELIVERED, NULL, 0);
		break;
	case 4:
		store_set_state(t->m, t->m->state == MSG_HELD ? MSG_QUEUED : MSG_HELD, SPAN("because"));
		break;
	default:
		if (store_park(t->m, DUE_NEVER, 0) == ST_OK)
			t->m = NULL;
		return;
	}
	look_now(w, t, true);
	if (!t->m->open_rcpts) {
		look_now(w, t, false);
		store_forget(t->m);
		t->m = NULL;
	}
}

static void events(struct world *w)
{
	struct store_event ev;

	while (store_event(w->s, &ev)) {
		struct truth *t = ev.msg ? ev.msg->user : NULL;

		if (ev.type == STORE_DURABLE) {
			t->durable = true;
			w->durable_stamp = t->look[0].stamp > w->durable_stamp ? t->look[0].stamp : w->durable_stamp;
		} else if (ev.type == STORE_WOKEN) {
			for (uint32_t i = 0; i < w->nt; i++)
				if (w->t[i].id == ev.msg->id)
					t = &w->t[i];
			ev.msg->user = t;
			t->m = ev.msg;
			t->waking = false;
		} else if (ev.type == STORE_FAILED) {
			t->m = NULL; /* nobody was told 250 */
		} else if (ev.type == STORE_FENCED) {
			w->fenced++;
		} else if (ev.type == STORE_UNREADABLE) {
			w->wrong++;
			snprintf(w->what, sizeof(w->what), "a record became unreadable");
		}
	}
}

static void work(struct world *w)
{
	struct truth *t = w->nt ? &w->t[dice(w, w->nt)] : NULL;

	switch (dice(w, 8)) {
	case 0:
	case 1:
		put(w);
		break;
	case 2:
	case 3:
	case 4:
	case 5:
		if (t)
			change(w, t);
		break;
	case 6:
		if (t && !t->m && t->id && !t->waking && t->n && t->look[t->n - 1].there && t->durable)
			t->waking = store_wake(w->s, t->id) == ST_OK;
		break;
	default:
		break;
	}
	store_commit(w->s);
}

/* ---- what must be there ---- */

static bool same(const struct truth *t, const struct look *l, const struct store_msg *m)
{
	if (!m || !l->there)
		return !m && !l->there;
	for (uint32_t i = 0; i < t->nrcpt; i++)
		if (m->rcpt[i].state != l->rcpt[i] || m->rcpt[i].attempts != l->attempts[i])
			return false;
	return m->state == l->state && m->env.nrcpt == t->nrcpt;
}

static bool body_right(struct world *w, const struct truth *t, struct store_msg *m)
{
	struct body_reader *r;
	struct span piece;
	uint64_t at = 0;
	enum status st;

	assert_ok(store_read_open(m, 0, &r));
	while ((st = store_read(r, &piece)) == ST_OK || st == ST_AGAIN) {
		if (st == ST_AGAIN) {
			if (w->s->disk->ops->wait(w->s->disk, 0) != ST_OK)
				break;
			continue;
		}
		for (size_t i = 0; i < piece.n; i += 97)
			if (piece.p[i] != fill_byte(t->seed, at + i))
				st = ST_CORRUPT;
		at += piece.n;
		if (st != ST_OK)
			break;
	}
	store_read_close(r);
	return st == ST_NOT_FOUND && at == t->size;
}

static void fetch(struct world *w, struct truth *t)
{
	t->m = NULL;
	t->waking = false;
	if (!t->id || store_wake(w->s, t->id) != ST_OK)
		return;
	t->waking = true;
	while (t->waking && w->s->disk->ops->wait(w->s->disk, 0) == ST_OK)
		events(w);
}

/* Every message as it was after some change that is no older than the newest one known to be durable. */
static void judge(struct world *w, bool bodies)
{
	for (uint32_t k = 0; k < w->nt; k++) {
		struct truth *t = &w->t[k];
		uint32_t from = 0, i;
		bool may_be_missing = !t->durable; /* nobody was told 250 */

		if (!t->id)
			continue;
		while (from + 1 < t->n && t->look[from + 1].stamp <= w->durable_stamp)
			from++;
		fetch(w, t);
		for (i = from; i < t->n && !same(t, &t->look[i], t->m); i++)
			;
		if (i == t->n && !(may_be_missing && !t->m) && !(t->m && !t->m->open_rcpts)) {
			if (!t->m)
				w->lost++;
			else
				w->wrong++;
			snprintf(w->what, sizeof(w->what), "life %u: message %u of %u bytes is %s (%s, put at %llu of %llu durable of %llu)", w->recovered, k, t->size,
				t->m ? "not as it ever was" : "lost", store_row(w->s, t->id, &(struct store_row){ 0 }) ? "in the index" : "not in the index",
				(unsigned long long)t->look[0].stamp, (unsigned long long)w->durable_stamp, (unsigned long long)w->stamp);
			continue;
		}
		if (t->m && bodies && !body_right(w, t, t->m)) {
			w->wrong++;
			snprintf(w->what, sizeof(w->what), "message %u of %u bytes has another body", k, t->size);
		}
		t->durable = true;
		if (!t->m) {
			t->id = 0;
			continue;
		}
		t->m->user = t;
		t->n = 0;
		look_now(w, t, true); /* what was seen once stays */
	}
	w->durable_stamp = w->stamp;
	w->recovered++;
}

/* ---- runs ---- */

static void world_new(struct world *w, uint64_t seed)
{
	*w = (struct world){ .im = sim_image_new(seed), .seed = seed };
	assert_ok(arena_new(24 << 20, &w->arena));
}

static void world_free(struct world *w)
{
	sim_image_free(w->im);
	arena_free(w->arena);
}

static void crash(struct world *w)
{
	sim_power_loss(w->im);
	if (w->s)
		store_close(w->s);
	w->s = NULL;
}

/* Some lives of a partition, each ended by the power. */
static void live(struct world *w, unsigned lives, bool lying)
{
	struct sim_rules rules = { .lying_flush = lying, .sector = w->seed & 1 ? 512 : 4096, .fault_kind = -1 };

	for (unsigned k = 0; k < lives && !w->lost && !w->wrong; k++) {
		rules.power_off_at = sim_operations(w->im) + 1 + dice(w, k % 4 == 3 ? 6000 : k % 3 ? 600 : 60);
		if (open_store(w, &rules) == ST_OK) {
			judge(w, k % 2);
			if (sim_is_off(w->im)) { /* it went while that was looked at: what was not reached is not judged */
				w->lost = w->wrong = 0;
				crash(w);
				return;
			}
			for (unsigned turns = 0; turns < 20000 && !sim_is_off(w->im); turns++) { /* a full spool does nothing any more */
				work(w);
				if (w->s->disk->ops->wait(w->s->disk, 0) == ST_OK)
					events(w);
			}
		}
		crash(w);
	}
	rules.power_off_at = 0;
	assert_ok(open_store(w, &rules));
	judge(w, true);
	crash(w);
}

static unsigned runs(unsigned standard)
{
	const char *n = getenv("WEIR_RUNS");

	return n ? (unsigned)atoi(n) : standard;
}

static uint64_t first_seed(void)
{
	const char *n = getenv("WEIR_SEED");

	return n ? strtoull(n, NULL, 10) : 1;
}

static void nothing_durable_is_lost_when_the_power_goes(void **state)
{
	static struct world w;
	unsigned n = runs(60), recovered = 0;

	for (uint64_t seed = first_seed(); seed < first_seed() + n; seed++) {
		world_new(&w, seed);
		live(&w, 12, false);
		recovered += w.recovered;
		assert_int_equal(counter_get(C_SPOOL_DAMAGED), 0); /* a torn write is no damage */
		if (w.lost || w.wrong)
			fail_msg("seed %llu: %s (WEIR_SEED=%llu WEIR_RUNS=1 repeats it)", (unsigned long long)seed, w.what, (unsigned long long)seed);
		world_free(&w);
	}
	print_message("%u power losses survived, %llu checkpoints, %llu bytes moved, %llu messages parked\n", recovered,
		(unsigned long long)counter_get(C_SPOOL_CHECKPOINTS), (unsigned long long)counter_get(C_SPOOL_MOVED_BYTES),
		(unsigned long long)counter_get(C_SPOOL_PARKED));
	assert_true(counter_get(C_SPOOL_CHECKPOINTS) > 10 && counter_get(C_SPOOL_MOVED_BYTES) > 100000); /* or it would show nothing about them */
}

/* One life with faults, then one without: what was told durable is there. Gives whether the partition was fenced. */
static bool faulty_life(uint64_t seed, enum disk_kind kind, enum sim_fault fault, uint64_t at, uint64_t faults)
{
	static struct world w;
	struct sim_rules good = { .sector = 512, .fault_kind = -1 }, bad = good;
	bool fenced;

	world_new(&w, seed);
	bad.fault_at = at;
	bad.faults = faults;
	bad.fault = fault;
	bad.fault_kind = (int)kind;
	bad.power_off_at = 900;
	if (open_store(&w, &bad) == ST_OK)
		for (unsigned turns = 0; turns < 3000 && !sim_is_off(w.im) && !w.fenced; turns++) {
			work(&w);
			if (w.s->disk->ops->wait(w.s->disk, 0) == ST_OK)
				events(&w);
		}
	fenced = w.fenced;
	if (fenced)
		assert_int_equal(store_room(w.s, 0), ST_IO);
	w.wrong = 0; /* a record that could not be read for a fault is held, not wrong */
	crash(&w);
	good.power_off_at = 0;
	assert_ok(open_store(&w, &good));
	judge(&w, true);
	if (w.lost || w.wrong)
		fail_msg("kind %d fault %d at %llu seed %llu: %s", kind, fault, (unsigned long long)at, (unsigned long long)seed, w.what);
	crash(&w);
	world_free(&w);
	return fenced;
}

static void failed_writes_go_elsewhere(void **state)
{
	unsigned fenced = 0, n = 0;

	for (uint64_t at = 1; at < 120; at += 3)
		for (enum sim_fault f = SIM_EIO; f <= SIM_SHORT; f++, n++)
			fenced += faulty_life(at, DISK_WRITE, f, at, 1);
	assert_true(fenced < n / 4); /* a claim that fails stops the partition, a batch does not */
	for (uint64_t at = 20; at < 60; at += 5)
		faulty_life(at, DISK_WRITE, SIM_EIO, at, 1000);
}

static void a_failed_flush_is_never_trusted(void **state)
{
	unsigned fenced = 0, n = 0;

	for (uint64_t at = 8; at < 80; at += 2, n++)
		fenced += faulty_life(at, DISK_DATASYNC, SIM_EIO, at, 1);
	assert_true(fenced > n * 3 / 4);
}

static void failed_reads_hold_and_lose_nothing(void **state)
{
	for (uint64_t at = 1; at < 60; at++)
		faulty_life(at, DISK_READ, at % 2 ? SIM_EIO : SIM_SHORT, at, 1 + at % 3);
}

static void a_lying_flush_is_caught(void **state)
{
	static struct world w;
	unsigned caught = 0;

	for (uint64_t seed = 1; seed <= 20; seed++) {
		world_new(&w, seed);
		live(&w, 6, true);
		caught += w.lost || w.wrong;
		world_free(&w);
	}
	assert_in_range(caught, 10, 20);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(nothing_durable_is_lost_when_the_power_goes),
		cmocka_unit_test(failed_writes_go_elsewhere), cmocka_unit_test(a_failed_flush_is_never_trusted),
		cmocka_unit_test(failed_reads_hold_and_lose_nothing), cmocka_unit_test(a_lying_flush_is_caught) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
