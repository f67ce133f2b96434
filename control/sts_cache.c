#include "control/sts_cache.h"

#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>
#include "spool/base/clock.h"
#include "spool/base/log.h"

static char dir[4096];

enum status sts_cache_open(const char *run_dir)
{
	snprintf(dir, sizeof(dir), "%s/mta-sts-policies", run_dir);
	if (mkdir(dir, 0750) < 0 && errno != EEXIST)
		return trail_errno(errno, "%s", dir);
	return ST_OK;
}

static void path_of(const char *domain, const char *suffix, char *buf, size_t cap)
{
	snprintf(buf, cap, "%s/%s%s", dir, domain, suffix);
}

static bool read_row(struct span row, struct sts_cached *c)
{
	uint64_t until_s = 0, now_s = clock_wall_ns() / NS_PER_S;
	struct span k, v;
	char buf[256];

	while (row_next(&row, &k, &v, buf, sizeof(buf))) {
		if (span_eq(k, SPAN("id")))
			snprintf(c->id, sizeof(c->id), "%.*s", SPAN_FMT(v));
		else if (span_eq(k, SPAN("until_s")) && !span_u64(v, UINT64_MAX, &until_s))
			return false;
	}
	/* a clock that was set back must not make a policy hold for ever */
	if (until_s <= now_s || until_s - now_s > MTA_STS_AGE_MAX_S)
		return false;
	c->left_s = until_s - now_s;
	return true;
}

bool sts_cache_get(const char *domain, struct sts_cached *ret)
{
	char path[4400], buf[MTA_STS_WRITTEN_MAX + 256];
	struct mta_sts_policy p;
	struct span text, row;
	FILE *f;

	path_of(domain, "", path, sizeof(path));
	f = fopen(path, "re");
	if (!f)
		return false;
	text = span_of(buf, fread(buf, 1, sizeof(buf), f));
	fclose(f);
	row = span_cut(&text, '\n');
	*ret = (struct sts_cached){ 0 };
	if (!read_row(row, ret) || text.n > sizeof(ret->text) || mta_sts_parse(text, &p) != ST_OK) {
		unlink(path);
		return false;
	}
	ret->old = ret->left_s < p.max_age_s / 2;
	memcpy(ret->text, text.p, text.n);
	ret->len = text.n;
	return true;
}

enum status sts_cache_put(const char *domain, const char *id, const struct mta_sts_policy *p)
{
	char path[4400], temp[4400], text[MTA_STS_WRITTEN_MAX];
	struct out o = out_of(text, sizeof(text));
	struct logline row;
	bool ok;
	FILE *f;

	path_of(domain, "", path, sizeof(path));
	path_of(domain, "~", temp, sizeof(temp)); /* no domain has that sign */
	if (!p->max_age_s) {
		unlink(path);
		return ST_OK;
	}
	mta_sts_write(p, &o);
	row_begin(&row);
	log_str(&row, "id", id);
	log_u64(&row, "until_s", clock_wall_ns() / NS_PER_S + p->max_age_s);
	f = fopen(temp, "we");
	if (!f)
		return trail_errno(errno, "%s", temp);
	fprintf(f, "%.*s\n%.*s", SPAN_FMT(row_text(&row)), SPAN_FMT(out_span(&o)));
	ok = !ferror(f);
	ok = fclose(f) == 0 && ok;
	if (!ok || rename(temp, path) < 0)
		return trail_errno(errno, "%s", path);
	return ST_OK;
}
