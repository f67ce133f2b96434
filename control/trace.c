/* weirctl trace: a message's story from the ledger, the queue and, where they are given, log files. */
#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "control/ask.h"
#include "control/ledger.h"
#include "control/when.h"
#include "spool/base/clock.h"
#include "spool/base/log.h"
#include "spool/base/map.h"
#include "spool/mail/address.h"
#include "spool/store/store.h"

enum { MESSAGES_MAX = 1000, LOGS_MAX = 16, WORKERS_MAX = 64, GIVEN_MAX = 100 /* of a message; more are not shown */ };

/* What was found: rows of key=value, as in the log, in the order in which they happened. */
struct event {
	uint64_t id; /* 0: refused before it was a message */
	uint64_t at_ns;
	char *text;
};

struct message {
	uint64_t id;
	uint32_t nrcpt;
	char **rcpt; /* NULL: not known */
};

struct trace {
	uint64_t id;         /* what is asked for; 0: address is */
	struct span address; /* a mail address, a client's IP address, or a Message-ID */
	uint8_t ip[16];
	bool is_ip;
	uint64_t since_ns;
	struct message message[MESSAGES_MAX];
	unsigned nmessages;
	bool more;           /* there were too many */
	struct event *event;
	size_t nevents, cap;
	/* the acceptance whose recipients come next */
	uint64_t last_id;
	struct event given[GIVEN_MAX]; /* what its recipients stand for */
	unsigned ngiven;
	struct logline last;
	uint64_t last_at_ns;
	uint32_t last_nrcpt;
};

static void event_add(struct trace *t, uint64_t id, uint64_t at_ns, struct span text)
{
	if (t->nevents == t->cap) {
		t->cap = t->cap ? t->cap * 2 : 256;
		t->event = realloc(t->event, t->cap * sizeof(*t->event));
		CHECK(t->event);
	}
	t->event[t->nevents++] = (struct event){ id, at_ns, strndup(text.p, text.n) };
}

static struct message *message_of(struct trace *t, uint64_t id)
{
	for (unsigned i = t->nmessages; i-- > 0;)
		if (t->message[i].id == id)
			return &t->message[i];
	return NULL;
}

/* The message belongs to what is asked for. */
static struct message *adopt(struct trace *t, uint64_t id, uint32_t nrcpt)
{
	struct message *m = message_of(t, id);

	if (m)
		return m;
	if (t->nmessages == MESSAGES_MAX) {
		t->more = true;
		return NULL;
	}
	m = &t->message[t->nmessages++];
	*m = (struct message){ .id = id, .nrcpt = nrcpt, .rcpt = calloc(nrcpt ? nrcpt : 1, sizeof(char *)) };
	return m;
}

static bool wanted_address(const struct trace *t, struct span a)
{
	return !t->is_ip && t->address.n && span_eq_nocase(a, t->address);
}

/* With or without its brackets. */
static bool wanted_message_id(const struct trace *t, struct span id)
{
	if (!id.n || t->is_ip || !t->address.n)
		return false;
	return span_eq(id, t->address) || (id.n > 2 && span_eq(span_of(id.p + 1, id.n - 2), t->address));
}

static bool wanted_client(const struct trace *t, const uint8_t ip[16])
{
	return t->is_ip && memcmp(ip, t->ip, 16) == 0;
}

/* ---- rows of the ledger, as lines ---- */

static void begin(struct logline *l, const char *event, const struct ledger_row *row, bool repaired)
{
	row_begin(l);
	log_str(l, "ts", when_text(row->at_ns));
	log_str(l, "event", event);
	if (repaired)
		log_str(l, "repaired", "yes"); /* the time is that of the restart */
}

static void add_client(struct logline *l, const struct ledger_row *row)
{
	char ip[48];
	struct out o = out_of(ip, sizeof(ip));

	if (row->flags & ENV_INTERNAL)
		return;
	ip_write(row->client_ip, &o);
	log_span(l, "client", out_span(&o));
	log_span(l, "helo", row->helo);
	log_str(l, "tls", row->flags & ENV_TLS ? "yes" : "no");
}

static void add_reply(struct logline *l, const struct ledger_row *row)
{
	if (row->code && row->enhanced[0])
		log_f(l, "reply", "%u %u.%u.%u %.*s", row->code, row->enhanced[0], row->enhanced[1], row->enhanced[2], SPAN_FMT(row->text));
	else if (row->code)
		log_f(l, "reply", "%u %.*s", row->code, SPAN_FMT(row->text));
	else if (row->text.n)
		log_span(l, "reason", row->text);
}

/* Its acceptance and what it stood for, once it is known to be wanted. */
static void adopt_last(struct trace *t)
{
	if (!adopt(t, t->last_id, t->last_nrcpt))
		return;
	event_add(t, t->last_id, t->last_at_ns, row_text(&t->last));
	for (unsigned i = 0; i < t->ngiven; i++)
		event_add(t, t->last_id, t->last_at_ns, span_str(t->given[i].text));
}

static void forget_given(struct trace *t)
{
	while (t->ngiven)
		free(t->given[--t->ngiven].text);
}

static void on_accepted(struct trace *t, const struct ledger_row *row, bool repaired)
{
	struct logline *l = &t->last;
	struct span addrs = row->addrs, message_id;

	begin(l, row->flags & ENV_INTERNAL ? "made" : "accepted", row, repaired);
	if (row->arrived_ns)
		log_str(l, "arrived", when_text(row->arrived_ns));
	add_client(l, row);
	log_span(l, "from", row->sender);
	if (!addrs.n || !ledger_addr_read(&addrs, &message_id))
		message_id = SPAN_NONE;
	if (message_id.n)
		log_span(l, "message_id", message_id);
	log_u64(l, "nrcpt", row->nrcpt);
	log_u64(l, "size", row->size);
	log_str(l, "verdict", row->flags & ENV_INTERNAL ? "not scanned" : row->state == MSG_HELD ? "held" : "clean");
	if (row->state == MSG_HELD)
		log_span(l, "held", row->text);
	t->last_id = row->id;
	t->last_at_ns = row->at_ns;
	t->last_nrcpt = row->nrcpt;
	forget_given(t);
	if (row->id == t->id || wanted_address(t, row->sender) || wanted_client(t, row->client_ip) || wanted_message_id(t, message_id))
		adopt_last(t);
}

static void on_given(struct trace *t, const struct ledger_row *row, bool repaired)
{
	struct span addrs = row->addrs, a;
	struct logline l;

	if (row->id != t->last_id || !ledger_addr_read(&addrs, &a))
		return;
	begin(&l, "expanded", row, repaired);
	log_span(&l, "to", a);
	log_u64(&l, "nrcpt", row->nrcpt);
	if (t->ngiven < GIVEN_MAX)
		t->given[t->ngiven++] = (struct event){ row->id, row->at_ns, strndup(row_text(&l).p, row_text(&l).n) };
	if (message_of(t, row->id))
		event_add(t, row->id, row->at_ns, row_text(&l));
	else if (wanted_address(t, a))
		adopt_last(t);
}

static void on_rcpts(struct trace *t, const struct ledger_row *row)
{
	struct message *m = message_of(t, row->id);
	struct span addrs = row->addrs, a;
	bool wanted = false;

	while (!m && !wanted && addrs.n && ledger_addr_read(&addrs, &a))
		wanted = wanted_address(t, a);
	if (wanted && row->id == t->last_id) {
		adopt_last(t);
		m = message_of(t, row->id);
	}
	addrs = row->addrs;
	for (uint32_t i = row->rcpt; m && m->rcpt && i < m->nrcpt && addrs.n && ledger_addr_read(&addrs, &a); i++)
		m->rcpt[i] = strndup(a.p ? a.p : "", a.n);
}

static void on_fate(struct trace *t, const struct ledger_row *row, bool repaired)
{
	static const char *const name[] = { [RCPT_QUEUED] = "deferred", [RCPT_DELIVERED] = "delivered", [RCPT_BOUNCED] = "bounced",
		[RCPT_DELETED] = "deleted", [RCPT_DROPPED] = "dropped" };
	struct message *m = message_of(t, row->id);
	struct logline l;

	if (!m && row->id == t->id)
		m = adopt(t, row->id, 0);
	if (!m || row->state > RCPT_DROPPED)
		return;
	begin(&l, name[row->state], row, repaired);
	if (row->rcpt == LEDGER_RCPT_ALL)
		log_str(&l, "to", "all that had no outcome");
	else if (m->rcpt && row->rcpt < m->nrcpt && m->rcpt[row->rcpt])
		log_str(&l, "to", m->rcpt[row->rcpt]);
	else
		log_u64(&l, "recipient", row->rcpt);
	if (row->state == RCPT_QUEUED)
		log_u64(&l, "attempt", row->attempts);
	if (row->remote.n)
		log_span(&l, "remote", row->remote);
	add_reply(&l, row);
	event_add(t, row->id, row->at_ns, row_text(&l));
}

static void on_state(struct trace *t, const struct ledger_row *row, bool repaired)
{
	struct logline l;

	if (!message_of(t, row->id))
		return;
	begin(&l, row->state == MSG_HELD ? "held" : "released", row, repaired);
	if (row->text.n)
		log_span(&l, "reason", row->text);
	event_add(t, row->id, row->at_ns, row_text(&l));
}

static void on_refused(struct trace *t, const struct ledger_row *row)
{
	struct span addrs = row->addrs, a;
	bool wanted = (row->id && row->id == t->id) || wanted_address(t, row->sender) || wanted_client(t, row->client_ip);
	struct logline l;

	begin(&l, row->id ? "refused" : "rejected", row, false);
	add_client(&l, row);
	log_span(&l, "from", row->sender);
	while (addrs.n && ledger_addr_read(&addrs, &a)) {
		wanted = wanted || wanted_address(t, a);
		log_span(&l, "to", a);
	}
	if (row->size)
		log_u64(&l, "size", row->size);
	add_reply(&l, row);
	if (wanted && (!row->id || adopt(t, row->id, 0)))
		event_add(t, row->id, row->at_ns, row_text(&l));
}

static void on_row(void *ctx, const struct ledger_row *row, bool repaired)
{
	struct trace *t = ctx;

	switch ((enum ledger_type)row->type) {
	case LEDGER_ACCEPTED:
		on_accepted(t, row, repaired);
		break;
	case LEDGER_GIVEN:
		on_given(t, row, repaired);
		break;
	case LEDGER_RCPTS:
		on_rcpts(t, row);
		break;
	case LEDGER_FATE:
		on_fate(t, row, repaired);
		break;
	case LEDGER_STATE:
		on_state(t, row, repaired);
		break;
	case LEDGER_REFUSED:
		on_refused(t, row);
		break;
	case LEDGER_MARK:
	case LEDGER_BEGIN:
	case LEDGER_GAP:
	case LEDGER_NTYPE:
		break;
	}
}

static void on_damage(void *ctx, const char *text)
{
	(void)ctx;
	fprintf(stderr, "weirctl: the ledger is damaged: %s\n", text);
}

/* ---- log files ---- */

static bool line_wanted(struct trace *t, const char *line)
{
	const char *id = strstr(line, " id=");
	uint64_t number;

	if (!id)
		return t->address.n && strcasestr(line, t->address.p);
	id += 4;
	if (msg_id_parse(span_of(id, strcspn(id, " \n")), &number) != ST_OK)
		return false;
	return message_of(t, number) || number == t->id || (t->address.n && strcasestr(line, t->address.p));
}

static enum status print_log(struct trace *t, const char *path)
{
	FILE *f = strcmp(path, "-") == 0 ? stdin : fopen(path, "r");
	char *line = NULL;
	size_t cap = 0;
	ssize_t n;

	if (!f)
		return trail_errno(errno, "%s", path);
	while ((n = getline(&line, &cap, f)) > 0) {
		uint64_t at;
		char when[64];

		/* "ts=2026-11-21T05:00:00.123456Z ..." */
		snprintf(when, sizeof(when), "%.19s", n > 22 && strncmp(line, "ts=", 3) == 0 ? line + 3 : "");
		if (when_parse(when, &at) && at + NS_PER_S > t->since_ns && line_wanted(t, line))
			printf("  log: %s", line);
	}
	free(line);
	if (f != stdin)
		fclose(f);
	return ST_OK;
}

/* ---- the queue ---- */

static void print_queued(void *ctx, unsigned worker, struct span row)
{
	struct span k, v;
	char buf[2048];

	(void)ctx, (void)worker;
	printf("  now: ");
	while (row_next(&row, &k, &v, buf, sizeof(buf)))
		printf("%.*s=\"%.*s\" ", SPAN_FMT(k), SPAN_FMT(v));
	putchar('\n');
}

static void queue_json(void *ctx, unsigned worker, struct span row)
{
	(void)worker;
	json_array_append_new(ctx, json_stringn_nocheck(row.p, row.n));
}

static void ask_queue(const char *run_dir, uint64_t id, row_fn *fn, void *ctx)
{
	unsigned worker[WORKERS_MAX], n = ask_workers(run_dir, worker, WORKERS_MAX);
	char text[MSG_ID_TEXT + 1];
	struct logline request;

	msg_id_text(id, text);
	row_begin(&request);
	log_str(&request, "cmd", "queue.show");
	log_str(&request, "id", text);
	for (unsigned i = 0; i < n; i++)
		if (ask_worker(run_dir, worker[i], row_text(&request), fn, ctx) == ST_OK)
			return;
}

/* ---- what is shown ---- */

static void print_events(const struct trace *t, uint64_t id)
{
	for (size_t i = 0; i < t->nevents; i++)
		if (t->event[i].id == id)
			printf("  %s\n", t->event[i].text);
}

static void print_trace(struct trace *t, const char *run_dir)
{
	for (unsigned i = 0; i < t->nmessages; i++) {
		char id[MSG_ID_TEXT + 1];

		msg_id_text(t->message[i].id, id);
		printf("%s\n", id);
		print_events(t, t->message[i].id);
		ask_queue(run_dir, t->message[i].id, print_queued, NULL);
	}
	for (size_t i = 0; i < t->nevents; i++)
		if (!t->event[i].id) {
			puts("refused before there was a message");
			print_events(t, 0);
			break;
		}
	if (t->more)
		printf("(more than %d messages: the first are shown; --since makes it fewer)\n", MESSAGES_MAX);
}

static json_t *events_json(const struct trace *t, uint64_t id)
{
	json_t *list = json_array();

	for (size_t i = 0; i < t->nevents; i++) {
		struct span row = span_str(t->event[i].text), k, v;
		char buf[2048], key[64];
		json_t *o;

		if (t->event[i].id != id)
			continue;
		o = json_object();
		while (row_next(&row, &k, &v, buf, sizeof(buf))) {
			snprintf(key, sizeof(key), "%.*s", SPAN_FMT(k));
			json_object_set_new(o, key, json_stringn_nocheck(v.p, v.n));
		}
		json_array_append_new(list, o);
	}
	return list;
}

static void print_json(struct trace *t, const char *run_dir)
{
	json_t *o, *list = json_array();

	for (unsigned i = 0; i < t->nmessages; i++) {
		char id[MSG_ID_TEXT + 1];
		json_t *now = json_array();

		msg_id_text(t->message[i].id, id);
		ask_queue(run_dir, t->message[i].id, queue_json, now);
		json_array_append_new(list, json_pack("{s:s, s:o, s:o}", "id", id, "events", events_json(t, t->message[i].id), "queue", now));
	}
	o = json_pack("{s:o, s:o}", "messages", list, "rejected", events_json(t, 0));
	json_dumpf(o, stdout, JSON_INDENT(2));
	putchar('\n');
	json_decref(o);
}

static void trace_free(struct trace *t)
{
	for (unsigned i = 0; i < t->nmessages; i++) {
		for (uint32_t k = 0; t->message[i].rcpt && k < t->message[i].nrcpt; k++)
			free(t->message[i].rcpt[k]);
		free(t->message[i].rcpt);
	}
	for (size_t i = 0; i < t->nevents; i++)
		free(t->event[i].text);
	free(t->event);
	forget_given(t);
	free(t);
}

/* ---- the command ---- */

static int usage(void)
{
	fputs("usage: weirctl trace ID|ADDRESS|MESSAGE-ID [--since TIME] [--log FILE ...] [--spool DIR] [--json]\n", stderr);
	return 2;
}

static void what_is_asked(struct trace *t, const char *text)
{
	if (!strchr(text, '@') && msg_id_parse(span_str(text), &t->id) == ST_OK)
		return;
	t->id = 0;
	t->address = span_str(text);
	t->is_ip = ip_parse(t->address, t->ip) == ST_OK;
}

static void on_lacking(void *ctx, const struct ledger_row *row)
{
	on_row(ctx, row, true);
}

/* What the ledger's files have; and what they lack while no worker runs. */
static enum status collect(struct trace *t, struct ledgers *l)
{
	enum status st = ledgers_read(l, false, &(struct ledger_sink){ .ctx = t, .row = on_row, .damage = on_damage });

	return st == ST_OK ? ledgers_queue(l, &(struct queue_sink){ .ctx = t, .lacking = on_lacking }) : st;
}

int cmd_trace(const char *run_dir, bool as_json, int argc, char **argv)
{
	static const struct option options[] = { { "since", 1, NULL, 's' }, { "log", 1, NULL, 'l' }, { "spool", 1, NULL, 'd' }, { 0 } };
	const char *log[LOGS_MAX], *spool = NULL;
	struct trace *t = calloc(1, sizeof(*t));
	struct ledgers l = { 0 };
	unsigned nlogs = 0;
	enum status st;
	int c, rc = 0;

	CHECK(t);
	optind = 1;
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 's' ? !when_parse(optarg, &t->since_ns) : c == '?' || (c == 'l' && nlogs == LOGS_MAX)) {
			free(t);
			return usage();
		}
		if (c == 'l')
			log[nlogs++] = optarg;
		if (c == 'd')
			spool = optarg;
	}
	if (optind + 1 != argc) {
		free(t);
		return usage();
	}
	what_is_asked(t, argv[optind]);
	st = ledgers_open(&l, run_dir, spool, t->since_ns);
	if (st == ST_OK)
		st = collect(t, &l);
	if (st == ST_OK && as_json)
		print_json(t, run_dir);
	else if (st == ST_OK)
		print_trace(t, run_dir);
	for (unsigned i = 0; i < nlogs && st == ST_OK && !as_json; i++)
		st = print_log(t, log[i]);
	if (st != ST_OK) {
		fprintf(stderr, "weirctl: %s\n", trail_text());
		rc = 1;
	} else if (!t->nevents) {
		fprintf(stderr, "weirctl: the ledger has nothing about %s\n", argv[optind]);
		rc = 1;
	}
	ledgers_close(&l);
	trace_free(t);
	return rc;
}
