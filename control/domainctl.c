#include "control/domainctl.h"

#include <stdlib.h>
#include "control/domain_check.h"
#include "control/domain_state.h"
#include "control/history.h"
#include "control/rows.h"
#include "control/when.h"
#include "spool/base/clock.h"
#include "spool/base/log.h"
#include "spool/mail/address.h"
#include "spool/store/snapshot.h"
#include "spool/store/tables.h"

struct view {
	const char *run_dir;
	bool as_json;
	struct snapshot snap;
	struct tables tables; /* of the generation in use; h NULL: there is none */
};

static const char *directory(const struct view *v)
{
	return snap_cstr(&v->snap, v->snap.h->settings.managed_dir);
}

/* ---- one domain ---- */

static const char *source_name(const struct snap_mail_domain *m)
{
	static const char *const name[] = { [SOURCE_FILE] = "file", [SOURCE_HTTPS] = "https", [SOURCE_COMMAND] = "command" };

	return name[m->source];
}

static const char *when(uint64_t s)
{
	return s ? when_text(s * NS_PER_S) : "never";
}

/* How many entries are in the tables in use; -1: the domain is not in them. */
static long entries_in_use(const struct view *v, const struct snap_mail_domain *m)
{
	const struct tables_domain *d = v->tables.h ? tables_find_domain(&v->tables, snap_span(&v->snap, m->name)) : NULL;

	return d ? (long)d->naliases : -1;
}

static json_t *domain_json(const struct view *v, const struct snap_mail_domain *m)
{
	const char *domain = snap_cstr(&v->snap, m->name);
	struct history_row row = { 0 };
	struct domain_state st;
	json_t *o;

	domain_state_read(directory(v), domain, &st);
	if (history_last(directory(v), domain, &row) != ST_OK)
		row.n = 0;
	o = json_pack("{s:s, s:s, s:s, s:s, s:s, s:i, s:I, s:I, s:I}", "domain", domain, "kind", source_name(m), "source", snap_cstr(&v->snap, m->value),
		"owner", snap_cstr(&v->snap, m->owner), "contact", snap_cstr(&v->snap, m->contact), "config_line", (int)m->line, "change", (json_int_t)row.n,
		"entries", (json_int_t)entries_in_use(v, m), "generation", (json_int_t)(v->tables.h ? v->tables.h->generation : 0));
	json_object_update_new(o, json_pack("{s:I, s:I, s:b, s:s, s:I, s:b, s:I, s:I, s:I, s:I}", "fetched", (json_int_t)st.fetched_s, "next",
		(json_int_t)st.next_s, "failed", st.failed, "result", st.result, "refused_entries", (json_int_t)(st.refused ? st.refused_entries : 0),
		"can_accept", st.refused && st.refused_shrunk, "checked", (json_int_t)st.checked_s, "next_check", (json_int_t)st.next_check_s,
		"findings", (json_int_t)st.findings, "passed_over", (json_int_t)(row.passed_over != 0)));
	return o;
}

static void print_short(const struct view *v, const struct snap_mail_domain *m)
{
	const char *domain = snap_cstr(&v->snap, m->name);
	struct domain_state st;
	long n = entries_in_use(v, m);

	domain_state_read(directory(v), domain, &st);
	printf("%-30s %-8s %8ld  %s%s%s\n", domain, source_name(m), n < 0 ? 0 : n, m->source == SOURCE_HTTPS ? when(st.fetched_s) : "",
		m->source == SOURCE_HTTPS ? " " : "", m->source == SOURCE_HTTPS ? st.result : "");
}

static void print_fetches(const struct domain_state *st)
{
	printf("last fetch   %s: %s%s\n", when(st->fetched_s), *st->result ? st->result : "-", st->failed ? " (the live copy stays)" : "");
	printf("next fetch   %s\n", st->next_s ? when_text(st->next_s * NS_PER_S) : "now");
	if (st->refused)
		printf("refused      a file of %llu entries%s\n", (unsigned long long)st->refused_entries,
			st->refused_shrunk ? "; weirctl domain accept takes it" : "");
}

static void print_long(const struct view *v, const struct snap_mail_domain *m)
{
	const char *domain = snap_cstr(&v->snap, m->name);
	struct history_row row;
	struct domain_state st;
	long n = entries_in_use(v, m);

	domain_state_read(directory(v), domain, &st);
	printf("domain       %s (configuration line %u)\nsource       %s: %s\n", domain, m->line, source_name(m), snap_cstr(&v->snap, m->value));
	printf("owner        %s\ncontact      %s\n", m->owner.len ? snap_cstr(&v->snap, m->owner) : "-",
		m->contact.len ? snap_cstr(&v->snap, m->contact) : "-");
	if (m->source == SOURCE_HTTPS)
		print_fetches(&st);
	if (n < 0)
		printf("entries      the tables do not have this domain: its mail is answered 451\n");
	else
		printf("entries      %ld in generation %llu\n", n, (unsigned long long)v->tables.h->generation);
	if (history_last(directory(v), domain, &row) == ST_OK)
		printf("last change  %llu, %s: %s by %s, +%llu ~%llu -%llu\n", (unsigned long long)row.n, when(row.at_s), row.how, row.by,
			(unsigned long long)row.added, (unsigned long long)row.changed, (unsigned long long)row.removed);
	else
		printf("last change  none\n");
	printf("last check   %s, %llu findings\n", when(st.checked_s), (unsigned long long)st.findings);
}

/* ---- list, show ---- */

static int list(const struct view *v)
{
	uint32_t n;
	const struct snap_mail_domain *m = snap_mail_domains(&v->snap, &n);
	json_t *j = v->as_json ? json_array() : NULL;

	if (!j)
		printf("%-30s %-8s %8s  LAST FETCH\n", "DOMAIN", "SOURCE", "ENTRIES");
	for (uint32_t i = 0; i < n; i++) {
		if (m[i].kind != DOMAIN_ALIASES)
			continue;
		if (j)
			json_array_append_new(j, domain_json(v, &m[i]));
		else
			print_short(v, &m[i]);
	}
	if (j)
		dump_json(j);
	return 0;
}

static int show(const struct view *v, const struct snap_mail_domain *m)
{
	if (v->as_json)
		dump_json(domain_json(v, m));
	else
		print_long(v, m);
	return 0;
}

/* ---- log ---- */

static void log_row(void *ctx, const struct history_row *r)
{
	if (ctx)
		json_array_append_new(ctx, json_pack("{s:I, s:I, s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:s}", "n", (json_int_t)r->n, "at", (json_int_t)r->at_s, "how",
			r->how, "by", r->by, "source", r->source, "entries", (json_int_t)r->entries, "added", (json_int_t)r->added, "changed",
			(json_int_t)r->changed, "removed", (json_int_t)r->removed, "diff", r->diff));
	else
		printf("%5llu  %s  %-7s %-24s %7llu entries  %s\n", (unsigned long long)r->n, when(r->at_s), r->how, r->by, (unsigned long long)r->entries, r->diff);
}

static int show_log(const struct view *v, const char *domain)
{
	json_t *j = v->as_json ? json_array() : NULL;
	enum status st = history_each(directory(v), domain, log_row, j);

	if (j)
		dump_json(j);
	return st == ST_OK || st == ST_NOT_FOUND ? 0 : trail_failed();
}

/* ---- orders ---- */

static int order(const struct view *v, struct logline *row)
{
	return rows_order(v->run_dir, v->as_json, "domain", row) ? 0 : 1;
}

static struct logline order_row(const char *verb, const char *domain)
{
	struct logline row;

	row_begin(&row);
	log_str(&row, "do", verb);
	log_str(&row, "domain", domain);
	return row;
}

/* alias set D LOCAL ADDR... | alias delete D LOCAL */
static int order_alias(const struct view *v, const char *domain, int argc, char **argv)
{
	bool set = strcmp(argv[2], "set") == 0;
	char addresses[1800] = "";
	struct out o = out_of(addresses, sizeof(addresses) - 1);
	struct logline row;

	if ((set && argc < 6) || (!set && (argc != 5 || strcmp(argv[2], "delete") != 0)))
		return -1;
	for (int i = 5; i < argc; i++) {
		if (i > 5)
			out_char(&o, ',');
		out_str(&o, argv[i]);
	}
	row = order_row(argv[2], domain);
	log_str(&row, "local", argv[4]);
	if (set)
		log_str(&row, "addresses", addresses);
	if (o.over || row.o.over) {
		fprintf(stderr, "weirctl: too many addresses for one command; make a list of lists, or take a file as the source\n");
		return 1;
	}
	return order(v, &row);
}

static int order_revert(const struct view *v, const char *domain, const char *n)
{
	struct logline row = order_row("revert", domain);
	uint64_t number;

	if (n && (!span_u64(span_str(n), UINT64_MAX, &number) || !number))
		return -1;
	if (n)
		log_u64(&row, "n", number);
	return order(v, &row);
}

/* ---- the whole ---- */

/* The look-up form, as all files and orders have it. */
static const struct snap_mail_domain *find(const struct view *v, const char *text, char *key, size_t cap)
{
	struct out o = out_of(key, cap - 1);
	const struct snap_mail_domain *m;

	if (address_domain_key(span_str(text), &o) != ST_OK) {
		fprintf(stderr, "weirctl: %s is not a domain\n", text);
		return NULL;
	}
	key[o.n] = '\0';
	m = snap_find_mail_domain(&v->snap, out_span(&o));
	if (m && m->kind == DOMAIN_ALIASES)
		return m;
	fprintf(stderr, "weirctl: %s is not a mail domain with aliases\n", text);
	return NULL;
}

static int with_domain(const struct view *v, int argc, char **argv)
{
	bool alias = strcmp(argv[1], "alias") == 0;
	const char *verb = argv[1];
	char domain[ADDRESS_DOMAIN_MAX + 1];
	const struct snap_mail_domain *m;

	if (alias && argc < 5)
		return -1;
	m = find(v, argv[alias ? 3 : 2], domain, sizeof(domain));
	if (!m)
		return 1;
	if (alias)
		return order_alias(v, domain, argc, argv);
	if (strcmp(verb, "check") == 0)
		return domain_check(v->run_dir, v->as_json, m, &v->snap, argc - 3, argv + 3);
	if (strcmp(verb, "revert") == 0 && argc <= 4)
		return order_revert(v, domain, argc == 4 ? argv[3] : NULL);
	if (argc != 3)
		return -1;
	if (strcmp(verb, "show") == 0)
		return show(v, m);
	if (strcmp(verb, "log") == 0)
		return show_log(v, domain);
	if (strcmp(verb, "fetch") == 0 || strcmp(verb, "accept") == 0) {
		struct logline row = order_row(verb, domain);

		return order(v, &row);
	}
	return -1;
}

int domain_command(const char *run_dir, bool as_json, int argc, char **argv)
{
	struct view v = { .run_dir = run_dir, .as_json = as_json };
	char path[4200];
	int rc = -1;

	snprintf(path, sizeof(path), "%s/snapshot", run_dir);
	if (snapshot_open(path, &v.snap) != ST_OK)
		return trail_failed();
	if (tables_open_current(run_dir, &v.tables) != ST_OK)
		v.tables.h = NULL;
	if (argc == 2 && strcmp(argv[1], "list") == 0)
		rc = list(&v);
	else if (argc == 2 && strcmp(argv[1], "self-check") == 0)
		rc = domain_self_check(run_dir, as_json, &v.snap);
	else if (argc > 2)
		rc = with_domain(&v, argc, argv);
	tables_close(&v.tables);
	snapshot_close(&v.snap);
	return rc;
}
