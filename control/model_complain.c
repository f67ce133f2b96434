/* What the readers of the configuration say about it: file, line and what would be right. */
#include <stdarg.h>
#include "control/model.h"

static void complain_at(struct model *m, size_t line, const char *fmt, va_list ap)
{
	m->errors++;
	fputs(m->file ? m->file : "(default)", m->complain);
	if (line)
		fprintf(m->complain, ":%zu", line);
	fputs(": ", m->complain);
	vfprintf(m->complain, fmt, ap);
	fputc('\n', m->complain);
}

uint32_t key_line(const struct model *m, const char *key)
{
	return m->row_line[schema_find(span_str(key)) - schema];
}

void complain(struct model *m, const yaml_node_t *at, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	complain_at(m, at ? at->start_mark.line + 1 : 0, fmt, ap);
	va_end(ap);
}

void complain_line(struct model *m, uint32_t line, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	complain_at(m, line, fmt, ap);
	va_end(ap);
}

void warn_line(struct model *m, uint32_t line, const char *fmt, ...)
{
	va_list ap;

	fprintf(m->complain, "%s:%u: warning: ", m->file ? m->file : "(default)", line);
	va_start(ap, fmt);
	vfprintf(m->complain, fmt, ap);
	va_end(ap);
	fputc('\n', m->complain);
}

/* How many changes make a into b: for "did you mean". */
static unsigned distance(const char *a, const char *b)
{
	unsigned row[64], n = (unsigned)strlen(b);

	if (n >= 64 || strlen(a) >= 64)
		return 99;
	for (unsigned j = 0; j <= n; j++)
		row[j] = j;
	for (unsigned i = 1; a[i - 1]; i++) {
		unsigned diag = row[0];

		row[0] = i;
		for (unsigned j = 1; j <= n; j++) {
			unsigned change = diag + (a[i - 1] != b[j - 1]), best = change;

			diag = row[j];
			best = row[j] + 1 < best ? row[j] + 1 : best;
			best = row[j - 1] + 1 < best ? row[j - 1] + 1 : best;
			row[j] = best;
		}
	}
	return row[n];
}

void unknown_key(struct model *m, const yaml_node_t *at, const char *key)
{
	char best[64] = "", group[64];
	unsigned best_d = 4;

	for (size_t i = 0; i < schema_rows; i++) {
		unsigned whole = distance(key, schema[i].key), part;

		snprintf(group, sizeof(group), "%.*s", (int)strcspn(schema[i].key, "."), schema[i].key);
		part = distance(key, group);
		if (whole < best_d || part < best_d) {
			best_d = whole < part ? whole : part;
			snprintf(best, sizeof(best), "%s", whole < part ? schema[i].key : group);
		}
	}
	complain(m, at, "unknown key \"%s\"%s%s%s", key, *best ? "; did you mean \"" : "", best, *best ? "\"?" : "");
}
