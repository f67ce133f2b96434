/* Works on a store as a relay does, and writes down what it was told.
 *
 * spool_load DIRECTORY LEDGER POSITION SEED SECONDS [LIE]
 *
 * POSITION is recdisk's. Lines of the ledger, in the order of what happened; pos is the position before an act, and after a piece of news:
 *   put ID POS SEED BYTES NRCPT STATE | rcpt ID POS NUMBER STATE | state ID POS STATE | forget ID POS      acts
 *   ack ID POS                                                                                             the put is durable
 *   quiet POS                                                                                              all acts so far are */
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
#include "spool/base/clock.h"
#include "tests/crash/ledger.h"

enum { MESSAGES = 60000, LIVE_MAX = 11 << 20, KEPT_MAX = 5 << 20, ACTS_A_TURN = 10 };

#define STUCK_NS (3 * NS_PER_S)

struct known {
	struct store_msg *m; /* NULL: not awake */
	uint64_t id;
	bool durable, parked, kept, gone;
};

static struct known known[MESSAGES]; /* the number of a message is its seed */
static uint32_t nknown, oldest;
static uint64_t live, kept;
static FILE *ledger;
static const _Atomic uint64_t *position;
static unsigned rnd_state;
static uint64_t news_ns; /* when something was last told to be durable */

static uint64_t pos(void)
{
	return atomic_load(position);
}

static unsigned rnd(unsigned n)
{
	return (unsigned)rand_r(&rnd_state) % n;
}

static void happened(const struct store_event *ev)
{
	struct known *k = ev->msg ? &known[ev->msg->env.arrived_ns] : NULL;

	switch (ev->type) {
	case STORE_DURABLE:
		k->durable = true;
		news_ns = clock_mono_ns();
		fprintf(ledger, "ack %llu %llu\n", (unsigned long long)k->id, (unsigned long long)pos());
		break;
	case STORE_WOKEN:
		k->m = ev->msg;
		k->parked = false;
		break;
	case STORE_FAILED:
	case STORE_FENCED:
	case STORE_UNREADABLE:
		die("event %d", ev->type);
	case STORE_READ:
	case STORE_PEEKED:
	case STORE_ROOM:
		break;
	}
}

/* ---- acts ---- */

static size_t some_size(void)
{
	static const size_t sizes[] = { 0, 300, 2000, 4000, 4000, 9000, 30000, 60000, 120000, 300000, 900000 };

	return sizes[rnd(sizeof(sizes) / sizeof(sizes[0]))] + rnd(100);
}

/* A client that goes away before its message is complete. */
static void put_half(void)
{
	struct body *b;
	char part[4096];

	if (body_new(store, 0, &b) != ST_OK)
		die("a body");
	memset(part, 'X', sizeof(part));
	for (unsigned i = rnd(200); i > 0 && body_room(b, sizeof(part)) == ST_OK; i--)
		if (body_append(b, span_of(part, sizeof(part))) != ST_OK)
			break;
	body_drop(b);
}

static void put_one(void)
{
	struct known *k = &known[nknown];
	size_t bytes = some_size();
	unsigned nrcpt = 1 + rnd(3);
	bool scanned = rnd(2);
	uint64_t before = pos();

	if (nknown + 1 >= MESSAGES || live > LIVE_MAX || store_room(store, bytes) != ST_OK)
		return;
	k->m = put(nknown, bytes, nrcpt, scanned, happened);
	if (!k->m)
		return;
	k->id = k->m->id;
	k->kept = kept < KEPT_MAX && rnd(6) == 0;
	kept += k->kept ? bytes : 0;
	live += bytes;
	fprintf(ledger, "put %llu %llu %u %zu %u %u\n", (unsigned long long)k->id, (unsigned long long)before, nknown, bytes, nrcpt,
		(unsigned)k->m->state);
	nknown++;
}

static void set_state(struct known *k, enum msg_state state)
{
	if (k->m->state == state)
		return;
	fprintf(ledger, "state %llu %llu %u\n", (unsigned long long)k->id, (unsigned long long)pos(), (unsigned)state);
	store_set_state(k->m, state, SPAN("for a while"));
}

static void settle_one(struct known *k)
{
	struct reply reply;
	unsigned i = rnd(k->m->env.nrcpt);
	enum rcpt_state state = k->kept || rnd(3) == 0 ? RCPT_QUEUED : rnd(4) ? RCPT_DELIVERED : RCPT_BOUNCED;

	if (k->m->rcpt[i].state != RCPT_QUEUED)
		return;
	reply_set(&reply, state == RCPT_QUEUED ? 451 : 250, NULL, "so it is");
	fprintf(ledger, "rcpt %llu %llu %u %u\n", (unsigned long long)k->id, (unsigned long long)pos(), i, (unsigned)state);
	store_rcpt(k->m, i, state, &reply, state == RCPT_QUEUED ? clock_steady_ns() + NS_PER_S : 0);
	if (k->m->open_rcpts)
		return;
	fprintf(ledger, "forget %llu %llu\n", (unsigned long long)k->id, (unsigned long long)pos());
	live -= k->m->body_len;
	store_forget(k->m);
	k->m = NULL;
	k->gone = true;
}

static struct known *some_known(void)
{
	struct known *k;

	while (oldest < nknown && known[oldest].gone)
		oldest++;
	if (oldest == nknown)
		return NULL;
	k = &known[oldest + rnd(nknown - oldest)];
	return k->durable && !k->gone ? k : NULL;
}

static void act(void)
{
	unsigned what = rnd(100);
	struct known *k = some_known();

	if (what < 3) {
		put_half();
	} else if (what < 30) {
		put_one();
	} else if (k && k->parked) {
		if (what < 70 && store_wake(store, k->id) != ST_OK)
			return; /* on its way, or too many are */
	} else if (k && k->m) {
		if (k->m->state == MSG_PENDING)
			set_state(k, MSG_QUEUED);
		else if (what < 35)
			set_state(k, k->m->state == MSG_HELD ? MSG_QUEUED : MSG_HELD);
		else if (what < 85)
			settle_one(k);
		else if (store_park(k->m, UINT64_MAX, 0) == ST_OK) {
			k->m = NULL;
			k->parked = true;
		}
	}
}

int main(int argc, char **argv)
{
	uint64_t until;
	int fd;

	if (argc < 6)
		die("usage: spool_load DIRECTORY LEDGER POSITION SEED SECONDS [LIE]");
	fd = open(argv[3], O_RDONLY | O_CLOEXEC);
	position = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof(*position), PROT_READ, MAP_SHARED, fd, 0);
	ledger = fopen(argv[2], "we");
	if (position == MAP_FAILED || !ledger)
		die("%s, %s", argv[2], argv[3]);
	rnd_state = (unsigned)strtoul(argv[4], NULL, 10);
	setvbuf(ledger, NULL, _IOLBF, 0);
	open_spool(argv[1], argc > 6 ? argv[6] : NULL);
	news_ns = clock_mono_ns();
	until = news_ns + strtoull(argv[5], NULL, 10) * NS_PER_S;
	while (clock_mono_ns() < until) {
		for (unsigned i = rnd(ACTS_A_TURN); i > 0; i--)
			act();
		turn(happened);
		if (!store_busy(store)) {
			fprintf(ledger, "quiet %llu\n", (unsigned long long)pos());
			news_ns = clock_mono_ns();
		} else if (clock_mono_ns() > news_ns + STUCK_NS) {
			die("the store stands still");
		}
	}
	printf("%u messages\n", nknown);
	close_spool();
	return fclose(ledger) == 0 ? 0 : 1;
}
