#include "dataplane/generation.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include "spool/base/counters.h"
#include "spool/base/thread.h"

struct generation {
	char run_dir[4000];
	uint64_t ino;        /* what `current` was when last looked at; 0: there was none */
	bool checking;       /* the thread runs; what follows is its own until done */
	atomic_bool done;
	uint64_t wanted;     /* the number that `current` names */
	bool any;            /* there are no tables yet: an older generation is better than none */
	enum status st;
	struct tables tables;
	char why[512];
	pthread_t thread;
};

static void open_and_check(struct generation *g)
{
	char path[4096];

	snprintf(path, sizeof(path), "%s/tables/current", g->run_dir);
	/* a damaged generation must not turn our own addresses into unknown ones */
	g->st = g->any ? tables_open_current(g->run_dir, &g->tables) : tables_open(path, &g->tables);
	snprintf(g->why, sizeof(g->why), "%s", trail_text());
}

static void *check_thread(void *arg)
{
	struct generation *g = arg;

	open_and_check(g);
	atomic_store_explicit(&g->done, true, memory_order_release);
	return NULL;
}

static void take_over(struct worker *w, struct generation *g)
{
	if (g->st != ST_OK) {
		counter_set(C_TABLES_REFUSED, 1);
		log_msg(LOG_LVL_ERROR, "tables-refused", "%s: %s", w->tables.h ? "the last good ones stay in use" : "there are no others", g->why);
		return;
	}
	tables_close(&w->tables);
	w->tables = g->tables;
	counter_set(C_TABLES_REFUSED, w->tables.h->generation != g->wanted);
	counter_set(C_TABLES_GENERATION, w->tables.h->generation);
	log_msg(LOG_LVL_INFO, "tables", "generation %llu, %llu domains, %llu aliases", (unsigned long long)w->tables.h->generation,
		(unsigned long long)w->tables.h->domains.n, (unsigned long long)w->tables.h->aliases.n);
}

/* True when `current` is another file than it was. */
static bool is_new(struct generation *g)
{
	char path[4096];
	struct stat sb;

	snprintf(path, sizeof(path), "%s/tables/current", g->run_dir);
	if (stat(path, &sb) < 0 || sb.st_ino == g->ino)
		return false;
	g->ino = sb.st_ino;
	g->wanted = tables_current(g->run_dir);
	return true;
}

enum status generation_new(struct worker *w, struct generation **ret)
{
	struct generation *g = calloc(1, sizeof(*g));

	if (!g)
		return ST_NOMEM;
	snprintf(g->run_dir, sizeof(g->run_dir), "%s", w->opt->run_dir);
	*ret = g;
	g->any = true;
	(void)is_new(g); /* what is there now will not be news */
	open_and_check(g);
	if (g->st != ST_NOT_FOUND) /* else there have never been any */
		take_over(w, g);
	return ST_OK;
}

void generation_tick(struct worker *w)
{
	struct generation *g = w->generation;

	if (g->checking) {
		if (!atomic_load_explicit(&g->done, memory_order_acquire))
			return;
		pthread_join(g->thread, NULL);
		g->checking = false;
		take_over(w, g);
		return;
	}
	if (!is_new(g))
		return;
	g->any = !w->tables.h;
	atomic_store_explicit(&g->done, false, memory_order_relaxed);
	g->checking = thread_start(&g->thread, check_thread, g) == ST_OK;
	if (!g->checking)
		g->ino = 0; /* no thread to be had: at the next tick */
}
