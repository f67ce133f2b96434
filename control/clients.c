#include "control/clients.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "control/clientfile.h"
#include "control/history.h"
#include "control/model_clients.h"
#include "spool/base/clock.h"
#include "spool/base/counters.h"
#include "spool/base/log.h"
#include "spool/mail/address.h"
#include "spool/store/evidence.h"

#define KEEP_EVERY_NS (60 * NS_PER_S)
#define SOON_S (14 * 86400)

struct order {
	const char *run_dir, *by;
	FILE *out;
	struct snapshot snap;
	const char *dir;
	char verb[16], network[CLIENT_NET_TEXT];
	uint64_t n;
	struct span args;
};

static bool complained(const struct order *o)
{
	fprintf(o->out, "%s\n", trail_text());
	return false;
}

/* ---- the change ---- */

static bool is_other(const struct client_entry *a, const struct client_entry *b)
{
	return a->class_ != b->class_ || a->rate < b->rate || a->rate > b->rate || a->conns != b->conns || a->expires_s != b->expires_s || strcmp(a->owner, b->owner) != 0 ||
		strcmp(a->note, b->note) != 0;
}

static void note(struct out *o, char mark, const struct client_entry *e)
{
	if (o->n + CLIENT_NET_TEXT + 8 > o->cap)
		return;
	if (o->n)
		out_char(o, ' ');
	out_char(o, mark);
	client_net_write(e->ip, e->prefix, o);
}

static void compare(const struct client_entries *before, const struct client_entries *after, struct history_row *row)
{
	struct out o = out_of(row->diff, sizeof(row->diff) - 1);

	for (size_t i = 0; i < after->n; i++) {
		const struct client_entry *was = client_entries_find(before, after->row[i].ip, after->row[i].prefix);

		if (was && !is_other(was, &after->row[i]))
			continue;
		note(&o, was ? '~' : '+', &after->row[i]);
		row->changed += was != NULL;
		row->added += was == NULL;
	}
	for (size_t i = 0; i < before->n; i++)
		if (!client_entries_find(after, before->row[i].ip, before->row[i].prefix)) {
			note(&o, '-', &before->row[i]);
			row->removed++;
		}
	row->diff[o.n] = '\0';
	row->entries = after->n;
}

static void log_change(const struct history_row *row)
{
	struct logline l;

	log_begin(&l, LOG_LVL_INFO, "clients-changed");
	log_str(&l, "rule", "A3");
	log_u64(&l, "n", row->n);
	log_str(&l, "how", row->how);
	log_str(&l, "by", row->by);
	log_str(&l, "diff", row->diff);
	log_emit(&l);
}

/* Checked first, then kept, then published: what is kept can always be published again. */
static bool make_change(const struct order *o, struct span text, struct history_row *row)
{
	struct model m;
	enum status st = ST_OK;
	bool good = registry_replace(&m, &o->snap, text, o->out);

	if (good)
		st = history_add(o->dir, REGISTRY, row, text, o->snap.h->settings.managed_keep, HISTORY_NOW);
	if (good && st == ST_OK) {
		counter_add(C_CLIENTS_CHANGES, 1);
		log_change(row);
		st = model_publish(&m, o->run_dir);
		if (st == ST_OK)
			counter_set(C_SNAPSHOT_GENERATION, o->snap.h->generation + 1);
	}
	free(m.bytes);
	if (st != ST_OK)
		return complained(o);
	if (good)
		fprintf(o->out, "change %llu: %s\n", (unsigned long long)row->n, *row->diff ? row->diff : "nothing is other than before");
	return good;
}

static bool change(const struct order *o, const char *how, const struct client_entries *before, const struct client_entries *after)
{
	struct history_row row = { 0 };
	size_t n;
	char *text = client_entries_text(after, &n);
	bool ok;

	snprintf(row.how, sizeof(row.how), "%s", how);
	snprintf(row.by, sizeof(row.by), "%s", o->by);
	compare(before, after, &row);
	ok = make_change(o, span_of(text, n), &row);
	free(text);
	return ok;
}

/* ---- orders ---- */

static bool parse_network(const struct order *o, struct client_entry *e)
{
	if (client_parse(span_str(o->network), e) == ST_OK)
		return true;
	return complained(o);
}

/* What the order does not name stays as it was. */
static bool set_client(const struct order *o, const struct client_entries *before, struct client_entries *after)
{
	struct client_entry e, *old;
	struct span rest = o->args, key, value;
	char buf[CLIENT_LINE_MAX];

	if (!parse_network(o, &e))
		return false;
	old = client_entries_find(after, e.ip, e.prefix);
	if (old)
		e = *old;
	while (row_next(&rest, &key, &value, buf, sizeof(buf)))
		if (!span_eq(key, SPAN("do")) && !span_eq(key, SPAN("network")) && client_set(&e, key, value) != ST_OK)
			return complained(o);
	client_entries_put(after, &e);
	return change(o, "set", before, after);
}

static bool delete_client(const struct order *o, const struct client_entries *before, struct client_entries *after)
{
	struct client_entry e, *old;

	if (!parse_network(o, &e))
		return false;
	old = client_entries_find(after, e.ip, e.prefix);
	if (!old) {
		fprintf(o->out, "%s is not in the registry\n", o->network);
		return false;
	}
	client_entries_drop(after, old);
	return change(o, "delete", before, after);
}

static bool revert(const struct order *o, const struct client_entries *before, struct client_entries *after)
{
	struct history_row live, then;
	char *text = NULL;
	size_t n = 0;
	enum status st = history_last(o->dir, REGISTRY, &live);

	if (st == ST_OK && live.n == 1 && !o->n)
		st = trail(ST_NOT_FOUND, "the registry has had one change only");
	if (st == ST_OK)
		st = history_find(o->dir, REGISTRY, o->n ? o->n : live.n - 1, &then);
	if (st == ST_OK)
		st = history_read(o->dir, REGISTRY, &then, &text, &n);
	if (st != ST_OK)
		return complained(o);
	client_entries_free(after);
	client_entries_read(after, span_of(text, n), "registry of clients", o->out);
	free(text);
	return !after->wrong && change(o, "revert", before, after);
}

static bool carry_out(const struct order *o)
{
	static const struct {
		const char *verb;
		bool (*run)(const struct order *o, const struct client_entries *before, struct client_entries *after);
	} verbs[] = { { "set", set_client }, { "delete", delete_client }, { "revert", revert } };
	struct client_entries before, after;
	bool ok = false;
	char *text;
	size_t n, i = 0;

	while (i < 3 && strcmp(o->verb, verbs[i].verb) != 0)
		i++;
	if (i == 3) {
		fprintf(o->out, "unknown command\n");
		return false;
	}
	if (registry_text(&o->snap, &text, &n) != ST_OK)
		return complained(o);
	client_entries_read(&before, span_of(text, text ? n : 0), registry_name(&o->snap), o->out);
	client_entries_read(&after, span_of(text, text ? n : 0), registry_name(&o->snap), o->out);
	if (!before.wrong)
		ok = verbs[i].run(o, &before, &after);
	client_entries_free(&before);
	client_entries_free(&after);
	free(text);
	return ok;
}

static bool read_order(struct order *o)
{
	struct span rest = o->args, key, value;
	char buf[CLIENT_LINE_MAX];

	while (row_next(&rest, &key, &value, buf, sizeof(buf))) {
		if (span_eq(key, SPAN("do")))
			snprintf(o->verb, sizeof(o->verb), "%.*s", SPAN_FMT(value));
		else if (span_eq(key, SPAN("network")) && value.n < sizeof(o->network))
			snprintf(o->network, sizeof(o->network), "%.*s", SPAN_FMT(value));
		else if (span_eq(key, SPAN("n")) && !span_u64(value, UINT64_MAX, &o->n))
			return false;
	}
	return !rest.n;
}

static bool open_snapshot(const char *run_dir, struct snapshot *ret)
{
	char path[4200];

	snprintf(path, sizeof(path), "%s/snapshot", run_dir);
	return snapshot_open(path, ret) == ST_OK;
}

bool clients_order(const char *run_dir, struct span row, const char *by, FILE *out)
{
	struct order o = { .run_dir = run_dir, .by = by, .out = out, .args = row };
	const char *file;
	bool ok = false;

	if (!open_snapshot(run_dir, &o.snap))
		return complained(&o);
	o.dir = snap_cstr(&o.snap, o.snap.h->settings.clients_dir);
	file = snap_cstr(&o.snap, o.snap.h->settings.clients_file);
	if (*file)
		fprintf(out, "the registry of clients comes from the file %s: change it there, then weirctl reload\n", file);
	else if (!read_order(&o))
		fprintf(out, "the order is not understood\n");
	else
		ok = carry_out(&o);
	snapshot_close(&o.snap);
	return ok;
}

/* ---- turns ---- */

static void count_clients(const struct snapshot *s)
{
	uint64_t now_s = clock_wall_ns() / NS_PER_S, registered = 0, soon = 0;
	uint32_t n;
	const struct snap_net *net = snap_nets(s, &n);

	for (uint32_t i = 0; i < n; i++) {
		registered += net[i].registered;
		soon += net[i].expires_s && net[i].expires_s <= now_s + SOON_S;
	}
	counter_set(C_CLIENTS_REGISTERED, registered);
	counter_set(C_CLIENTS_EXPIRING, soon);
}

static void keep_evidence(const char *run_dir, const struct snapshot *s)
{
	const char *dir = snap_cstr(s, s->h->settings.clients_dir);
	char from[4300], to[4300];

	if (mkdir(dir, 0750) < 0 && errno != EEXIST) {
		log_msg(LOG_LVL_WARN, "evidence", "%s: %s", dir, strerror(errno));
		return;
	}
	for (uint32_t i = 0; i < s->h->settings.workers; i++) {
		enum status st;

		snprintf(from, sizeof(from), "%.4096s/evidence-%u", run_dir, i);
		snprintf(to, sizeof(to), "%.4096s/evidence-%u", dir, i);
		st = evidence_save(from, to);
		if (st != ST_OK && st != ST_NOT_FOUND)
			log_msg(LOG_LVL_WARN, "evidence", "%s", trail_text());
	}
}

void clients_turn(const char *run_dir, bool now)
{
	static uint64_t stamp, next_ns;
	uint64_t t = clock_mono_ns();
	struct snapshot s;

	if (!stamp)
		next_ns = t + KEEP_EVERY_NS;
	if (!now && t < next_ns && stamp == counter_get(C_SNAPSHOT_GENERATION))
		return;
	if (!open_snapshot(run_dir, &s))
		return;
	count_clients(&s);
	if (now || t >= next_ns) {
		keep_evidence(run_dir, &s);
		next_ns = t + KEEP_EVERY_NS;
	}
	stamp = s.h->generation;
	snapshot_close(&s);
}
