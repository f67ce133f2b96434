#include "control/change.h"

#include <stdio.h>
#include <stdlib.h>
#include "control/entries.h"
#include "spool/base/log.h"

static void compare(const struct change *c, struct span before, struct history_row *row)
{
	char *text = NULL;
	size_t n;
	FILE *f = open_memstream(&text, &n); /* both are known to be good: what would be complained about is not wanted */
	struct entries old, new;
	struct entries_diff d;

	CHECK(f);
	entries_read(&old, before, "", f);
	entries_read(&new, c->text, "", f);
	entries_compare(&old, &new, &d);
	row->entries = new.n;
	row->added = d.added;
	row->changed = d.changed;
	row->removed = d.removed;
	snprintf(row->diff, sizeof(row->diff), "%s", d.text);
	entries_free(&old);
	entries_free(&new);
	fclose(f);
	free(text);
}

static void log_change(const struct change *c, const struct history_row *row)
{
	struct logline l;

	log_begin(&l, LOG_LVL_INFO, "domain-changed");
	log_str(&l, "domain", c->domain);
	log_u64(&l, "n", row->n);
	log_str(&l, "how", row->how);
	log_str(&l, "by", row->by);
	log_u64(&l, "entries", row->entries);
	log_u64(&l, "added", row->added);
	log_u64(&l, "changed", row->changed);
	log_u64(&l, "removed", row->removed);
	log_emit(&l);
}

enum status change_make(const struct change *c, struct history_row *ret)
{
	struct history_row row = { .n = c->n, .passed_over = c->passed_over }, last;
	char *before = NULL;
	size_t n = 0;
	enum status st;

	/* a copy that was damaged is no reason to take no new one: then all is new */
	if (history_last(c->dir, c->domain, &last) == ST_OK && history_read(c->dir, c->domain, &last, &before, &n) != ST_OK)
		before = NULL;
	snprintf(row.how, sizeof(row.how), "%s", c->how);
	snprintf(row.by, sizeof(row.by), "%s", c->by);
	snprintf(row.source, sizeof(row.source), "%s", c->source);
	compare(c, span_of(before, before ? n : 0), &row);
	free(before);
	st = history_add(c->dir, c->domain, &row, c->text, c->keep, c->when);
	if (st != ST_OK)
		return st;
	log_change(c, &row);
	*ret = row;
	return ST_OK;
}
