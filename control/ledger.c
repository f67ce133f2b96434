#include "control/ledger.h"

#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "control/balance.h"
#include "control/when.h"
#include "spool/base/clock.h"
#include "spool/store/store.h"

/* What is not explained at once may be under way between queue, log and ledger: it has this long to arrive. */
enum { TRIES = 14, BETWEEN_MS = 250 };

struct finding {
	uint64_t id; /* 0: about the ledger as a whole */
	char text[300];
};

struct report {
	struct balance *balance;
	struct balance_sums sums;
	uint64_t since_s, until_s;
	struct finding *found;
	size_t nfound, cap, nkept; /* the first nkept are of the files, the others of the last judgement */
};

static void found(struct report *r, uint64_t id, const char *text)
{
	if (r->nfound == r->cap) {
		r->cap = r->cap ? r->cap * 2 : 64;
		r->found = realloc(r->found, r->cap * sizeof(*r->found));
		CHECK(r->found);
	}
	r->found[r->nfound].id = id;
	snprintf(r->found[r->nfound++].text, sizeof(r->found[0].text), "%s", text);
}

static void on_row(void *ctx, const struct ledger_row *row, bool repaired)
{
	balance_row(((struct report *)ctx)->balance, row, repaired);
}

static void on_damage(void *ctx, const char *text)
{
	struct report *r = ctx;

	found(r, 0, text);
	r->nkept = r->nfound;
}

static void on_queued(void *ctx, uint64_t id, uint32_t open, bool held)
{
	balance_queued(((struct report *)ctx)->balance, id, open, held);
}

static void on_lacking(void *ctx, const struct ledger_row *row)
{
	if (row->type == LEDGER_GAP)
		found(ctx, 0, "the log does not go back to where the ledger ends: what happened in between is lost");
	else
		balance_row(((struct report *)ctx)->balance, row, true);
}

static void on_problem(void *ctx, uint64_t id, const char *text)
{
	found(ctx, id, text);
}

/* What must be true of the files once they were read to their end. */
static void check_ends(struct report *r, const struct ledgers *l)
{
	char text[300];

	for (unsigned k = 0; k < l->n; k++) {
		if (!ledger_read_whole(l->reader[k], text, sizeof(text)))
			found(r, 0, text);
		if (l->live[k] && ledger_read_number(l->reader[k]) < l->told[k]) {
			snprintf(text, sizeof(text), "partition %u: frames %llu to %llu are missing at the end", k,
				(unsigned long long)ledger_read_number(l->reader[k]) + 1, (unsigned long long)l->told[k]);
			found(r, 0, text);
		}
		if (l->live[k] && ledger_read_tail(l->reader[k])) {
			snprintf(text, sizeof(text), "partition %u: the last %llu bytes are not what was written", k,
				(unsigned long long)ledger_read_tail(l->reader[k]));
			found(r, 0, text);
		}
	}
}

static enum status one_try(struct report *r, struct ledgers *l, bool patient)
{
	struct ledger_sink sink = { .ctx = r, .row = on_row, .damage = on_damage };
	enum status st = ledgers_read(l, patient, &sink);

	r->nfound = r->nkept;
	balance_ask(r->balance);
	if (st == ST_OK)
		st = ledgers_queue(l, &(struct queue_sink){ .ctx = r, .message = on_queued, .lacking = on_lacking });
	if (st == ST_OK)
		st = ledgers_read(l, patient, &sink);
	if (st != ST_OK)
		return st;
	balance_judge(r->balance, &r->sums, on_problem, r);
	check_ends(r, l);
	return ST_OK;
}

static enum status prove(struct report *r, struct ledgers *l)
{
	enum status st = ST_OK;

	for (unsigned i = 0; i < TRIES; i++) {
		st = one_try(r, l, i + 1 < TRIES);
		if (st == ST_OK && !r->nfound)
			return st;
		if (i + 1 < TRIES)
			usleep(BETWEEN_MS * 1000);
	}
	return st;
}

/* ---- what is shown ---- */

static void print_line(const char *name, const struct balance_line *a)
{
	printf("%-13s %9llu %11llu %10llu %8llu %6llu %7llu %8llu %12llu\n", name, (unsigned long long)a->messages, (unsigned long long)a->recipients,
		(unsigned long long)a->delivered, (unsigned long long)a->bounced, (unsigned long long)a->held, (unsigned long long)a->queued,
		(unsigned long long)a->deleted, (unsigned long long)a->unexplained);
}

static struct balance_line total(const struct balance_sums *s)
{
	const struct balance_line *a = &s->clients, *b = &s->own;

	return (struct balance_line){ a->messages + b->messages, a->recipients + b->recipients, a->delivered + b->delivered, a->bounced + b->bounced,
		a->deleted + b->deleted, a->held + b->held, a->queued + b->queued, a->unexplained + b->unexplained };
}

static void print_report(const struct report *r, const struct ledgers *l)
{
	struct balance_line all = total(&r->sums);

	printf("Accepted from %s", when_text(r->since_s * NS_PER_S));
	printf(" until %s, %u partitions\n", when_text(r->until_s * NS_PER_S), l->n);
	printf("%-13s %9s %11s %10s %8s %6s %7s %8s %12s\n", "", "messages", "recipients", "delivered", "bounced", "held", "queued", "deleted",
		"unexplained");
	print_line("from clients", &r->sums.clients);
	print_line("made here", &r->sums.own);
	print_line("together", &all);
	for (unsigned i = 0; i < r->sums.ndeleters; i++)
		printf("deleted by %s: %llu\n", r->sums.deleter[i].who, (unsigned long long)r->sums.deleter[i].n);
	for (size_t i = 0; i < r->nfound; i++) {
		char id[MSG_ID_TEXT + 1];

		msg_id_text(r->found[i].id, id);
		printf("! %s%s%s\n", r->found[i].id ? id : "", r->found[i].id ? " " : "", r->found[i].text);
	}
	if (r->nfound)
		printf("The ledger does NOT balance: %zu findings.\n", r->nfound);
	else
		printf("It balances: %llu accepted = %llu delivered + %llu bounced + %llu held + %llu queued + %llu deleted.\n",
			(unsigned long long)all.recipients, (unsigned long long)all.delivered, (unsigned long long)all.bounced,
			(unsigned long long)all.held, (unsigned long long)all.queued, (unsigned long long)all.deleted);
}

static json_t *line_json(const struct balance_line *a)
{
	return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "messages", (json_int_t)a->messages, "recipients", (json_int_t)a->recipients,
		"delivered", (json_int_t)a->delivered, "bounced", (json_int_t)a->bounced, "held", (json_int_t)a->held, "queued", (json_int_t)a->queued,
		"deleted", (json_int_t)a->deleted, "unexplained", (json_int_t)a->unexplained);
}

static void print_json(const struct report *r, const struct ledgers *l)
{
	struct balance_line all = total(&r->sums);
	json_t *o, *who = json_object(), *list = json_array();

	for (unsigned i = 0; i < r->sums.ndeleters; i++)
		json_object_set_new(who, r->sums.deleter[i].who, json_integer((json_int_t)r->sums.deleter[i].n));
	for (size_t i = 0; i < r->nfound; i++) {
		char id[MSG_ID_TEXT + 1];

		msg_id_text(r->found[i].id, id);
		json_array_append_new(list, json_pack("{s:s*, s:s}", "id", r->found[i].id ? id : NULL, "problem", r->found[i].text));
	}
	o = json_pack("{s:s, s:s, s:i, s:o, s:o, s:o, s:o, s:b, s:o}", "since", when_text(r->since_s * NS_PER_S), "until",
		when_text(r->until_s * NS_PER_S), "partitions", (int)l->n, "clients", line_json(&r->sums.clients), "own", line_json(&r->sums.own), "total",
		line_json(&all), "deleted_by", who, "balanced", !r->nfound, "problems", list);
	json_dumpf(o, stdout, JSON_INDENT(2));
	putchar('\n');
	json_decref(o);
}

/* ---- the command ---- */

static int usage(void)
{
	fputs("usage: weirctl ledger [--hour YYYY-MM-DDTHH | --since TIME [--until TIME]] [--spool DIR] [--json]\n", stderr);
	return 2;
}

/* Without times: the hour that is. */
static bool span_of_time(const char *hour, const char *since, const char *until, struct report *r)
{
	uint64_t from = clock_wall_ns() / (3600 * NS_PER_S) * (3600 * NS_PER_S), to = clock_wall_ns() + NS_PER_S;

	if ((hour && (since || until)) || (until && !since))
		return false;
	if (hour && (!when_parse(hour, &from) || strlen(hour) != strlen("YYYY-MM-DDTHH")))
		return false;
	if (hour)
		to = from + 3600 * NS_PER_S;
	if ((since && !when_parse(since, &from)) || (until && !when_parse(until, &to)) || from >= to)
		return false;
	r->since_s = from / NS_PER_S;
	r->until_s = to / NS_PER_S;
	return true;
}

int cmd_ledger(const char *run_dir, bool as_json, int argc, char **argv)
{
	static const struct option options[] = { { "hour", 1, NULL, 'h' }, { "since", 1, NULL, 's' }, { "until", 1, NULL, 'u' },
		{ "spool", 1, NULL, 'd' }, { 0 } };
	const char *arg[128] = { 0 };
	struct report r = { 0 };
	struct ledgers l = { 0 };
	enum status st;
	int c;

	optind = 1;
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == '?')
			return usage();
		arg[c] = optarg;
	}
	if (optind != argc || !span_of_time(arg['h'], arg['s'], arg['u'], &r))
		return usage();
	st = balance_new(r.since_s, r.until_s, &r.balance);
	if (st == ST_OK)
		st = ledgers_open(&l, run_dir, arg['d'], r.since_s * NS_PER_S);
	if (st == ST_OK)
		st = prove(&r, &l);
	if (st != ST_OK)
		fprintf(stderr, "weirctl: %s\n", trail_text());
	else if (as_json)
		print_json(&r, &l);
	else
		print_report(&r, &l);
	ledgers_close(&l);
	balance_free(r.balance);
	free(r.found);
	return st != ST_OK || r.nfound ? 1 : 0;
}
