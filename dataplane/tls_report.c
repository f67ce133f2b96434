#include "dataplane/tls_report.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "spool/base/clock.h"
#include "spool/base/log.h"
#include "spool/base/map.h"

enum { KEYS_MAX = 10000 }; /* between two flushes */

struct tls_report {
	struct map *count; /* from a row to a struct count */
	uint32_t worker;
	char dir[256];
};

struct count {
	uint64_t n;
};

enum status tls_report_new(const char *run_dir, uint32_t worker, struct tls_report **ret)
{
	struct tls_report *r = calloc(1, sizeof(*r));

	if (!r || map_new(&r->count) != ST_OK) {
		free(r);
		return ST_NOMEM;
	}
	r->worker = worker;
	snprintf(r->dir, sizeof(r->dir), "%s/tls-reports", run_dir);
	mkdir(r->dir, 0750);
	*ret = r;
	return ST_OK;
}

static void forget(struct tls_report *r)
{
	struct span key;
	size_t pos = 0;
	void *v;

	while (map_next(r->count, &pos, &key, &v)) {
		map_del(r->count, key);
		free(v);
	}
}

void tls_report_free(struct tls_report *r)
{
	if (!r)
		return;
	tls_report_flush(r);
	forget(r);
	map_free(r->count);
	free(r);
}

void tls_report_count(struct tls_report *r, const struct tls_session_result *s)
{
	struct logline row;
	struct count *c;

	row_begin(&row);
	log_str(&row, "type", s->type);
	log_span(&row, "domain", s->domain);
	log_span(&row, "mx", s->mx);
	log_str(&row, "result", s->result ? s->result : "success");
	if (s->result) {
		log_span(&row, "reason", s->reason);
		log_span(&row, "from", s->local_ip);
		log_span(&row, "to", s->remote_ip);
	}
	log_span(&row, "policy", s->policy); /* last: the longest, left out when it does not fit */
	c = map_get(r->count, row_text(&row));
	if (!c) {
		if (map_len(r->count) >= KEYS_MAX)
			tls_report_flush(r);
		c = calloc(1, sizeof(*c));
		if (!c || map_set(r->count, row_text(&row), c) != ST_OK) {
			free(c);
			return;
		}
	}
	c->n++;
}

/* The file of today (UTC). */
static FILE *open_file(const struct tls_report *r)
{
	char path[400], day[16];
	time_t now = (time_t)(clock_wall_ns() / NS_PER_S);
	struct tm tm;
	FILE *f;
	int fd;

	gmtime_r(&now, &tm);
	strftime(day, sizeof(day), "%Y%m%d", &tm);
	snprintf(path, sizeof(path), "%s/counts-%s-%u", r->dir, day, r->worker);
	fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
	f = fd < 0 ? NULL : fdopen(fd, "a");
	if (!f && fd >= 0)
		close(fd);
	return f;
}

void tls_report_flush(struct tls_report *r)
{
	struct span key;
	size_t pos = 0;
	void *v;
	FILE *f;

	if (!map_len(r->count))
		return;
	f = open_file(r);
	while (f && map_next(r->count, &pos, &key, &v))
		fprintf(f, "n=%llu %.*s\n", (unsigned long long)((struct count *)v)->n, SPAN_FMT(key));
	if (f)
		fclose(f);
	forget(r);
}
