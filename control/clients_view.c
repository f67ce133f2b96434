#include "control/clients_view.h"

#include <stdlib.h>
#include "control/clientfile.h"
#include "control/model_clients.h"
#include "control/rows.h"
#include "control/when.h"
#include "spool/base/clock.h"
#include "spool/mail/address.h"
#include "spool/mail/rules.h"

#define SOON_S (14 * 86400)

const char *view_day(uint64_t s)
{
	return s ? when_text(s * NS_PER_S) : "never";
}

const char *view_net(const uint8_t ip[16], unsigned prefix, char *buf)
{
	struct out o = out_of(buf, CLIENT_NET_TEXT);

	client_net_write(ip, prefix, &o);
	out_char(&o, '\0');
	return buf;
}

bool view_has_expired(const struct view *v, const struct snap_net *n)
{
	return n->expires_s && n->expires_s <= v->now_s;
}

static const char *class_of(const struct view *v, const struct snap_net *n)
{
	return class_words[n && !view_has_expired(v, n) ? n->class_ : CLASS_MX];
}

const char *view_state(const struct view *v, const struct snap_net *n)
{
	return !n->expires_s ? "" : view_has_expired(v, n) ? "EXPIRED" : n->expires_s <= v->now_s + SOON_S ? "expires soon" : "";
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

	return json_pack("{s:s, s:s, s:s, s:s, s:s, s:f, s:I, s:I, s:b, s:s, s:i}", "network", view_net(n->ip, n->prefix, buf), "class", class_words[n->class_],
		"owner", snap_cstr(&v->snap, n->owner), "note", snap_cstr(&v->snap, n->note), "name", snap_cstr(&v->snap, n->name), "rate", n->rate_limit,
		"connections", (json_int_t)n->conns_max, "expires", (json_int_t)n->expires_s, "expired", view_has_expired(v, n), "source", n->registered ? "registry" : "relay_clients", "line", (int)n->line);
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
	printf("%-28s %-8s %8s %9llu %8.1f  %-20s %-24s %s\n", view_net(n->ip, n->prefix, buf), class_words[n->class_], rate, (unsigned long long)e->messages,
		e->first_s ? seen_per_day(e, v->now_s) : 0.0, view_day(e->last_s), *owner ? owner : "-", view_state(v, n));
}

int view_list(const struct view *v, const char *class, const char *unused)
{
	uint32_t n;
	const struct snap_net *net = snap_nets(&v->snap, &n);
	uint64_t since_ns = 0;

	if (unused && !when_parse(unused, &since_ns))
		return -1;
	if (!v->list)
		printf("%-28s %-8s %8s %9s %8s  %-20s %s\n", "NETWORK", "CLASS", "RATE", "MESSAGES", "A DAY", "LAST SEEN", "OWNER");
	for (uint32_t i = 0; i < n; i++) {
		struct evidence e;

		if (class && strcasecmp(class, class_words[net[i].class_]) != 0)
			continue;
		sum_of(v, &net[i], &e);
		if (!unused || e.last_s < since_ns / NS_PER_S)
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
	printf("network      %s, class %s (%s, line %u)\n", view_net(n->ip, n->prefix, buf), class_words[n->class_],
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
		printf("expires      %s%s\n", view_day(n->expires_s), view_has_expired(v, n) ? ": EXPIRED, it may not relay" : "");
}

static void show_evidence(const struct view *v, const struct evidence *e)
{
	if (!e) {
		printf("seen         never\n");
		return;
	}
	printf("seen         %s to %s, %llu sessions, %llu with TLS\n", view_day(e->first_s), view_day(e->last_s), (unsigned long long)e->sessions,
		(unsigned long long)e->tls_sessions);
	printf("messages     %llu to %llu recipients, %.1f a day, %llu over TLS\n", (unsigned long long)e->messages, (unsigned long long)e->recipients,
		seen_per_day(e, v->now_s), (unsigned long long)e->tls_messages);
	printf("senders      %llu looked at, %llu not valid\nHELO         %s\n", (unsigned long long)e->senders, (unsigned long long)e->senders_bad,
		*e->helo ? e->helo : "-");
	for (unsigned r = 0; r < RULE_NRULE; r++)
		if (e->hits[r])
			printf("rule         %-20s (%s) %u times: %s\n", rule_row[r].name, rule_row[r].row, e->hits[r], rule_row[r].title);
}

int view_show(const struct view *v, const char *text)
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
		dump_json(json_pack("{s:s, s:s, s:o, s:o}", "address", text, "class", class_of(v, n), "registration", n ? net_json(v, n) : json_null(), "evidence",
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

	view_net(e->ip, 128, ip);
	if (v->list)
		json_array_append_new(v->list, json_pack("{s:s, s:s, s:s, s:I, s:o}", "address", ip, "class", class_of(v, n), "owner", owner, "hits",
			(json_int_t)hits, "evidence", evidence_json(v, e)));
	else
		printf("%-28s %-8s %9llu %9llu %8.1f  %-20s %s\n", ip, class_of(v, n), (unsigned long long)hits, (unsigned long long)e->messages,
			seen_per_day(e, v->now_s), view_day(e->last_s), *owner ? owner : "-");
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

int view_would_break(const struct view *v, const char *rule, const char *class_wanted)
{
	const struct evidence **row;

	if (!rule_is_known(rule))
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
		uint64_t hits = hits_of(row[i], rule);

		if (hits && (class_wanted ? strcasecmp(class_wanted, class) == 0 : strcmp(class, class_words[CLASS_MX]) != 0))
			break_one(v, n, row[i], hits);
	}
	free(row);
	return 0;
}

/* ---- listeners (A4) ---- */

int view_listeners(const struct view *v)
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
