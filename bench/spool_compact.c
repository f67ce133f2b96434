/* A share of the messages stays deferred while the rest is delivered; the deferred ones leave in any order when there are too many of them. How much is copied
 * so that the ring never runs full? */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "bench/spool.h"
#include "spool/base/clock.h"
#include "spool/base/counters.h"

enum { OUTSTANDING = 128, LEAVING = 64 };
#define STUCK_NS (10 * NS_PER_S)

struct mill {
	struct rig rig;
	const struct spool_options *o;
	struct span text;
	uint64_t *kept, nkept, most; /* ids of parked messages */
	uint64_t put, flying, leaving, accepted, dice, full, moved_ns;
};

static uint64_t dice(struct mill *m)
{
	m->dice ^= m->dice << 13;
	m->dice ^= m->dice >> 7;
	m->dice ^= m->dice << 17;
	return m->dice;
}

static void stay(struct mill *m, struct store_msg *msg)
{
	struct reply r;

	reply_set(&r, 451, "4.7.1", "please come back later");
	store_rcpt(msg, 0, RCPT_QUEUED, &r, clock_steady_ns() + 3600 * NS_PER_S);
	m->kept[m->nkept++] = msg->id;
	CHECK(store_park(msg, clock_mono_ns() + 3600 * NS_PER_S, 0) == ST_OK);
}

static void on_event(struct mill *m, const struct store_event *ev)
{
	switch (ev->type) {
	case STORE_DURABLE:
		m->flying--;
		m->accepted += ev->msg->body_len;
		m->moved_ns = clock_mono_ns();
		if (ev->msg->user)
			stay(m, ev->msg);
		else
			rig_deliver(ev->msg);
		break;
	case STORE_WOKEN:
		m->leaving--;
		rig_deliver(ev->msg);
		break;
	case STORE_FAILED:
	case STORE_FENCED:
	case STORE_UNREADABLE:
		fprintf(stderr, "weir-bench: spool: %s\n", ev->reason ? ev->reason : "a record became unreadable");
		_exit(1);
	case STORE_READ:
	case STORE_PEEKED:
	case STORE_ROOM:
		break;
	}
}

static void turn(struct mill *m, unsigned percent)
{
	struct store_event ev;

	while (m->flying < OUTSTANDING && m->nkept + m->flying < m->most + OUTSTANDING) {
		bool stays = dice(m) % 100 < percent;

		if (!rig_put(&m->rig, m->text, 1, stays ? m : NULL)) {
			m->full++;
			break;
		}
		m->put++;
		m->flying++;
	}
	while (m->nkept > m->most && m->leaving < LEAVING) {
		uint64_t i = dice(m) % m->nkept;

		if (store_wake(m->rig.store, m->kept[i]) != ST_OK)
			break;
		m->kept[i] = m->kept[--m->nkept];
		m->leaving++;
	}
	rig_turn(&m->rig, 20 * NS_PER_MS);
	while (store_event(m->rig.store, &ev))
		on_event(m, &ev);
	if (clock_mono_ns() - m->moved_ns > STUCK_NS) {
		fprintf(stderr, "weir-bench: spool: nothing is accepted any more, with %llu messages kept\n", (unsigned long long)m->nkept);
		_exit(1);
	}
}

static void report(const struct mill *m, uint64_t accepted, uint64_t ns, uint64_t cpu_ns)
{
	uint64_t n = accepted / m->o->size;
	uint32_t awake;

	printf("percent=%u ratio=%.1f deferred_mb=%llu ring_mb=%llu accepted_mb=%llu rewritten=%.3f checkpoints=%.3f written=%.3f "
	       "rate=%.0f cpu_us=%.2f queue=%u segments=%llu full=%llu\n", m->o->percent, m->o->ratio,
		(unsigned long long)(m->most * m->o->size >> 20), (unsigned long long)(m->rig.cfg.max_bytes >> 20),
		(unsigned long long)(accepted >> 20), (double)counter_get(C_SPOOL_MOVED_BYTES) / (double)accepted,
		(double)counter_get(C_SPOOL_CHECKPOINT_BYTES) / (double)accepted, (double)counter_get(C_COMMIT_BYTES) / (double)accepted,
		(double)n * 1e9 / (double)ns, (double)cpu_ns / 1e3 / (double)n, store_count(m->rig.store, &awake),
		(unsigned long long)counter_get(C_SPOOL_SEGMENTS), (unsigned long long)m->full);
}

int spool_compact(const struct spool_options *o)
{
	struct spool_options with = *o;
	struct mill m = { .o = &with, .text = bench_text(o->size), .most = o->messages, .dice = 88172645463325252ull };
	uint64_t begin, cpu;

	with.max_bytes = (uint64_t)(o->ratio * (double)o->messages * o->size);
	m.kept = calloc(o->messages + 4 * OUTSTANDING, sizeof(*m.kept));
	CHECK(m.kept);
	rig_open(&m.rig, o->dir, 0, 128u << 20, &with);
	m.moved_ns = clock_mono_ns();
	while (m.nkept < m.most)
		turn(&m, 100);
	for (uint64_t bytes = m.accepted; m.accepted - bytes < with.max_bytes;) /* once round the ring */
		turn(&m, o->percent);
	counter_set(C_SPOOL_MOVED_BYTES, 0);
	counter_set(C_SPOOL_CHECKPOINT_BYTES, 0);
	counter_set(C_COMMIT_BYTES, 0);
	m.accepted = m.full = 0;
	begin = clock_mono_ns();
	cpu = cpu_self_ns();
	while (clock_mono_ns() - begin < (uint64_t)(o->seconds * 1e9))
		turn(&m, o->percent);
	report(&m, m.accepted, clock_mono_ns() - begin, cpu_self_ns() - cpu);
	rig_close(&m.rig);
	return 0;
}
