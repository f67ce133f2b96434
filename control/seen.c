#include "control/seen.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>

enum { DAY_S = 86400 };

static int by_ip(const void *a, const void *b)
{
	const struct evidence *x = a, *y = b;

	return memcmp(x->ip, y->ip, 16);
}

static void add_listener(struct seen *s, const struct evidence_listener *l)
{
	size_t i = 0;

	while (i < s->nlisteners && strcmp(s->listener[i].name, l->name) != 0)
		i++;
	if (i == s->nlisteners) {
		s->listener = realloc(s->listener, (i + 1) * sizeof(*l));
		CHECK(s->listener);
		memcpy(&s->listener[i], l, sizeof(*l));
		s->nlisteners++;
		return;
	}
	s->listener[i].sessions += l->sessions;
	s->listener[i].messages += l->messages;
	s->listener[i].recipients += l->recipients;
	s->listener[i].refused += l->refused;
}

static void add_file(struct seen *s, const char *path)
{
	struct evidence_table t;
	struct evidence_listener l;

	if (evidence_map(path, &t) != ST_OK)
		return;
	s->row = realloc(s->row, (s->n + t.rows + 1) * sizeof(*s->row));
	CHECK(s->row);
	for (uint32_t i = 0; i < t.rows; i++)
		s->n += evidence_read(&t, i, &s->row[s->n]);
	for (uint32_t i = 0; evidence_read_listener(&t, i, &l); i++)
		add_listener(s, &l);
	evidence_close(&t);
}

/* Rows of the same address, of several workers, become one. */
static void merge(struct seen *s)
{
	size_t n = 0;

	if (s->n)
		qsort(s->row, s->n, sizeof(*s->row), by_ip);
	for (size_t i = 0; i < s->n; i++) {
		if (n && by_ip(&s->row[n - 1], &s->row[i]) == 0)
			evidence_add(&s->row[n - 1], &s->row[i]);
		else
			memmove(&s->row[n++], &s->row[i], sizeof(*s->row));
	}
	s->n = n;
}

void seen_read(const char *run_dir, struct seen *ret)
{
	DIR *d = opendir(run_dir);
	struct dirent *e;

	*ret = (struct seen){ 0 };
	while (d && (e = readdir(d))) {
		char path[4500];

		if (strncmp(e->d_name, "evidence-", 9) != 0 || strchr(e->d_name, '.'))
			continue;
		snprintf(path, sizeof(path), "%.4200s/%.255s", run_dir, e->d_name);
		add_file(ret, path);
	}
	if (d)
		closedir(d);
	merge(ret);
}

void seen_free(struct seen *s)
{
	free(s->row);
	free(s->listener);
	*s = (struct seen){ 0 };
}

const struct evidence *seen_find(const struct seen *s, const uint8_t ip[16])
{
	struct evidence wanted = { 0 };

	memcpy(wanted.ip, ip, 16);
	return s->n ? bsearch(&wanted, s->row, s->n, sizeof(*s->row), by_ip) : NULL;
}

double seen_per_day(const struct evidence *e, uint64_t now_s)
{
	uint64_t s = now_s > e->first_s ? now_s - e->first_s : 0;

	return (double)e->messages / (s > DAY_S ? (double)s / DAY_S : 1);
}
