#include "control/compiling.h"

#include <stdio.h>
#include "control/progress.h"

static const char *const doing[PROGRESS_NPHASE] = { [PROGRESS_READING] = "domains are read", [PROGRESS_WRITING] = "domains are written",
	[PROGRESS_NOTING] = "domains are noted in the histories; the tables are in use" };
static const char *const name[PROGRESS_NPHASE] = { [PROGRESS_READING] = "reading", [PROGRESS_WRITING] = "writing", [PROGRESS_NOTING] = "noting" };

void compiling_take(struct compiling *c, const struct counters_page *p)
{
	*c = (struct compiling){ 0 };
	if (!p)
		return;
	c->phase = atomic_load(&p->v[C_TABLES_COMPILING]);
	c->done = atomic_load(&p->v[C_TABLES_COMPILE_DONE]);
	c->of = atomic_load(&p->v[C_TABLES_COMPILE_OF]);
	if (c->phase >= PROGRESS_NPHASE)
		c->phase = 0;
}

void compiling_read(struct compiling *c, const char *run_dir)
{
	const struct counters_page *p;
	char path[4200];

	*c = (struct compiling){ 0 };
	snprintf(path, sizeof(path), "%s/stats/control-0", run_dir);
	if (counters_map(path, &p) != ST_OK)
		return;
	compiling_take(c, p);
	counters_unmap(p);
}

void compiling_print(const struct compiling *c)
{
	if (c->phase)
		printf("Tables are being compiled: %llu of %llu %s\n", (unsigned long long)c->done, (unsigned long long)c->of, doing[c->phase]);
}

json_t *compiling_json(const struct compiling *c)
{
	if (!c->phase)
		return json_null();
	return json_pack("{s:s, s:I, s:I}", "phase", name[c->phase], "done", (json_int_t)c->done, "domains", (json_int_t)c->of);
}
