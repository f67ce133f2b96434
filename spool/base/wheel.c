/* Five levels of 256 slots: level 0 has the next 256 ticks, level n the rest in steps of 256^n ticks. A timer of a higher level moves down when the
 * wheel comes to its slot, so that setting and cancelling are O(1) and each timer moves four times at the most. */
#include "spool/base/wheel.h"

#include <stddef.h>
#include <stdlib.h>
#include "spool/base/clock.h"
#include "spool/base/status.h"

enum { LEVELS = 5, SLOT_BITS = 8, SLOTS = 1 << SLOT_BITS };
#define TICK_NS (10 * NS_PER_MS)

struct wheel {
	uint64_t now_tick;  /* all ticks up to this one have been looked at */
	uint64_t ntimers;
	struct timer *due;  /* taken out of level 0, not given yet */
	struct timer *slot[LEVELS][SLOTS];
	uint64_t used[LEVELS][SLOTS / 64]; /* bit set: the slot may have timers */
};

static void link_in(struct timer **head, struct timer *t)
{
	t->next = *head;
	t->prevp = head;
	if (t->next)
		t->next->prevp = &t->next;
	*head = t;
}

static void link_out(struct timer *t)
{
	*t->prevp = t->next;
	if (t->next)
		t->next->prevp = t->prevp;
	t->next = NULL;
	t->prevp = NULL;
}

struct wheel *wheel_new(uint64_t now_ns)
{
	struct wheel *w = calloc(1, sizeof(*w));

	if (w)
		w->now_tick = now_ns / TICK_NS;
	return w;
}

void wheel_free(struct wheel *w)
{
	free(w);
}

static void place(struct wheel *w, struct timer *t)
{
	uint64_t delta = t->due_tick > w->now_tick ? t->due_tick - w->now_tick : 0;
	unsigned level = 0, s;

	if (!delta) {
		link_in(&w->due, t);
		return;
	}
	while (level < LEVELS - 1 && delta >= 1ull << (SLOT_BITS * (level + 1)))
		level++;
	s = (unsigned)(t->due_tick >> (SLOT_BITS * level)) & (SLOTS - 1);
	link_in(&w->slot[level][s], t);
	w->used[level][s / 64] |= 1ull << (s % 64);
}

void wheel_set(struct wheel *w, struct timer *t, uint64_t due_ns)
{
	uint64_t far = w->now_tick + (1ull << (SLOT_BITS * LEVELS)) - 1;

	if (timer_armed(t)) {
		link_out(t);
		w->ntimers--;
	}
	t->due_tick = due_ns / TICK_NS + (due_ns % TICK_NS != 0);
	if (t->due_tick > far)
		t->due_tick = far;
	place(w, t);
	w->ntimers++;
}

void wheel_cancel(struct wheel *w, struct timer *t)
{
	if (!timer_armed(t))
		return;
	link_out(t);
	w->ntimers--;
}

/* Empties a slot of a higher level into the lower ones. */
static void cascade(struct wheel *w, unsigned level)
{
	unsigned s = (unsigned)(w->now_tick >> (SLOT_BITS * level)) & (SLOTS - 1);
	struct timer *t;

	while ((t = w->slot[level][s])) {
		link_out(t);
		place(w, t);
	}
	w->used[level][s / 64] &= ~(1ull << (s % 64));
}

static void advance(struct wheel *w)
{
	unsigned s;
	struct timer *t;

	w->now_tick++;
	for (unsigned level = LEVELS - 1; level > 0; level--)
		if ((w->now_tick & ((1ull << (SLOT_BITS * level)) - 1)) == 0)
			cascade(w, level);
	s = (unsigned)w->now_tick & (SLOTS - 1);
	while ((t = w->slot[0][s])) {
		link_out(t);
		link_in(&w->due, t);
	}
	w->used[0][s / 64] &= ~(1ull << (s % 64));
}

/* Ticks until the next one at which something can happen, at most `most`: the next used slot of level 0, or the end of its round. */
static uint64_t next_step(const struct wheel *w, uint64_t most)
{
	unsigned s = (unsigned)w->now_tick & (SLOTS - 1);
	uint64_t n = 1;

	while (n < most && s + n < SLOTS && !(w->used[0][(s + n) / 64] & 1ull << ((s + n) % 64)))
		n++;
	return n;
}

struct timer *wheel_expire(struct wheel *w, uint64_t now_ns)
{
	uint64_t tick = now_ns / TICK_NS;
	struct timer *t;

	if (!w->ntimers && tick > w->now_tick)
		w->now_tick = tick;
	while (!w->due && w->now_tick < tick) {
		w->now_tick += next_step(w, tick - w->now_tick) - 1;
		advance(w);
	}
	t = w->due;
	if (t) {
		link_out(t);
		w->ntimers--;
	}
	return t;
}

uint64_t wheel_wait_ns(const struct wheel *w, uint64_t now_ns)
{
	uint64_t tick;

	if (w->due)
		return 0;
	if (!w->ntimers)
		return UINT64_MAX;
	tick = w->now_tick + next_step(w, SLOTS);
	return tick * TICK_NS > now_ns ? tick * TICK_NS - now_ns : 0;
}
