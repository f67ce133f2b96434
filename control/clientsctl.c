#include "control/clientsctl.h"

#include <getopt.h>
#include <jansson.h>
#include <stdlib.h>
#include "control/clientfile.h"
#include "control/clients_view.h"
#include "control/history.h"
#include "control/model_clients.h"
#include "control/rows.h"
#include "control/taken.h"
#include "control/when.h"
#include "spool/base/clock.h"
#include "spool/base/log.h"

enum { SHOWN_SOON = 10 };

struct wish {
	const char *class, *unused, *would_break;
	struct logline row; /* of clients set */
	bool sets;
};

/* ---- history ---- */

static void log_row(void *ctx, const struct history_row *r)
{
	if (ctx)
		json_array_append_new(ctx, json_pack("{s:I, s:I, s:s, s:s, s:I, s:s}", "n", (json_int_t)r->n, "at", (json_int_t)r->at_s, "how", r->how, "by", r->by,
			"entries", (json_int_t)r->entries, "diff", r->diff));
	else
		printf("%5llu  %s  %-7s %-24s %6llu entries  %s\n", (unsigned long long)r->n, view_day(r->at_s), r->how, r->by, (unsigned long long)r->entries, r->diff);
}

static int show_log(const struct view *v)
{
	enum status st = history_each(snap_cstr(&v->snap, v->snap.h->settings.clients_dir), REGISTRY, log_row, v->list);

	return st == ST_OK || st == ST_NOT_FOUND ? 0 : trail_failed();
}

/* ---- orders ---- */

static int order(const struct view *v, struct logline *row)
{
	bool done = rows_order(v->run_dir, v->as_json, "clients", row);

	return done && taken_wait(v->run_dir, v->as_json ? NULL : stdout) ? 0 : 1;
}

static int order_on(const struct view *v, const char *verb, const char *network, struct wish *w)
{
	log_str(&w->row, "do", verb);
	log_str(&w->row, "network", network);
	return order(v, &w->row);
}

static int order_revert(const struct view *v, const char *n, struct wish *w)
{
	uint64_t number = 0;

	if (n && (!span_u64(span_str(n), UINT64_MAX, &number) || !number))
		return -1;
	log_str(&w->row, "do", "revert");
	if (n)
		log_u64(&w->row, "n", number);
	return order(v, &w->row);
}

/* "90d" is that time from now on. */
static void wish_expiry(struct wish *w, const char *text)
{
	uint64_t ns, now = clock_wall_ns();

	if (!strchr(text, '-') && strcmp(text, "now") != 0 && when_parse(text, &ns) && ns <= now)
		text = when_text(now + (now - ns));
	log_str(&w->row, "expires", text);
}

static bool read_wish(int argc, char **argv, struct wish *w)
{
	static const struct option options[] = { { "class", 1, NULL, 'c' }, { "owner", 1, NULL, 'o' }, { "rate", 1, NULL, 'r' }, { "connections", 1, NULL, 'k' },
		{ "expires", 1, NULL, 'e' }, { "note", 1, NULL, 'n' }, { "unused", 1, NULL, 'u' }, { "would-break", 1, NULL, 'b' }, { 0 } };
	static const char *const key[] = { ['c'] = "class", ['o'] = "owner", ['r'] = "rate", ['k'] = "connections", ['n'] = "note" };
	int c;

	optind = 0;
	row_begin(&w->row);
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == '?')
			return false;
		if (c == 'u')
			w->unused = optarg;
		else if (c == 'b')
			w->would_break = optarg;
		else if (c == 'e')
			wish_expiry(w, optarg);
		else
			log_str(&w->row, key[c], optarg);
		if (c == 'c')
			w->class = optarg;
		w->sets = w->sets || c == 'o' || c == 'r' || c == 'k' || c == 'e' || c == 'n';
	}
	return true;
}

/* ---- the whole ---- */

static int run(struct view *v, struct wish *w, int argc, char **argv)
{
	const char *verb = argc ? argv[0] : "";

	if (w->would_break)
		return argc || w->sets || w->unused ? -1 : view_would_break(v, w->would_break, w->class);
	if (argc == 2 && strcmp(verb, "set") == 0 && !w->unused)
		return order_on(v, "set", argv[1], w);
	if (w->sets)
		return -1;
	if (argc == 1 && strcmp(verb, "list") == 0)
		return view_list(v, w->class, w->unused);
	if (w->class || w->unused)
		return -1;
	if (argc == 2 && strcmp(verb, "show") == 0)
		return view_show(v, argv[1]);
	if (argc == 2 && strcmp(verb, "delete") == 0)
		return order_on(v, "delete", argv[1], w);
	if (argc == 1 && strcmp(verb, "log") == 0)
		return show_log(v);
	if (argc == 1 && strcmp(verb, "listeners") == 0)
		return view_listeners(v);
	if (argc <= 2 && strcmp(verb, "revert") == 0)
		return order_revert(v, argc == 2 ? argv[1] : NULL, w);
	return -1;
}

static bool view_open(struct view *v, const char *run_dir)
{
	char path[4200];

	*v = (struct view){ .run_dir = run_dir, .now_s = clock_wall_ns() / NS_PER_S };
	snprintf(path, sizeof(path), "%s/snapshot", run_dir);
	return snapshot_open(path, &v->snap) == ST_OK;
}

int clients_command(const char *run_dir, bool as_json, int argc, char **argv)
{
	struct wish w = { 0 };
	struct view v;
	bool lists;
	int rc;

	if (!read_wish(argc, argv, &w))
		return -1;
	if (!view_open(&v, run_dir))
		return trail_failed();
	argc -= optind;
	argv += optind;
	lists = w.would_break || (argc == 1 && strcmp(argv[0], "revert") != 0);
	v.as_json = as_json;
	v.list = as_json && lists ? json_array() : NULL;
	seen_read(run_dir, &v.seen);
	rc = run(&v, &w, argc, argv);
	if (v.list && rc == 0)
		dump_json(v.list);
	else if (v.list)
		json_decref(v.list);
	seen_free(&v.seen);
	snapshot_close(&v.snap);
	return rc;
}

void clients_print_status(const char *run_dir)
{
	struct view v;
	uint32_t n, shown = 0, registered = 0;
	const struct snap_net *net;

	if (!view_open(&v, run_dir))
		return;
	net = snap_nets(&v.snap, &n);
	for (uint32_t i = 0; i < n; i++)
		registered += net[i].registered;
	if (registered)
		printf("Clients\n  %u in the registry\n", registered);
	for (uint32_t i = 0; i < n; i++) {
		char buf[CLIENT_NET_TEXT + 1];

		if (!*view_state(&v, &net[i]) || ++shown > SHOWN_SOON)
			continue;
		printf("  ! %s (%s) %s %s\n", view_net(net[i].ip, net[i].prefix, buf), net[i].owner.len ? snap_cstr(&v.snap, net[i].owner) : "no owner",
			view_has_expired(&v, &net[i]) ? "has expired and may not relay, since" : "expires within 14 days,", view_day(net[i].expires_s));
	}
	if (shown > SHOWN_SOON)
		printf("  ! and %u more; see weirctl clients list\n", shown - SHOWN_SOON);
	snapshot_close(&v.snap);
}
