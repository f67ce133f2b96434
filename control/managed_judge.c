#include "control/managed_judge.h"

#include <stdarg.h>
#include <stdlib.h>
#include "control/entries.h"
#include "control/notices.h"
#include "spool/base/file.h"
#include "spool/base/log.h"

/* Failures in a row before postmaster hears of a server that is away. */
enum { TOLD_AFTER = 3, TEXT_MAX = 256 << 20 };

/* ---- who is told ---- */

static void on_told(const char *domain, uint64_t key)
{
	struct managed *d = managed_find(domain);

	if (!d) /* the configuration is another one by now */
		return;
	d->state.told = key;
	managed_keep(d);
}

/* One mail, and no other until the situation is another one (C4). */
static void tell(struct managed *d, uint64_t key, const char *why)
{
	char to[300], subject[400], *text = NULL;
	struct history_row live = { 0 };
	bool have = history_last(d->dir, d->domain, &live) == ST_OK;
	size_t n;
	FILE *f;

	if (d->state.told == key)
		return;
	if (have) /* else nobody there gets any mail yet */
		snprintf(to, sizeof(to), "postmaster@%s", d->domain);
	else
		snprintf(to, sizeof(to), "%.299s", snap_cstr(managed_snapshot(), managed_snapshot()->h->settings.postmaster));
	if (!*to)
		return;
	f = open_memstream(&text, &n);
	CHECK(f);
	fprintf(f, "The aliases of %s could not be taken over from\n\n    %s\n\n%s\n", d->domain, snap_cstr(managed_snapshot(), d->conf->value), why);
	if (have)
		fprintf(f, "The live copy stays in use: %llu entries, of %llu changes so far the last.\n", (unsigned long long)live.entries, (unsigned long long)live.n);
	else
		fprintf(f, "There is no live copy yet: mail to %s is answered 451.\n", d->domain);
	if (d->state.refused_shrunk)
		fprintf(f, "If the smaller file is right: weirctl domain accept %s\n", d->domain);
	fprintf(f, "\nThis is told once, until something changes. See: weirctl domain show %s\n", d->domain);
	fclose(f);
	snprintf(subject, sizeof(subject), "Mail domain %s: its aliases could not be taken over", d->domain);
	notices_add(&(struct notice_order){ .to = to, .domain = d->domain, .subject = subject, .text = text, .key = key, .taken = on_told });
	free(text);
}

/* ---- the live copy and the guards ---- */

/* ret is the live copy's row; bytes NULL: there is none that is good. */
struct live {
	struct history_row row;
	char *bytes;
	size_t n;
};

static void live_read(const struct managed *d, struct live *ret)
{
	*ret = (struct live){ 0 };
	if (history_last(d->dir, d->domain, &ret->row) == ST_OK && history_read(d->dir, d->domain, &ret->row, &ret->bytes, &ret->n) != ST_OK) {
		log_msg(LOG_LVL_ERROR, "domain-history", "%s: %s", d->domain, trail_text());
		ret->bytes = NULL;
	}
}

static enum guard guard(const struct managed *d, struct span text, const struct live *live, FILE *why, size_t *ret_n)
{
	struct entries new, old = { 0 };
	char *no_errors = NULL;
	size_t n;
	FILE *f = open_memstream(&no_errors, &n);
	enum guard g;

	CHECK(f);
	entries_read(&new, text, "line", why);
	if (live->bytes)
		entries_read(&old, span_of(live->bytes, live->n), "", f);
	g = entries_guard(&new, live->bytes ? &old : NULL, managed_snapshot()->h->settings.managed_shrink, why);
	*ret_n = new.n;
	entries_free(&new);
	entries_free(&old);
	fclose(f);
	free(no_errors);
	return g;
}

/* ---- what was fetched ---- */

static void set_result(struct managed *d, bool failed, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

static void set_result(struct managed *d, bool failed, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(d->state.result, sizeof(d->state.result), fmt, ap);
	va_end(ap);
	d->state.failed = failed;
	d->state.refused_shrunk = failed && d->state.refused_shrunk;
	d->state.failures = failed ? d->state.failures + 1 : 0;
	if (!failed)
		d->state.told = d->state.refused = 0;
}

static void refuse(struct managed *d, struct span text, enum guard g, size_t entries, const char *why)
{
	uint64_t hash = history_hash(text);

	if (d->state.refused != hash && history_replace(d->dir, d->domain, "refused", text, HISTORY_NOW) != ST_OK)
		log_msg(LOG_LVL_ERROR, "domain-state", "%s: %s", d->domain, trail_text());
	d->state.refused = hash;
	d->state.refused_entries = entries;
	d->state.refused_shrunk = g == GUARD_SHRUNK;
	set_result(d, true, "refused: %.*s", (int)strcspn(why, "\n"), why);
	tell(d, history_hash(span_str(why)), why);
}

void managed_judge(struct managed *d, struct span text)
{
	struct live live;
	struct history_row row;
	char *why = NULL;
	size_t n, entries;
	FILE *f = open_memstream(&why, &n);
	enum guard g;

	CHECK(f);
	live_read(d, &live);
	g = guard(d, text, &live, f, &entries);
	fclose(f);
	if (live.bytes && live.row.hash == history_hash(text))
		set_result(d, false, "no change, %zu entries", entries);
	else if (live.bytes && live.row.passed_over == history_hash(text))
		set_result(d, false, "passed over: it is what change %llu reverted", (unsigned long long)live.row.n);
	else if (g != GUARD_PASSED)
		refuse(d, text, g, entries, why);
	else if (managed_change(d, "fetch", "weir-control", text, 0, &row) == ST_OK)
		set_result(d, false, "change %llu, %zu entries", (unsigned long long)row.n, entries);
	else
		set_result(d, true, "not kept: %s", trail_text());
	free(live.bytes);
	free(why);
}

/* The source says what it said before. When that was refused it is judged again: the configuration may be another one. */
void managed_not_modified(struct managed *d)
{
	char path[4500], *bytes;
	size_t n;

	if (d->state.refused && file_read(history_path(d->dir, d->domain, "refused", path), TEXT_MAX, NULL, &bytes, &n) == ST_OK) {
		managed_judge(d, span_of(bytes, n));
		free(bytes);
	} else {
		set_result(d, false, "not modified");
	}
}

void managed_failed(struct managed *d, const char *detail)
{
	char why[700];

	set_result(d, true, "%s", detail);
	if (d->state.refused || d->state.failures < TOLD_AFTER)
		return;
	snprintf(why, sizeof(why), "%llu fetches in a row failed; the last one: %s\n", (unsigned long long)d->state.failures, d->state.result);
	tell(d, history_hash(SPAN("failing")), why);
}

bool managed_has_copy(const struct managed *d)
{
	struct live live;
	bool good;

	live_read(d, &live);
	good = live.bytes != NULL;
	free(live.bytes);
	return good;
}
