#include "control/sources.h"

#include <stdio.h>
#include <stdlib.h>
#include "control/change.h"
#include "control/history.h"
#include "spool/base/file.h"
#include "spool/base/log.h"

enum { FILE_MAX = 256 << 20 };

static const char *directory(const struct snapshot *s)
{
	return snap_cstr(s, s->h->settings.managed_dir);
}

static enum status read_copy(const struct snapshot *s, const struct snap_mail_domain *m, struct source_text *ret)
{
	const char *domain = snap_cstr(s, m->name);
	struct history_row row;
	enum status st = history_last(directory(s), domain, &row);

	if (st == ST_NOT_FOUND && m->source == SOURCE_COMMAND) {
		ret->bytes = calloc(1, 1);
		CHECK(ret->bytes);
		return ST_OK;
	}
	return st == ST_OK ? history_read(directory(s), domain, &row, &ret->bytes, &ret->n) : st;
}

/* After a revert the copy stands in for the file, until that is changed. */
static enum status read_file(const struct snapshot *s, const struct snap_mail_domain *m, struct source_text *ret)
{
	enum status st = file_read(ret->name, FILE_MAX, NULL, &ret->bytes, &ret->n);
	struct history_row row;

	if (st != ST_OK || history_last(directory(s), snap_cstr(s, m->name), &row) != ST_OK || !row.passed_over ||
		row.passed_over != history_hash(span_of(ret->bytes, ret->n)))
		return st;
	free(ret->bytes);
	return history_read(directory(s), snap_cstr(s, m->name), &row, &ret->bytes, &ret->n);
}

enum status source_read(const struct snapshot *s, const struct snap_mail_domain *m, struct source_text *ret)
{
	*ret = (struct source_text){ .name = snap_cstr(s, m->value) };
	return m->source == SOURCE_FILE ? read_file(s, m, ret) : read_copy(s, m, ret);
}

static bool note_file(const struct snapshot *s, const struct snap_mail_domain *m, const char *by)
{
	struct change c = { .dir = directory(s), .domain = snap_cstr(s, m->name), .how = "file", .by = by, .source = snap_cstr(s, m->value),
		.keep = s->h->settings.managed_keep, .when = HISTORY_LATER };
	struct source_text t;
	struct history_row row = { 0 };
	bool changed = false, has = history_last(c.dir, c.domain, &row) == ST_OK;
	enum status st = source_read(s, m, &t); /* after the row: if a revert comes between them the row that is added has another number */

	if (st != ST_OK)
		return false; /* it was there a moment ago, when tables were made of it; if it stays away the next compilation says so */
	if (!has || row.hash != history_hash(span_of(t.bytes, t.n))) {
		c.text = span_of(t.bytes, t.n);
		c.n = row.n + 1;
		st = change_make(&c, &row);
		changed = st == ST_OK;
		if (!changed && st != ST_AGAIN)
			log_msg(LOG_LVL_ERROR, "domain-history", "%s: %s", c.domain, trail_text());
	}
	free(t.bytes);
	return changed;
}

unsigned sources_note_files(const struct snapshot *s, const char *by, struct progress *p)
{
	uint32_t n;
	const struct snap_mail_domain *m = snap_mail_domains(s, &n);
	unsigned changed = 0;

	for (uint32_t i = 0; i < n; i++) {
		progress_tell(p, PROGRESS_NOTING, i, n);
		if (m[i].kind == DOMAIN_ALIASES && m[i].source == SOURCE_FILE)
			changed += note_file(s, &m[i], by);
	}
	if (changed && history_flush(directory(s)) != ST_OK)
		log_msg(LOG_LVL_ERROR, "domain-history", "%s", trail_text());
	return changed;
}
