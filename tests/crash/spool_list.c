/* Recovers a store and says what is in it: spool_list DIRECTORY [SEED]
 *
 *   message ID SEED BYTES STATE good|bad STATE:ATTEMPTS,... (of the recipients)
 *   damaged N
 *
 * With a seed, one more message is put, so that a second call shows whether the store goes on as it should: "put ID". */
#include <stdlib.h>
#include "spool/base/clock.h"
#include "spool/base/counters.h"
#include "tests/crash/ledger.h"

static struct store_msg *woken;
static unsigned reads, durable;

static void happened(const struct store_event *ev)
{
	if (ev->type == STORE_WOKEN)
		woken = ev->msg;
	reads += ev->type == STORE_READ;
	durable += ev->type == STORE_DURABLE;
}

/* turn() until *what is true. */
#define AWAIT(what)                                                                                                                \
	for (uint64_t until = clock_mono_ns() + 10 * NS_PER_S; !(what);) {                                                         \
		if (clock_mono_ns() > until)                                                                                       \
			die("nothing happens");                                                                                    \
		turn(happened);                                                                                                    \
	}

static bool body_is_good(struct store_msg *m)
{
	struct body_reader *r;
	struct span piece;
	uint64_t at = 0;
	enum status st;
	bool good = true;

	if (store_read_open(m, 1, &r) != ST_OK)
		return false;
	while ((st = store_read(r, &piece)) == ST_OK || st == ST_AGAIN) {
		char *right;

		if (st == ST_AGAIN) {
			reads = 0;
			AWAIT(reads);
			continue;
		}
		right = malloc(piece.n);
		content(m->env.arrived_ns, at, right, piece.n);
		good = good && memcmp(right, piece.p, piece.n) == 0;
		at += piece.n;
		free(right);
	}
	store_read_close(r);
	return good && st == ST_NOT_FOUND && at == m->body_len;
}

static void list_one(uint64_t id)
{
	enum status st;

	woken = NULL;
	while ((st = store_wake(store, id)) == ST_AGAIN)
		turn(happened);
	if (st != ST_OK)
		die("waking %llu", (unsigned long long)id);
	AWAIT(woken);
	printf("message %llu %llu %llu %u %s ", (unsigned long long)id, (unsigned long long)woken->env.arrived_ns,
		(unsigned long long)woken->body_len, woken->state, body_is_good(woken) ? "good" : "bad");
	for (uint32_t i = 0; i < woken->env.nrcpt; i++)
		printf("%s%u:%u", i ? "," : "", woken->rcpt[i].state, woken->rcpt[i].attempts);
	putchar('\n');
	store_evict(woken);
}

int main(int argc, char **argv)
{
	struct store_row row;
	struct store_msg *m;
	size_t at = 0;

	if (argc < 2)
		die("usage: spool_list DIRECTORY [SEED]");
	open_spool(argv[1], NULL);
	while (store_next(store, &at, &row))
		if (row.damaged)
			printf("unreadable %llu\n", (unsigned long long)row.id);
		else
			list_one(row.id);
	printf("damaged %llu\n", (unsigned long long)counter_get(C_SPOOL_DAMAGED));
	if (argc > 2) {
		m = put(strtoull(argv[2], NULL, 10), 5000, 1, true, happened);
		if (m) /* else the spool is full, as it was before */
			AWAIT(durable);
		if (m)
			printf("put %llu\n", (unsigned long long)m->id);
	}
	close_spool();
	return fflush(stdout) == 0 ? 0 : 1;
}
