#include "control/entries.h"

#include <stdlib.h>
#include "control/aliasfile.h"
#include "spool/base/status.h"
#include "spool/mail/address.h"

enum { ERRORS_SHOWN = 100 };

const char *const entries_required[] = { "postmaster", "webmaster", "abuse", NULL };

/* ---- reading ---- */

static char *key_of(struct span name)
{
	char key[ADDRESS_LOCAL_MAX + 1], *text;
	struct out o = out_of(key, sizeof(key));

	CHECK(address_local_key(name, &o) == ST_OK);
	text = strndup(key, o.n);
	CHECK(text);
	return text;
}

static int by_key(const void *p, const void *q)
{
	const struct entry *a = p, *b = q;
	int c = strcmp(a->key, b->key);

	return c ? c : (a->line > b->line) - (a->line < b->line);
}

static bool shown(struct entries *e)
{
	return ++e->wrong <= ERRORS_SHOWN;
}

static void find_doubles(struct entries *e, const char *name, FILE *complain)
{
	for (size_t i = 1; i < e->n; i++)
		if (strcmp(e->row[i].key, e->row[i - 1].key) == 0 && shown(e))
			fprintf(complain, "%s:%u: \"%s\" is there already (line %u)\n", name, e->row[i].line, e->row[i].key, e->row[i - 1].line);
}

void entries_read(struct entries *e, struct span text, const char *name, FILE *complain)
{
	struct aliasfile f = aliasfile_of(text);
	enum aliasfile_event ev;
	size_t cap = 0;

	*e = (struct entries){ 0 };
	while ((ev = aliasfile_next(&f)) != ALIASFILE_END) {
		if (ev == ALIASFILE_WRONG) {
			if (shown(e))
				fprintf(complain, "%s:%u: %s\n", name, f.line, f.wrong);
			continue;
		}
		if (e->n == cap) {
			cap = cap ? cap * 2 : 64;
			e->row = realloc(e->row, cap * sizeof(*e->row));
			CHECK(e->row);
		}
		e->row[e->n++] = (struct entry){ .key = key_of(f.name), .name = f.name, .addresses = f.addresses, .line = f.line };
	}
	if (e->n)
		qsort(e->row, e->n, sizeof(*e->row), by_key);
	find_doubles(e, name, complain);
	if (e->wrong > ERRORS_SHOWN)
		fprintf(complain, "and %u more errors\n", e->wrong - ERRORS_SHOWN);
}

void entries_free(struct entries *e)
{
	for (size_t i = 0; i < e->n; i++)
		free(e->row[i].key);
	free(e->row);
	*e = (struct entries){ 0 };
}

const struct entry *entries_find(const struct entries *e, const char *key)
{
	const struct entry wanted = { .key = (char *)(uintptr_t)key };

	for (size_t low = 0, high = e->n; low < high;) {
		size_t mid = low + (high - low) / 2;
		int c = strcmp(wanted.key, e->row[mid].key);

		if (c == 0)
			return &e->row[mid];
		if (c < 0)
			high = mid;
		else
			low = mid + 1;
	}
	return NULL;
}

/* ---- the guards ---- */

enum guard entries_guard(const struct entries *e, const struct entries *live, unsigned shrink_percent, FILE *complain)
{
	enum guard g = e->wrong ? GUARD_WRONG : GUARD_PASSED;

	for (const char *const *r = entries_required; *r; r++)
		if (!entries_find(e, *r)) {
			fprintf(complain, "%s is missing: every domain has postmaster, webmaster and abuse\n", *r);
			g = GUARD_WRONG;
		}
	if (g == GUARD_PASSED && live && e->n * 100 < live->n * (100 - shrink_percent)) {
		fprintf(complain, "it has %zu entries and the live copy %zu: more than %u per cent would go\n", e->n, live->n, shrink_percent);
		g = GUARD_SHRUNK;
	}
	return g;
}

/* ---- comparison ---- */

static bool same_addresses(struct span a, struct span b)
{
	struct span x, y;
	bool more_a, more_b;

	for (;;) {
		more_a = aliasfile_address(&a, &x);
		more_b = aliasfile_address(&b, &y);
		if (!more_a || !more_b)
			return more_a == more_b;
		if (!span_eq(x, y))
			return false;
	}
}

static void note(struct out *o, char mark, const char *key)
{
	if (o->over || o->n + strlen(key) + 8 > o->cap) {
		if (!o->over && o->n + 4 <= o->cap)
			out_str(o, " ...");
		o->over = true; /* it ends here, not at a shorter name that would still fit */
		return;
	}
	if (o->n)
		out_char(o, ' ');
	out_char(o, mark);
	out_str(o, key);
}

void entries_compare(const struct entries *before, const struct entries *after, struct entries_diff *ret)
{
	struct out o = out_of(ret->text, sizeof(ret->text) - 1);
	size_t i = 0, j = 0, nb = before ? before->n : 0;

	*ret = (struct entries_diff){ 0 };
	while (i < nb || j < after->n) {
		const struct entry *b = i < nb ? &before->row[i] : NULL, *a = j < after->n ? &after->row[j] : NULL;
		int c = !b ? 1 : !a ? -1 : strcmp(b->key, a->key);

		if (c < 0) {
			ret->removed++;
			note(&o, '-', b->key);
		} else if (c > 0) {
			ret->added++;
			note(&o, '+', a->key);
		} else if (!same_addresses(b->addresses, a->addresses)) {
			ret->changed++;
			note(&o, '~', a->key);
		}
		i += c <= 0;
		j += c >= 0;
	}
	ret->text[o.n] = '\0';
}
