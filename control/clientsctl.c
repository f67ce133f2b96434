#include "control/clientsctl.h"

#include <getopt.h>
#include <jansson.h>
#include <stdlib.h>
#include "control/ask.h"
#include "control/clientfile.h"
#include "control/history.h"
#include "control/model_clients.h"
#include "control/seen.h"
#include "control/when.h"
#include "spool/base/clock.h"
#include "spool/base/log.h"
#include "spool/mail/address.h"
#include "spool/mail/rules.h"

#define SOON_S (14 * 86400)
enum { SHOWN_SOON = 10 };

struct view {
	const char *run_dir;
	json_t *list; /* NULL: text */
	bool as_json;
	struct snapshot snap;
	struct seen seen;
	uint64_t now_s;
};

struct wish {
	const char *class, *unused, *would_break;
	struct logline row; /* of clients set */
	bool sets;
};

static int failed(void)
{
	fprintf(stderr, "weirctl: %s\n", trail_text());
	return 1;
}

static void dump(json_t *j)
{
	json_dumpf(j, stdout, JSON_INDENT(2));
	putchar('\n');
	json_decref(j);
}

static const char *day(uint64_t s)
{
	return s ? when_text(s * NS_PER_S) : "never";
}

static const char *net_text(const uint8_t ip[16], unsigned prefix, char *buf)
{
	struct out o = out_of(buf, CLIENT_NET_TEXT);

	client_net_write(ip, prefix, &o);
	out_char(&o, '\0');
	return buf;
}

static bool has_expired(const struct view *v, const struct snap_net *n)
{
	return n->expires_s && n->expires_s <= v->now_s;
}

static const char *class_of(const struct view *v, const struct snap_net *n)
{
	return class_words[n && !has_expired(v, n) ? n->class_ : CLASS_MX];
}

static const char *state_of(const struct view *v, const struct snap_net *n)
{
	return !n->expires_s ? "" : has_expired(v, n) ? "EXPIRED" : n->expires_s <= v->now_s + SOON_S ? "expires soon" : "";
}

/* ---- what is known, as JSON ---- */

static json_t *hits_json(const struct evidence *e)
{
	json_t *o = json_object();

	for (unsigned r = 0; r < RULE_NRULE; r++)
		if (e->hits[r])
			json_object_set_new(o, rule_row[r].name, json_integer(e->hits[r]));
	return o;
}

/* e NULL, or never seen: zeroes. */
static json_t *evidence_json(const struct view *v, const struct evidence *e)
{
	static const struct evidence nothing;

	e = e ? e : &nothing;
	return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:I, s:I, s:I, s:s, s:o}", "first_seen", (json_int_t)e->first_s, "last_seen", (json_int_t)e->last_s,
		"sessions", (json_int_t)e->sessions, "tls_sessions", (json_int_t)e->tls_sessions, "messages", (json_int_t)e->messages, "recipients",
		(json_int_t)e->recipients, "messages_per_day", e->first_s ? seen_per_day(e, v->now_s) : 0.0, "tls_messages", (json_int_t)e->tls_messages,
		"senders", (json_int_t)e->senders, "senders_invalid", (json_int_t)e->senders_bad, "helo", e->helo, "rules", hits_json(e));
}

static json_t *net_json(const struct view *v, const struct snap_net *n)
{
	char buf[CLIENT_NET_TEXT + 1];

	return json_pack("{s:s, s:s, s:s, s:s, s:s, s:f, s:I, s:I, s:b, s:s, s:i}", "network", net_text(n->ip, n->prefix, buf), "class", class_words[n->class_],
		"owner", snap_cstr(&v->snap, n->owner), "note", snap_cstr(&v->snap, n->note), "name", snap_cstr(&v->snap, n->name), "rate", n->rate_limit,
		"connections", (json_int_t)n->conns_max, "expires", (json_int_t)n->expires_s, "expired", has_expired(v, n), "source", n->registered ? "registry" : "relay_clients", "line", (int)n->line);
}

/* ---- list ---- */

/* Everything that was seen from this network, but for what a more specific one has. */
static void sum_of(const struct view *v, const struct snap_net *n, struct evidence *ret)
{
	memset(ret, 0, sizeof(*ret));
	for (size_t i = 0; i < v->seen.n; i++)
		if (net_contains(n->ip, n->prefix, v->seen.row[i].ip) && snap_find_net(&v->snap, v->seen.row[i].ip) == n)
			evidence_add(ret, &v->seen.row[i]);
}

static void list_one(const struct view *v, const struct snap_net *n, const struct evidence *e)
{
	char buf[CLIENT_NET_TEXT + 1], rate[32];
	const char *owner = n->owner.len ? snap_cstr(&v->snap, n->owner) : snap_cstr(&v->snap, n->name);

	if (v->list) {
		json_t *o = net_json(v, n);

		json_object_set_new(o, "evidence", evidence_json(v, e));
		json_array_append_new(v->list, o);
		return;
	}
	snprintf(rate, sizeof(rate), n->rate_limit < 0 ? "default" : n->rate_limit > 0 ? "%.0f" : "none", n->rate_limit);
	printf("%-28s %-8s %8s %9llu %8.1f  %-20s %-24s %s\n", net_text(n->ip, n->prefix, buf), class_words[n->class_], rate, (unsigned long long)e->messages,
		e->first_s ? seen_per_day(e, v->now_s) : 0.0, day(e->last_s), *owner ? owner : "-", state_of(v, n));
}

static int list(struct view *v, const struct wish *w)
{
	uint32_t n;
	const struct snap_net *net = snap_nets(&v->snap, &n);
	uint64_t since_ns = 0;

	if (w->unused && !when_parse(w->unused, &since_ns))
		return -1;
	if (!v->list)
		printf("%-28s %-8s %8s %9s %8s  %-20s %s\n", "NETWORK", "CLASS", "RATE", "MESSAGES", "A DAY", "LAST SEEN", "OWNER");
	for (uint32_t i = 0; i < n; i++) {
		struct evidence e;

		if (w->class && strcasecmp(w->class, class_words[net[i].class_]) != 0)
			continue;
		sum_of(v, &net[i], &e);
		if (!w->unused || e.last_s < since_ns / NS_PER_S)
			list_one(v, &net[i], &e);
	}
	return 0;
}

/* ---- show ---- */

static void show_net(const struct view *v, const struct snap_net *n)
{
	char buf[CLIENT_NET_TEXT + 1];

	if (!n) {
		printf("network      none: it may send to our own domains only\n");
		return;
	}
	printf("network      %s, class %s (%s, line %u)\n", net_text(n->ip, n->prefix, buf), class_words[n->class_],
		n->registered ? registry_name(&v->snap) : "relay_clients", n->line);
	if (n->owner.len)
		printf("owner        %s\n", snap_cstr(&v->snap, n->owner));
	if (n->note.len)
		printf("note         %s\n", snap_cstr(&v->snap, n->note));
	if (n->rate_limit >= 0)
		printf(n->rate_limit > 0 ? "rate         %.0f\n" : "rate         none\n", n->rate_limit);
	if (n->conns_max)
		printf(n->conns_max < UINT32_MAX ? "connections  %u\n" : "connections  none\n", n->conns_max);
	if (n->expires_s)
		printf("expires      %s%s\n", day(n->expires_s), has_expired(v, n) ? ": EXPIRED, it may not relay" : "");
}

static void show_evidence(const struct view *v, const struct evidence *e)
{
	if (!e) {
		printf("seen         never\n");
		return;
	}
	printf("seen         %s to %s, %llu sessions, %llu with TLS\n", day(e->first_s), day(e->last_s), (unsigned long long)e->sessions,
		(unsigned long long)e->tls_sessions);
	printf("messages     %llu to %llu recipients, %.1f a day, %llu over TLS\n", (unsigned long long)e->messages, (unsigned long long)e->recipients,
		seen_per_day(e, v->now_s), (unsigned long long)e->tls_messages);
	printf("senders      %llu looked at, %llu not valid\nHELO         %s\n", (unsigned long long)e->senders, (unsigned long long)e->senders_bad,
		*e->helo ? e->helo : "-");
	for (unsigned r = 0; r < RULE_NRULE; r++)
		if (e->hits[r])
			printf("rule         %-20s (%s) %u times: %s\n", rule_row[r].name, rule_row[r].row, e->hits[r], rule_row[r].title);
}

static int show(const struct view *v, const char *text)
{
	const struct evidence *e;
	const struct snap_net *n;
	uint8_t ip[16];

	if (ip_parse(span_str(text), ip) != ST_OK) {
		fprintf(stderr, "weirctl: %s is not an address\n", text);
		return 1;
	}
	n = snap_find_net(&v->snap, ip);
	e = seen_find(&v->seen, ip);
	if (v->as_json) {
		dump(json_pack("{s:s, s:s, s:o, s:o}", "address", text, "class", class_of(v, n), "registration", n ? net_json(v, n) : json_null(), "evidence",
			evidence_json(v, e)));
		return 0;
	}
	printf("address      %s\n", text);
	show_net(v, n);
	show_evidence(v, e);
	return 0;
}

/* ---- whom a rule would hit ---- */

static int most_first(const void *a, const void *b)
{
	const struct evidence *const *x = a, *const *y = b;

	return ((*x)->messages < (*y)->messages) - ((*x)->messages > (*y)->messages);
}

static void break_one(const struct view *v, const struct snap_net *n, const struct evidence *e, uint64_t hits)
{
	char ip[CLIENT_NET_TEXT + 1];
	const char *owner = !n ? "" : n->owner.len ? snap_cstr(&v->snap, n->owner) : snap_cstr(&v->snap, n->name);

	net_text(e->ip, 128, ip);
	if (v->list)
		json_array_append_new(v->list, json_pack("{s:s, s:s, s:s, s:I, s:o}", "address", ip, "class", class_of(v, n), "owner", owner, "hits",
			(json_int_t)hits, "evidence", evidence_json(v, e)));
	else
		printf("%-28s %-8s %9llu %9llu %8.1f  %-20s %s\n", ip, class_of(v, n), (unsigned long long)hits, (unsigned long long)e->messages,
			seen_per_day(e, v->now_s), day(e->last_s), *owner ? owner : "-");
}

/* How often one of the rules that text means hit, or would have; "tls": messages without it. */
static uint64_t hits_of(const struct evidence *e, const char *text)
{
	uint64_t n = 0;

	if (strcasecmp(text, "tls") == 0)
		return e->messages > e->tls_messages ? e->messages - e->tls_messages : 0;
	for (unsigned r = 0; r < RULE_NRULE; r++)
		if (rule_is_meant((enum rule)r, span_str(text)))
			n += e->hits[r];
	return n;
}

static bool rule_is_known(const char *text)
{
	bool known = strcasecmp(text, "tls") == 0;

	for (unsigned r = 0; r < RULE_NRULE; r++)
		known = known || rule_is_meant((enum rule)r, span_str(text));
	if (known)
		return true;
	fprintf(stderr, "weirctl: there is no rule \"%s\"; there are tls", text);
	for (unsigned r = 0; r < RULE_NRULE; r++)
		fprintf(stderr, ", %s", rule_row[r].name);
	fputc('\n', stderr);
	return false;
}

static int would_break(const struct view *v, const struct wish *w)
{
	const struct evidence **row;

	if (!rule_is_known(w->would_break))
		return 1;
	row = calloc(v->seen.n + 1, sizeof(const struct evidence *));
	CHECK(row);
	for (size_t i = 0; i < v->seen.n; i++)
		row[i] = &v->seen.row[i];
	if (v->seen.n)
		qsort(row, v->seen.n, sizeof(const struct evidence *), most_first);
	if (!v->list)
		printf("%-28s %-8s %9s %9s %8s  %-20s %s\n", "ADDRESS", "CLASS", "HITS", "MESSAGES", "A DAY", "LAST SEEN", "OWNER");
	for (size_t i = 0; i < v->seen.n; i++) {
		const struct snap_net *n = snap_find_net(&v->snap, row[i]->ip);
		const char *class = class_of(v, n);
		uint64_t hits = hits_of(row[i], w->would_break);

		if (hits && (w->class ? strcasecmp(w->class, class) == 0 : strcmp(class, class_words[CLASS_MX]) != 0))
			break_one(v, n, row[i], hits);
	}
	free(row);
	return 0;
}

/* ---- listeners (A4) ---- */

static int listeners(const struct view *v)
{
	if (!v->list)
		printf("%-40s %10s %10s %10s %10s\n", "LISTENER", "SESSIONS", "MESSAGES", "RECIPIENTS", "REFUSED");
	for (size_t i = 0; i < v->seen.nlisteners; i++) {
		const struct evidence_listener *l = &v->seen.listener[i];

		if (v->list)
			json_array_append_new(v->list, json_pack("{s:s, s:I, s:I, s:I, s:I}", "listener", l->name, "sessions", (json_int_t)l->sessions, "messages",
				(json_int_t)l->messages, "recipients", (json_int_t)l->recipients, "refused", (json_int_t)l->refused));
		else
			printf("%-40s %10llu %10llu %10llu %10llu\n", l->name, (unsigned long long)l->sessions, (unsigned long long)l->messages,
				(unsigned long long)l->recipients, (unsigned long long)l->refused);
	}
	return 0;
}

/* ---- history ---- */

static void log_row(void *ctx, const struct history_row *r)
{
	if (ctx)
		json_array_append_new(ctx, json_pack("{s:I, s:I, s:s, s:s, s:I, s:s}", "n", (json_int_t)r->n, "at", (json_int_t)r->at_s, "how", r->how, "by", r->by,
			"entries", (json_int_t)r->entries, "diff", r->diff));
	else
		printf("%5llu  %s  %-7s %-24s %6llu entries  %s\n", (unsigned long long)r->n, day(r->at_s), r->how, r->by, (unsigned long long)r->entries, r->diff);
}

static int show_log(const struct view *v)
{
	enum status st = history_each(snap_cstr(&v->snap, v->snap.h->settings.clients_dir), REGISTRY, log_row, v->list);

	return st == ST_OK || st == ST_NOT_FOUND ? 0 : failed();
}

/* ---- orders ---- */

static int order(const struct view *v, struct logline *row)
{
	char request[16384], text[16384];
	enum status st;

	if (row->o.over) {
		fprintf(stderr, "weirctl: that is too long for one command\n");
		return 1;
	}
	snprintf(request, sizeof(request), "clients %.*s\n", SPAN_FMT(row_text(row)));
	st = ask_control(v->run_dir, request, text, sizeof(text));
	if (st != ST_OK && st != ST_INVALID)
		return failed();
	if (v->as_json)
		dump(json_pack("{s:b, s:s}", "ok", st == ST_OK, "text", text));
	else
		fputs(text, st == ST_OK ? stdout : stderr);
	return st == ST_OK ? 0 : 1;
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
		return argc || w->sets || w->unused ? -1 : would_break(v, w);
	if (argc == 2 && strcmp(verb, "set") == 0 && !w->unused)
		return order_on(v, "set", argv[1], w);
	if (w->sets)
		return -1;
	if (argc == 1 && strcmp(verb, "list") == 0)
		return list(v, w);
	if (w->class || w->unused)
		return -1;
	if (argc == 2 && strcmp(verb, "show") == 0)
		return show(v, argv[1]);
	if (argc == 2 && strcmp(verb, "delete") == 0)
		return order_on(v, "delete", argv[1], w);
	if (argc == 1 && strcmp(verb, "log") == 0)
		return show_log(v);
	if (argc == 1 && strcmp(verb, "listeners") == 0)
		return listeners(v);
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
		return failed();
	argc -= optind;
	argv += optind;
	lists = w.would_break || (argc == 1 && strcmp(argv[0], "revert") != 0);
	v.as_json = as_json;
	v.list = as_json && lists ? json_array() : NULL;
	seen_read(run_dir, &v.seen);
	rc = run(&v, &w, argc, argv);
	if (v.list && rc == 0)
		dump(v.list);
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

		if (!*state_of(&v, &net[i]) || ++shown > SHOWN_SOON)
			continue;
		printf("  ! %s (%s) %s %s\n", net_text(net[i].ip, net[i].prefix, buf), net[i].owner.len ? snap_cstr(&v.snap, net[i].owner) : "no owner",
			has_expired(&v, &net[i]) ? "has expired and may not relay, since" : "expires within 14 days,", day(net[i].expires_s));
	}
	if (shown > SHOWN_SOON)
		printf("  ! and %u more; see weirctl clients list\n", shown - SHOWN_SOON);
	snapshot_close(&v.snap);
}
