/* Copying into the cold stream comes to an end whatever becomes free meanwhile: a message that is being copied cannot be woken. */
#include "tests/support/unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "spool/base/clock.h"
#include "spool/store/store.h"

enum { SEGMENT = 4 << 20, SEGMENTS = 12, LARGE = 700 * 1000, MANY = 60, ROUNDS = 12 };

static char dir[64];
static struct uring uring;
static struct arena *arena;
static struct store *store;
static uint64_t parked[MANY];
static unsigned nparked;

static struct store_msg *turn(void)
{
	struct store_msg *woken = NULL;
	struct store_event ev;

	store_commit(store);
	assert_ok(uring_wait(&uring, NS_PER_MS));
	while (store_event(store, &ev))
		if (ev.type == STORE_WOKEN)
			woken = ev.msg;
	return woken;
}

static bool put(void)
{
	static char text[LARGE];
	struct env_rcpt rcpt = { .addr = SPAN("r@y.example") };
	struct envelope env = { .sender = SPAN("s@x.example"), .nrcpt = 1, .rcpt = &rcpt };
	struct store_msg *m;
	struct body *b;

	if (nparked == MANY || store_room(store, LARGE) != ST_OK)
		return false;
	assert_ok(body_new(store, LARGE, &b));
	assert_ok(body_append(b, span_of(text, sizeof(text))));
	assert_ok(store_put(store, &env, b, true, NULL, &m));
	while (store_busy(store))
		turn();
	parked[nparked++] = m->id;
	assert_ok(store_park(m, UINT64_MAX, 0));
	return true;
}

/* False: it cannot be woken. */
static bool wake_and_forget(unsigned i)
{
	struct store_msg *m = NULL;
	enum status st = ST_AGAIN;

	for (int k = 0; k < 1000 && (st = store_wake(store, parked[i])) == ST_AGAIN; k++)
		turn();
	if (st != ST_OK)
		return false;
	while (!(m = turn()))
		;
	store_rcpt(m, 0, RCPT_DELIVERED, NULL, 0);
	store_forget(m);
	parked[i] = parked[--nparked];
	return true;
}

static void copying_never_keeps_a_message_for_ever(void **state)
{
	srandom(9);
	for (int round = 0; round < ROUNDS; round++) {
		while (put())
			turn();
		for (unsigned n = (unsigned)random() % 40; n && nparked; n--)
			assert_true(wake_and_forget((unsigned)random() % nparked));
		for (unsigned n = (unsigned)random() % 20; n; n--)
			turn();
		if (round % 3 == 2)
			while (nparked)
				assert_true(wake_and_forget((unsigned)random() % nparked));
	}
}

static int begin(void **state)
{
	strcpy(dir, access("/dev/shm", W_OK) == 0 ? "/dev/shm/weir-compact-XXXXXX" : "/var/tmp/weir-compact-XXXXXX");
	if (!mkdtemp(dir) || uring_init(&uring, 256) != ST_OK || arena_new(16 << 20, &arena) != ST_OK)
		return -1;
	return store_open(&uring, arena, &(struct store_config){ .dir = dir, .segment_bytes = SEGMENT, .max_bytes = SEGMENTS * SEGMENT,
		.spill_bytes = 256 * 1024 }, &store) == ST_OK ? 0 : -1;
}

static int end(void **state)
{
	char cmd[128];

	store_close(store);
	arena_free(arena);
	uring_done(&uring);
	snprintf(cmd, sizeof(cmd), "rm -rf %s", dir);
	return system(cmd);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(copying_never_keeps_a_message_for_ever) };

	return cmocka_run_group_tests(tests, begin, end);
}
