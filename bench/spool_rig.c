/* A store alone, as a worker drives it. */
#include <stdio.h>
#include <stdlib.h>
#include "bench/spool.h"
#include "spool/base/clock.h"

enum { PIECE = 16 * 1024 /* a read of the network */, RCPTS = 8 };

static void must(enum status st)
{
	if (st == ST_OK)
		return;
	fprintf(stderr, "weir-bench: spool: %s\n", trail_text());
	_exit(1);
}

void rig_open(struct rig *r, const char *dir, uint32_t partition, size_t arena_bytes, const struct spool_options *o)
{
	r->cfg = (struct store_config){ .dir = dir, .partition = partition, .segment_bytes = o->segment_bytes, .max_bytes = o->max_bytes,
		.spill_bytes = o->segment_bytes / 4 < 1 << 20 ? o->segment_bytes / 4 : 1 << 20, .direct = true };
	must(uring_init(&r->uring, 4096));
	must(arena_new(arena_bytes, &r->arena));
	must(store_open(&r->uring, r->arena, &r->cfg, &r->store));
}

void rig_close(struct rig *r)
{
	store_close(r->store);
	arena_free(r->arena);
	uring_done(&r->uring);
}

struct store_msg *rig_put(struct rig *r, struct span text, unsigned nrcpt, void *user)
{
	static const struct env_rcpt rcpt[RCPTS] = { { .addr = SPAN("somebody@recipient.example") }, { .addr = SPAN("another@recipient.example") },
		{ .addr = SPAN("third@elsewhere.example") } };
	struct envelope env = { .arrived_ns = 1700000000 * NS_PER_S, .sender = SPAN("sender@client.example"), .helo = SPAN("mx.client.example"),
		.client_name = SPAN("mx.client.example"), .client_port = 2525, .flags = ENV_ESMTP, .nrcpt = nrcpt,
		.rcpt = (struct env_rcpt *)(uintptr_t)rcpt };
	struct store_msg *m;
	struct body *b;

	CHECK(nrcpt <= RCPTS);
	if (store_room(r->store, text.n) != ST_OK)
		return NULL;
	must(body_new(r->store, text.n, &b));
	while (text.n) {
		size_t n = text.n < PIECE ? text.n : PIECE;

		if (body_room(b, n) != ST_OK || body_append(b, span_of(text.p, n)) != ST_OK) {
			body_drop(b);
			return NULL;
		}
		text = span_skip(text, n);
	}
	return store_put(r->store, &env, b, true, user, &m) == ST_OK ? m : NULL;
}

void rig_turn(struct rig *r, uint64_t wait_ns)
{
	store_commit(r->store);
	must(uring_wait(&r->uring, wait_ns));
}

void rig_deliver(struct store_msg *m)
{
	for (uint32_t i = 0; i < m->env.nrcpt; i++)
		if (m->rcpt[i].state == RCPT_QUEUED)
			store_rcpt(m, i, RCPT_DELIVERED, NULL, 0);
	store_forget(m);
}
