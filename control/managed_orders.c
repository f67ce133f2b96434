#include "control/managed_orders.h"

#include <stdlib.h>
#include "control/aliasfile.h"
#include "control/entries.h"
#include "control/managed.h"
#include "control/publish.h"
#include "spool/base/file.h"
#include "spool/base/log.h"
#include "spool/mail/address.h"

enum { TEXT_MAX = 256 << 20 };

struct order {
	char verb[16], domain[300], local[400];
	char addresses[12000];
	uint64_t n;
	const char *by;
	int fd;
	FILE *out;
};

/* ---- what every change has ---- */

static enum order_result complained(const struct order *o)
{
	fprintf(o->out, "%s\n", trail_text());
	return ORDER_FAILED;
}

/* A change is there: the answer goes out when tables are made of it. */
static enum order_result answer_later(const struct order *o, const struct history_row *row)
{
	char good[1000], bad[600];

	snprintf(good, sizeof(good), "%s: change %llu (%s), %llu entries\n", o->domain, (unsigned long long)row->n, *row->diff ? row->diff : "nothing is other than before",
		(unsigned long long)row->entries);
	snprintf(bad, sizeof(bad), "change %llu of %s is kept, but no tables could be made: mail goes by the older ones\n", (unsigned long long)row->n, o->domain);
	publish_tables(o->fd, TABLES_AT_START, o->by, good, bad);
	return ORDER_LATER;
}

static const char *lives_in(const struct managed *d)
{
	static const char *const where[] = { [SOURCE_FILE] = "the file", [SOURCE_HTTPS] = "the https source", [SOURCE_COMMAND] = "the command line" };

	return where[d->conf->source];
}

/* One source of truth: the others refuse edits (C9). */
static bool is_edited_here(const struct order *o, const struct managed *d)
{
	if (d->conf->source == SOURCE_COMMAND)
		return true;
	fprintf(o->out, "the aliases of %s come from %s %s: change them there\n", o->domain, lives_in(d), snap_cstr(managed_snapshot(), d->conf->value));
	return false;
}

/* ---- accept ---- */

static enum order_result accept_refused(const struct order *o, struct managed *d)
{
	char path[4500], *bytes;
	struct history_row row;
	enum status st;
	size_t n;

	if (!d->state.refused || !d->state.refused_shrunk) {
		fprintf(o->out, "%s: there is nothing to accept; only a file that is too small can be: %s\n", o->domain,
			*d->state.result ? d->state.result : "it was not fetched yet");
		return ORDER_FAILED;
	}
	st = file_read(history_path(d->dir, d->domain, "refused", path), TEXT_MAX, NULL, &bytes, &n);
	if (st != ST_OK)
		return complained(o);
	if (history_hash(span_of(bytes, n)) != d->state.refused)
		st = trail(ST_CORRUPT, "%s is not what was refused; fetch it again", path);
	else
		st = managed_change(d, "accept", o->by, span_of(bytes, n), 0, &row);
	free(bytes);
	if (st != ST_OK)
		return complained(o);
	d->state.refused = d->state.failures = d->state.told = 0;
	d->state.refused_shrunk = d->state.failed = false;
	snprintf(d->state.result, sizeof(d->state.result), "change %llu, accepted by %s", (unsigned long long)row.n, o->by);
	managed_keep(d);
	return answer_later(o, &row);
}

/* ---- one entry ---- */

/* The entries as they are with one set (line) or deleted (no line); in order of their names. */
static char *edited(const struct entries *e, const char *key, const char *line, size_t *ret_n)
{
	bool done = !line;
	char *text = NULL;
	FILE *f = open_memstream(&text, ret_n);

	CHECK(f);
	for (size_t i = 0; i < e->n; i++) {
		int c = strcmp(e->row[i].key, key);

		if (!done && c >= 0) {
			fputs(line, f);
			done = true;
		}
		if (c != 0)
			fprintf(f, "%.*s: %.*s\n", SPAN_FMT(e->row[i].name), SPAN_FMT(e->row[i].addresses));
	}
	if (!done)
		fputs(line, f);
	fclose(f);
	return text;
}

static bool is_required(const char *key)
{
	for (const char *const *r = entries_required; *r; r++)
		if (strcmp(*r, key) == 0)
			return true;
	return false;
}

static enum order_result put(const struct order *o, struct managed *d, struct span before, const char *key, const char *line)
{
	struct history_row row;
	struct entries e;
	enum status st;
	size_t n;
	char *text;
	bool was_there;

	entries_read(&e, before, d->domain, o->out);
	was_there = entries_find(&e, key) != NULL;
	text = edited(&e, key, line, &n);
	entries_free(&e);
	if (!line && !was_there) {
		fprintf(o->out, "%s has no entry \"%s\"\n", d->domain, key);
		free(text);
		return ORDER_FAILED;
	}
	st = managed_change(d, line ? "set" : "delete", o->by, span_of(text, n), 0, &row);
	free(text);
	return st == ST_OK ? answer_later(o, &row) : complained(o);
}

/* line: "local: addresses", NULL to delete. */
static enum order_result edit(const struct order *o, struct managed *d, const char *key, const char *line)
{
	struct history_row row;
	char *bytes = NULL;
	size_t n = 0;
	enum status st = history_last(d->dir, d->domain, &row);
	enum order_result result;

	if (st == ST_OK)
		st = history_read(d->dir, d->domain, &row, &bytes, &n);
	if (st != ST_OK && st != ST_NOT_FOUND)
		return complained(o);
	result = put(o, d, span_of(bytes, n), key, line);
	free(bytes);
	return result;
}

static enum order_result set_entry(const struct order *o, struct managed *d)
{
	char line[sizeof(o->local) + sizeof(o->addresses) + 4], key[ADDRESS_LOCAL_MAX + 1];
	struct out k = out_of(key, sizeof(key) - 1);
	struct aliasfile f;

	if (!is_edited_here(o, d))
		return ORDER_FAILED;
	snprintf(line, sizeof(line), "%s: %s\n", o->local, o->addresses);
	f = aliasfile_of(span_str(line));
	if (aliasfile_next(&f) != ALIASFILE_ENTRY || f.rest.n) { /* a second line would be another entry */
		fprintf(o->out, "%s\n", f.wrong[0] ? f.wrong : "an entry is one line");
		return ORDER_FAILED;
	}
	CHECK(address_local_key(f.name, &k) == ST_OK);
	key[k.n] = '\0';
	return edit(o, d, key, line);
}

static enum order_result delete_entry(const struct order *o, struct managed *d)
{
	char key[ADDRESS_LOCAL_MAX + 1];
	struct out k = out_of(key, sizeof(key) - 1);

	if (!is_edited_here(o, d))
		return ORDER_FAILED;
	if (!address_local_ok(span_str(o->local), ADDRESS_UTF8) || address_local_key(span_str(o->local), &k) != ST_OK) {
		fprintf(o->out, "\"%s\" is not a local part\n", o->local);
		return ORDER_FAILED;
	}
	key[k.n] = '\0';
	if (is_required(key)) {
		fprintf(o->out, "every domain has postmaster, webmaster and abuse; set it to another address in place of deleting it\n");
		return ORDER_FAILED;
	}
	return edit(o, d, key, NULL);
}

/* ---- revert ---- */

/* What the source says stays what it is; it is passed over until it says something else. */
static enum order_result revert(const struct order *o, struct managed *d)
{
	struct history_row live, then, row;
	char *bytes;
	size_t n;
	enum status st = history_last(d->dir, d->domain, &live);

	if (st == ST_OK && live.n == 1 && !o->n)
		st = trail(ST_NOT_FOUND, "%s has had one change only", d->domain);
	if (st == ST_OK)
		st = history_find(d->dir, d->domain, o->n ? o->n : live.n - 1, &then);
	if (st == ST_OK)
		st = history_read(d->dir, d->domain, &then, &bytes, &n);
	if (st != ST_OK)
		return complained(o);
	st = managed_change(d, "revert", o->by, span_of(bytes, n),
		d->conf->source == SOURCE_COMMAND ? 0 : live.passed_over ? live.passed_over : live.hash, &row);
	free(bytes);
	return st == ST_OK ? answer_later(o, &row) : complained(o);
}

/* ---- the whole ---- */

static bool read_order(struct span row, struct order *o)
{
	struct span k, v;
	char buf[12000];

	while (row_next(&row, &k, &v, buf, sizeof(buf))) {
		struct {
			const char *key;
			char *to;
			size_t cap;
		} text[] = { { "do", o->verb, sizeof(o->verb) }, { "domain", o->domain, sizeof(o->domain) },
			{ "local", o->local, sizeof(o->local) }, { "addresses", o->addresses, sizeof(o->addresses) } };

		if (span_eq(k, SPAN("n")) && !span_u64(v, UINT64_MAX, &o->n))
			return false;
		for (size_t i = 0; i < sizeof(text) / sizeof(text[0]); i++)
			if (span_eq(k, span_str(text[i].key))) {
				if (v.n >= text[i].cap)
					return false;
				snprintf(text[i].to, text[i].cap, "%.*s", SPAN_FMT(v));
			}
	}
	return !row.n && *o->verb && *o->domain;
}

static enum order_result carry_out(const struct order *o, struct managed *d)
{
	static const struct {
		const char *verb;
		enum order_result (*run)(const struct order *o, struct managed *d);
	} verbs[] = { { "accept", accept_refused }, { "set", set_entry }, { "delete", delete_entry }, { "revert", revert } };

	for (size_t i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++)
		if (strcmp(o->verb, verbs[i].verb) == 0)
			return verbs[i].run(o, d);
	fprintf(o->out, "unknown command\n");
	return ORDER_FAILED;
}

enum order_result managed_order(struct span row, const char *by, int fd, FILE *out)
{
	struct order *o = calloc(1, sizeof(*o));
	enum order_result result = ORDER_FAILED;
	struct managed *d;

	CHECK(o);
	o->by = by;
	o->out = out;
	o->fd = fd;
	if (!read_order(row, o)) {
		fprintf(out, "the order is not understood\n");
	} else if (!(d = managed_find(o->domain))) {
		fprintf(out, "%s is not a mail domain with aliases\n", o->domain);
	} else if (strcmp(o->verb, "fetch") != 0) {
		result = carry_out(o, d);
	} else if (d->conf->source != SOURCE_HTTPS) {
		fprintf(out, "the aliases of %s come from %s: there is nothing to fetch\n", o->domain, lives_in(d));
	} else {
		managed_fetch_now(d, fd);
		result = ORDER_LATER;
	}
	free(o);
	return result;
}
