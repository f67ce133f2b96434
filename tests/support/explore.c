#include "tests/support/explore.h"

#include <setjmp.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>
#include "spool/base/status.h"

/* A view says up to which write a thread is bound to have seen each location; behind the locations, up to which step it knows each thread. */
typedef uint8_t view[EX_VIEW];

struct write {
	uint32_t value;
	view seen;
	bool swap; /* nothing may come between it and the write before it */
};

/* Where an execution is. Padding is zero: equal states have equal bytes. */
struct state {
	struct write write[EX_LOCS][EX_WRITES]; /* in modification order */
	uint8_t nwrites[EX_LOCS];
	view cur[EX_THREADS];     /* what loads must respect */
	view pending[EX_THREADS]; /* what an acquire fence would add */
	view fenced[EX_THREADS];  /* what a relaxed store passes on */
	view fences;              /* of all sequentially consistent fences */
	uint8_t read_at[EX_LOCS][EX_THREADS], written_at[EX_LOCS][EX_THREADS]; /* steps of accesses that are not atomic */
	uint32_t result[EX_THREADS][EX_STEPS];
	uint8_t nsteps[EX_THREADS];
	bool dead[EX_THREADS], wake[EX_THREADS];
	uint8_t deaths;
	uint32_t count[EX_THREADS];
};

static struct {
	const struct ex_config *c;
	struct ex_report *ret;
	uint64_t *known;  /* hashes of the states that were seen; 0: free */
	size_t known_cap;
	struct { int thread; struct ex_step step; uint32_t result; bool death; } path[2 * EX_STEPS];
	int depth;
	struct state state[2 * EX_STEPS]; /* of every step of the path */
	/* the thread that is being run again up to its next step */
	const struct state *at;
	int thread;
	uint8_t done;
	struct ex_step next;
	jmp_buf stop;
} ex;

/* ---- threads: functions that are run again from the start, with the results that they had ---- */

uint32_t ex_do(struct ex_step s)
{
	if (ex.done < ex.at->nsteps[ex.thread])
		return ex.at->result[ex.thread][ex.done++];
	ex.next = s;
	longjmp(ex.stop, 1);
}

void ex_fault(const char *what)
{
	if (!ex.ret->fault)
		ex.ret->fault = what;
	longjmp(ex.stop, 2);
}

/* The thread's next step in *ret; false: it has ended. */
static bool next_step(const struct state *s, int t, struct ex_step *ret)
{
	ex.at = s;
	ex.thread = t;
	ex.done = 0;
	switch (setjmp(ex.stop)) {
	case 0:
		ex.c->thread[t]();
		return false;
	case 1:
		*ret = ex.next;
		if (ex.c->bend)
			ex.c->bend(t, ret);
		return true;
	default:
		return false;
	}
}

/* ---- memory ---- */

static void join(view into, const view from)
{
	for (int i = 0; i < EX_VIEW; i++)
		if (into[i] < from[i])
			into[i] = from[i];
}

static bool acquires(int order)
{
	return order == memory_order_acquire || order == memory_order_acq_rel || order == memory_order_seq_cst;
}

static bool releases(int order)
{
	return order == memory_order_release || order == memory_order_acq_rel || order == memory_order_seq_cst;
}

static void do_load(struct state *s, int t, const struct ex_step *step, uint8_t which)
{
	const struct write *w = &s->write[step->loc][which];

	s->cur[t][step->loc] = which;
	join(acquires(step->order) ? s->cur[t] : s->pending[t], w->seen);
	join(s->pending[t], w->seen);
}

static void shift(view v, int loc, uint8_t at)
{
	if (v[loc] >= at)
		v[loc]++;
}

/* Makes room for a write at place `at` of the modification order. */
static struct write *insert(struct state *s, int loc, uint8_t at)
{
	struct write *w = s->write[loc];

	CHECK(s->nwrites[loc] < EX_WRITES);
	memmove(&w[at + 1], &w[at], (size_t)(s->nwrites[loc] - at) * sizeof(*w));
	s->nwrites[loc]++;
	memset(&w[at], 0, sizeof(*w));
	for (int l = 0; l < EX_LOCS; l++)
		for (int i = 0; i < s->nwrites[l]; i++)
			shift(s->write[l][i].seen, loc, at);
	for (int t = 0; t < EX_THREADS; t++) {
		shift(s->cur[t], loc, at);
		shift(s->pending[t], loc, at);
		shift(s->fenced[t], loc, at);
	}
	shift(s->fences, loc, at);
	return &w[at];
}

static void do_store(struct state *s, int t, const struct ex_step *step, uint8_t at, bool swap)
{
	struct write *w = insert(s, step->loc, at);

	s->cur[t][step->loc] = at;
	w->value = step->value;
	w->swap = swap;
	memcpy(w->seen, releases(step->order) ? s->cur[t] : s->fenced[t], sizeof(view));
	if (swap) /* a release sequence goes on through it */
		join(w->seen, s->write[step->loc][at - 1].seen);
	w->seen[step->loc] = at;
}

static void do_fence(struct state *s, int t, int order)
{
	if (acquires(order))
		join(s->cur[t], s->pending[t]);
	if (order == memory_order_seq_cst) {
		join(s->cur[t], s->fences);
		memcpy(s->fences, s->cur[t], sizeof(view));
	}
	if (releases(order))
		memcpy(s->fenced[t], s->cur[t], sizeof(view));
}

/* An access that is not atomic: all that the other thread did there must be known to have happened. */
static void do_plain(struct state *s, int t, const struct ex_step *step, bool is_write)
{
	const uint8_t *seen = &s->cur[t][EX_LOCS];
	int o = !t;

	if (s->written_at[step->loc][o] > seen[o] || (is_write && s->read_at[step->loc][o] > seen[o]))
		ex.ret->fault = "a race: an entry is touched by both sides at once";
	(is_write ? s->written_at : s->read_at)[step->loc][t] = s->cur[t][EX_LOCS + t];
	if (is_write)
		do_store(s, t, &(struct ex_step){ .loc = step->loc, .order = memory_order_relaxed, .value = step->value }, s->nwrites[step->loc], false);
	else
		s->cur[t][step->loc] = (uint8_t)(s->nwrites[step->loc] - 1);
}

/* ---- the search ---- */

static bool seen_before(const struct state *s)
{
	uint64_t h = XXH3_64bits(s, sizeof(*s)) | 1;
	size_t i = h & (ex.known_cap - 1);

	for (; ex.known[i]; i = (i + 1) & (ex.known_cap - 1))
		if (ex.known[i] == h)
			return true;
	ex.known[i] = h;
	CHECK(++ex.ret->states < ex.known_cap / 4 * 3);
	return false;
}

static void tell(void)
{
	static const char *const name[] = { "load", "store", "swap", "fence", "read", "write", "wake", "block", "await", "count" };
	size_t n = 0;

	for (int i = 0; i < ex.depth && n < sizeof(ex.ret->trace) - 80; i++) {
		const struct ex_step *p = &ex.path[i].step;

		n += (size_t)snprintf(ex.ret->trace + n, 80, "thread %d: %s location %d value %u -> %u\n", ex.path[i].thread,
			ex.path[i].death ? "dies" : name[p->kind], p->loc, p->value, ex.path[i].result);
	}
}

static void search(const struct state *s);

/* Goes on from `s`, in which t has done `step`. */
static void go_on(struct state *s, int t, const struct ex_step *step, uint32_t result)
{
	CHECK(s->nsteps[t] < EX_STEPS && ex.depth + 2 < 2 * EX_STEPS);
	s->result[t][s->nsteps[t]++] = result;
	ex.path[ex.depth].thread = t;
	ex.path[ex.depth].step = *step;
	ex.path[ex.depth].death = false;
	ex.path[ex.depth++].result = result;
	search(s);
	ex.depth--;
}

/* The state behind `s`, before what t does. */
static struct state *begin(const struct state *s, int t)
{
	struct state *n = &ex.state[ex.depth + 1];

	memcpy(n, s, sizeof(*n));
	n->cur[t][EX_LOCS + t]++;
	return n;
}

/* Every value that the load may give; a swap gives the value before its own place. */
static void try_loads(const struct state *s, int t, const struct ex_step *step)
{
	for (uint8_t i = s->cur[t][step->loc]; i < s->nwrites[step->loc] && !ex.ret->fault; i++) {
		struct state *n;

		if (step->kind == EX_SWAP && i + 1 < s->nwrites[step->loc] && s->write[step->loc][i + 1].swap)
			continue;
		n = begin(s, t);
		do_load(n, t, step, i);
		if (step->kind == EX_SWAP)
			do_store(n, t, step, (uint8_t)(i + 1), true);
		go_on(n, t, step, s->write[step->loc][i].value);
	}
}

/* Every place in the modification order that the store may take. */
static void try_stores(const struct state *s, int t, const struct ex_step *step)
{
	for (uint8_t i = (uint8_t)(s->cur[t][step->loc] + 1); i <= s->nwrites[step->loc] && !ex.ret->fault; i++) {
		struct state *n;

		if (i < s->nwrites[step->loc] && s->write[step->loc][i].swap)
			continue;
		n = begin(s, t);
		do_store(n, t, step, i, false);
		go_on(n, t, step, 0);
	}
}

/* Waiting steps. False: nothing to wake it yet. */
static bool try_wait(const struct state *s, int t, const struct ex_step *step)
{
	bool come = step->kind == EX_BLOCK ? s->wake[t] : s->cur[t][step->loc] + 1 < s->nwrites[step->loc];
	struct state *n;

	if (come) {
		n = begin(s, t);
		if (step->kind == EX_BLOCK)
			n->wake[t] = false;
		else
			do_load(n, t, &(struct ex_step){ .loc = step->loc, .order = memory_order_relaxed }, (uint8_t)(s->nwrites[step->loc] - 1));
		go_on(n, t, step, 1);
	}
	if (s->dead[!t] && !ex.ret->fault) {
		n = begin(s, t);
		join(n->cur[t], s->cur[!t]); /* the system tells of a death after all that the dead did */
		go_on(n, t, step, 0);
	}
	return come || s->dead[!t];
}

static bool try_step(const struct state *s, int t, const struct ex_step *step)
{
	struct state *n = begin(s, t);

	switch (step->kind) {
	case EX_LOAD:
	case EX_SWAP:
		try_loads(s, t, step);
		return true;
	case EX_STORE:
		try_stores(s, t, step);
		return true;
	case EX_BLOCK:
	case EX_AWAIT:
		return try_wait(s, t, step);
	case EX_FENCE:
		do_fence(n, t, step->order);
		break;
	case EX_READ:
	case EX_WRITE:
		do_plain(n, t, step, step->kind == EX_WRITE);
		break;
	case EX_WAKE:
		n->wake[!t] = true;
		break;
	case EX_COUNT:
		n->count[t]++;
		break;
	}
	go_on(n, t, step, step->kind == EX_READ ? n->write[step->loc][n->cur[t][step->loc]].value : 0);
	return true;
}

static void try_death(const struct state *s, int t)
{
	struct state *n = &ex.state[ex.depth + 1];

	memcpy(n, s, sizeof(*n));
	n->dead[t] = true;
	n->deaths++;
	ex.path[ex.depth].thread = t;
	ex.path[ex.depth].step = (struct ex_step){ 0 };
	ex.path[ex.depth].result = 0;
	ex.path[ex.depth++].death = true;
	search(n);
	ex.depth--;
}

static void end_of(const struct state *s, const bool blocked[EX_THREADS])
{
	struct ex_end e = { 0 };

	ex.ret->ends++;
	for (int l = 0; l < EX_LOCS; l++)
		e.last[l] = s->write[l][s->nwrites[l] - 1].value;
	for (int t = 0; t < EX_THREADS; t++) {
		e.count[t] = s->count[t];
		e.dead[t] = s->dead[t];
		e.blocked[t] = blocked[t];
	}
	ex.ret->fault = ex.c->judge(&e);
}

static void search(const struct state *s)
{
	bool moved = false, blocked[EX_THREADS] = { 0 };
	struct ex_step step;

	if (!ex.ret->fault && seen_before(s))
		return;
	for (int t = 0; t < EX_THREADS && !ex.ret->fault; t++) {
		if (s->dead[t] || !next_step(s, t, &step) || ex.ret->fault)
			continue;
		blocked[t] = !try_step(s, t, &step);
		moved = moved || !blocked[t];
		if (s->deaths < ex.c->deaths && !ex.ret->fault)
			try_death(s, t);
	}
	if (!moved && !ex.ret->fault)
		end_of(s, blocked);
	if (ex.ret->fault && !ex.ret->trace[0])
		tell();
}

void explore(const struct ex_config *c, struct ex_report *ret)
{
	memset(ret, 0, sizeof(*ret));
	memset(&ex.state[0], 0, sizeof(ex.state[0]));
	memset(ex.state[0].nwrites, 1, sizeof(ex.state[0].nwrites)); /* the zeros of the beginning */
	ex.c = c;
	ex.ret = ret;
	ex.depth = 0;
	ex.known_cap = 1 << 22;
	ex.known = calloc(ex.known_cap, sizeof(*ex.known));
	CHECK(ex.known);
	search(&ex.state[0]);
	free(ex.known);
}
