#include "control/holds.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "spool/base/clock.h"
#include "spool/base/file.h"
#include "spool/base/log.h"

enum { FILE_MAX = 16 << 20 };

struct release {
	struct span domain, by;
	uint64_t hold_ns, at_ns;
};

static bool release_next(struct span *text, struct release *ret)
{
	while (text->n) {
		struct span line = span_cut(text, '\n'), rest = line;
		struct span hold, at;

		ret->domain = span_cut(&rest, ' ');
		hold = span_cut(&rest, ' ');
		at = span_cut(&rest, ' ');
		ret->by = rest;
		if (ret->domain.n && span_u64(hold, UINT64_MAX, &ret->hold_ns) && span_u64(at, UINT64_MAX - 1, &ret->at_ns))
			return true;
	}
	return false;
}

static void path_of(const struct snapshot *s, char *path, size_t cap)
{
	snprintf(path, cap, "%s/holds-released", snap_cstr(s, s->h->settings.spool_dir));
}

/* The text of the file, or of none; the caller frees it. */
static struct span read_all(const struct snapshot *s, char **ret)
{
	char path[4200];
	size_t n;

	path_of(s, path, sizeof(path));
	*ret = NULL;
	return file_read(path, FILE_MAX, NULL, ret, &n) == ST_OK ? span_of(*ret, n) : SPAN("");
}

static bool write_all(const struct snapshot *s, const char *text, size_t n)
{
	char path[4200], temp[4220];
	FILE *f;
	bool ok;

	path_of(s, path, sizeof(path));
	snprintf(temp, sizeof(temp), "%s.new", path);
	f = fopen(temp, "we");
	if (!f)
		return false;
	ok = fwrite(text, 1, n, f) == n && fflush(f) == 0 && fsync(fileno(f)) == 0;
	ok = fclose(f) == 0 && ok;
	return ok && rename(temp, path) == 0;
}

static struct snap_route *find_route(const struct snapshot *s, struct span domain)
{
	uint32_t n;
	const struct snap_route *r = snap_routes(s, &n);

	for (uint32_t i = 0; i < n; i++)
		if (span_eq(snap_span(s, r[i].name), domain))
			return (struct snap_route *)(uintptr_t)&r[i];
	return NULL;
}

static struct snapshot in_the_making(const struct model *m)
{
	return (struct snapshot){ .h = (const struct snap_header *)(const void *)m->bytes, .bytes = m->n };
}

void holds_apply(struct model *m)
{
	const struct snapshot s = in_the_making(m);
	struct release r;
	char *bytes;
	struct span text = read_all(&s, &bytes);

	while (release_next(&text, &r)) {
		struct snap_route *t = find_route(&s, r.domain);

		if (t && t->hold_set_ns == r.hold_ns && r.at_ns < t->hold_until_ns)
			t->hold_until_ns = r.at_ns;
	}
	free(bytes);
}

static void put(FILE *f, const struct release *r)
{
	fprintf(f, "%.*s %llu %llu %.*s\n", SPAN_FMT(r->domain), (unsigned long long)r->hold_ns, (unsigned long long)r->at_ns, SPAN_FMT(r->by));
}

/* Writes the releases that are for holds of s, and one more when there is one. */
static bool rewrite(const struct snapshot *s, const struct release *more)
{
	char *bytes, *made = NULL;
	struct span text = read_all(s, &bytes), all = text;
	size_t n = 0;
	FILE *f = open_memstream(&made, &n);
	struct release r;
	bool ok = true;

	CHECK(f);
	while (release_next(&text, &r)) {
		const struct snap_route *t = find_route(s, r.domain);

		if (t && t->hold_set_ns == r.hold_ns && !(more && span_eq(more->domain, r.domain)))
			put(f, &r);
	}
	if (more)
		put(f, more);
	fclose(f);
	if (!span_eq(all, span_of(made, n)))
		ok = write_all(s, made, n);
	free(bytes);
	free(made);
	return ok;
}

void holds_prune(const struct model *m)
{
	const struct snapshot s = in_the_making(m);

	if (!rewrite(&s, NULL))
		log_msg(LOG_LVL_ERROR, "holds", "SPOOL/holds-released cannot be written: %s", strerror(errno));
}

bool holds_release(const char *run_dir, const char *domain, const char *by, FILE *out)
{
	struct release r = { .domain = span_str(domain), .by = span_str(by), .at_ns = clock_wall_ns() };
	const struct snap_route *t;
	struct snapshot s;
	char path[4096];
	bool ok = false;

	snprintf(path, sizeof(path), "%s/snapshot", run_dir);
	if (snapshot_open(path, &s) != ST_OK) {
		fprintf(out, "%s\n", trail_text());
		return false;
	}
	t = find_route(&s, r.domain);
	r.hold_ns = t ? t->hold_set_ns : 0;
	if (!t || t->hold_until_ns <= r.at_ns)
		fprintf(out, "\"%s\" is not a route that is on hold; weirctl hold list has those that are\n", domain);
	else if (!(ok = rewrite(&s, &r)))
		fprintf(out, "%s/holds-released: %s\n", snap_cstr(&s, s.h->settings.spool_dir), strerror(errno));
	else
		log_msg(LOG_LVL_WARN, "hold-released", "%s by %s", domain, by);
	snapshot_close(&s);
	return ok;
}
