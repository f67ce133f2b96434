/* weirctl: what operators do. See weirctl(8). */
#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "control/ask.h"
#include "control/authtool.h"
#include "control/codes.h"
#include "control/clientsctl.h"
#include "control/configctl.h"
#include "control/domainctl.h"
#include "control/explainctl.h"
#include "control/generations.h"
#include "control/holdctl.h"
#include "control/ledger.h"
#include "control/metrics.h"
#include "control/nodes_status.h"
#include "control/rulesctl.h"
#include "control/spooltool.h"
#include "control/tablesctl.h"
#include "control/verifyctl.h"
#include "spool/base/clock.h"
#include "spool/base/log.h"

enum { WORKERS_MAX = 64 };

static const char *run_dir;
static bool as_json;

static int usage(FILE *f)
{
	fputs("usage: weirctl [--run DIR] [--json] COMMAND\n"
	      "  status                                   how the node is\n"
	      "  queue list [--limit N] [--state active|deferred|held|scanning] [--domain D] [--sender A]\n"
	      "  queue show ID                            one message and what became of each recipient\n"
	      "  queue retry|hold|release|delete ID|--all [--domain D] [--sender A] [--state S]\n"
	      "  ledger [--hour YYYY-MM-DDTHH | --since T [--until T]] [--spool DIR]   that every recipient has its outcome\n"
	      "  trace ID|ADDRESS [--since T] [--log FILE] [--spool DIR]   what happened to a message\n"
	      "  rate explain client/ADDRESS|user/NAME|auth-client/ADDRESS|auth-user/NAME|bad/ADDRESS\n"
	      "                                           limit, where it comes from, rate now\n"
	      "  config check FILE | show | explain [KEY] | reload\n"
	      "  tables show | check | diff [A [B]] | compile | rollback [N]   the compiled alias tables\n"
	      "  alias ADDR                               what it stands for, and which aliases lead to it\n"
	      "  clients list [--class C] [--unused 90d]  who may relay, and what was seen of them\n"
	      "  clients show IP | log | listeners\n"
	      "  clients set NETWORK [--class C] [--owner O] [--rate N] [--expires DAY] [--note TEXT]\n"
	      "  clients delete NETWORK | revert [N]\n"
	      "  clients --would-break RULE [--class C]   whom a rule would hit, by what was seen\n"
	      "  domain list | show D | log D             managed mail domains: source, last fetch, every change\n"
	      "  domain fetch D | accept D | revert D [N] fetch now; take what shrank; go back\n"
	      "  domain alias set D LOCAL ADDR... | alias delete D LOCAL   of a domain whose source is command\n"
	      "  domain check D [--dkim SELECTOR] | self-check   targets, loops, MX, SPF, DKIM, DMARC; every postmaster\n"
	      "  hold list | show DOMAIN | release DOMAIN routes on hold: what waits, and when the spool would be full\n"
	      "  route ADDR [--client IP]                 every decision about this recipient, with rule and line\n"
	      "  verify show|forget ADDR|DOMAIN           what is known of recipients; ask anew\n"
	      "  explain --client IP --from A --to B [--header 'From: x'] [--helo H] [--user U] [--size 25M]   what would become of a message\n"
	      "  check-sender ADDR | check-rcpt ADDR [--client IP] [--user U]   the same of an address alone\n"
	      "  explain-code [CODE|RULE]                 cause and cure of a refusal; without CODE: all rules\n"
	      "  rules [CODE|RULE]                        modes of the rules, and how often each found something\n"
	      "  auth hash [--no-scram] USER              a line for the password file; the password is read from standard input\n"
	      "  auth check FILE                          lines of a password file that would be left out\n"
	      "  spool check|dump|stat DIR                a partition's directory, while its worker does not run or does\n"
	      "  version\n", f);
	return f == stdout ? 0 : 2;
}

/* The exit code of a command that is elsewhere; negative: it was not used as it should be. */
static int or_usage(int rc)
{
	return rc < 0 ? usage(stderr) : rc;
}

static int failed(const char *what)
{
	fprintf(stderr, "weirctl: %s%s%s\n", what ? what : "", what ? ": " : "", trail_text());
	return 1;
}

/* ---- rows ---- */

static json_t *row_json(struct span row, int worker)
{
	json_t *o = json_object();
	struct span k, v;
	char buf[2048], key[64];

	if (worker >= 0)
		json_object_set_new(o, "worker", json_integer(worker));
	while (row_next(&row, &k, &v, buf, sizeof(buf))) {
		uint64_t n;

		snprintf(key, sizeof(key), "%.*s", SPAN_FMT(k));
		if (span_u64(v, INT64_MAX, &n) && (v.n == 1 || v.p[0] != '0') && strcmp(key, "id") != 0)
			json_object_set_new(o, key, json_integer((json_int_t)n));
		else
			json_object_set_new(o, key, json_stringn_nocheck(v.p, v.n));
	}
	return o;
}

struct rows {
	json_t *json;
	unsigned n;
	void (*print)(struct span row, unsigned n);
};

static void on_row(void *ctx, unsigned worker, struct span row)
{
	struct rows *r = ctx;

	if (as_json)
		json_array_append_new(r->json, row_json(row, (int)worker));
	else
		r->print(row, r->n);
	r->n++;
}

static void dump_json(json_t *j)
{
	json_dumpf(j, stdout, JSON_INDENT(2));
	putchar('\n');
	json_decref(j);
}

/* Asks every worker; gives how many answered. `first_found`: one good answer is enough (a message lives in one of them). */
static int ask_all(struct logline *request, struct rows *r, bool first_found)
{
	unsigned worker[WORKERS_MAX], n = ask_workers(run_dir, worker, WORKERS_MAX);
	int answered = 0;

	if (as_json)
		r->json = json_array();
	for (unsigned i = 0; i < n; i++)
		if (ask_worker(run_dir, worker[i], row_text(request), on_row, r) == ST_OK) {
			answered++;
			if (first_found)
				break;
		}
	if (as_json)
		dump_json(r->json);
	if (!n && trail(ST_NOT_FOUND, "no dataplane worker runs in %s", run_dir) != ST_OK)
		return 0;
	return answered;
}

/* ---- status ---- */

struct totals {
	uint64_t v[C_COUNT];
	unsigned alive, dead;
	uint64_t control_beat_ns, oldest_start_ns, tables_stale, domains_failed, domains_findings, postmaster_findings;
	json_t *processes;
};

/* Whether a process runs: a dead one that its parent has not buried yet does not. */
static bool is_alive(uint32_t pid)
{
	char path[64], stat[512] = "";
	const char *paren;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%u/stat", pid);
	f = pid ? fopen(path, "r") : NULL;
	if (!f)
		return false;
	if (!fgets(stat, sizeof(stat), f))
		stat[0] = '\0';
	fclose(f);
	paren = strrchr(stat, ')');
	return paren && paren[1] && paren[2] != 'Z' && paren[2] != 'X';
}

static void add_page(void *ctx, const char *role, int instance, const struct counters_page *p)
{
	struct totals *t = ctx;
	uint32_t pid = atomic_load(&p->pid);
	bool up = is_alive(pid);
	uint64_t now = clock_wall_ns(), start = atomic_load(&p->start_wall_ns);
	uint64_t beat = atomic_load(&p->beat_ns), mono = clock_mono_ns();

	if (as_json) {
		json_t *o = json_pack("{s:s, s:i, s:i, s:b, s:i, s:I}", "role", role, "instance", instance, "pid", (int)pid, "up", up, "starts",
			(int)atomic_load(&p->restarts), "uptime_s", (json_int_t)(up && now > start ? (now - start) / NS_PER_S : 0));

		json_array_append_new(t->processes, o);
	} else {
		char when[32];

		snprintf(when, sizeof(when), "%llus", (unsigned long long)(now > start ? (now - start) / NS_PER_S : 0));
		printf("  %-10s %2d  %-8s pid %-7u started %u times, up %s%s\n", role, instance, up ? "runs" : "IS DOWN", pid,
			atomic_load(&p->restarts), up ? when : "-",
			up && strcmp(role, "scanner") != 0 && mono > beat && mono - beat > 5 * NS_PER_S ? "  DOES NOT TURN" : "");
	}
	t->alive += up;
	t->dead += !up;
	if (strcmp(role, "control") == 0) {
		t->control_beat_ns = up ? beat : 0;
		t->tables_stale = atomic_load(&p->v[C_TABLES_STALE]);
		t->domains_failed = atomic_load(&p->v[C_DOMAINS_FAILED]);
		t->domains_findings = atomic_load(&p->v[C_DOMAINS_FINDINGS]);
		t->postmaster_findings = atomic_load(&p->v[C_POSTMASTER_FINDINGS]);
		for (int i = C_TLS_CERTS; i <= C_TLS_CERT_REFUSED; i++)
			t->v[i] = atomic_load(&p->v[i]);
	}
	if (strcmp(role, "dataplane") == 0)
		for (int i = 0; i < C_COUNT; i++)
			t->v[i] += atomic_load(&p->v[i]);
}

static void print_detail(struct span row, unsigned n)
{
	struct span k, v;
	char buf[1024];

	(void)n;
	printf("  ");
	while (row_next(&row, &k, &v, buf, sizeof(buf)))
		printf("%.*s=%.*s ", SPAN_FMT(k), SPAN_FMT(v));
	putchar('\n');
}

static void print_degraded(const struct totals *t)
{
	bool any = false;

#define DEGRADED(cond, text)                                                                                                       \
	if (cond) {                                                                                                                \
		printf("  ! %s\n", text);                                                                                          \
		any = true;                                                                                                        \
	}
	DEGRADED(!t->control_beat_ns, "control does not run: the node relays on with its last configuration")
	DEGRADED(!t->v[C_REDIS_UP], "redis does not answer: rates are counted, and verified recipients remembered, by each worker for itself")
	DEGRADED(!t->v[C_SCANNERS], "no scanner is linked: mail is answered 451, or held, as configured")
	DEGRADED(t->v[C_AUTH_DOWN], "logins: the password file cannot be read, or Dovecot's socket is away")
	DEGRADED(t->v[C_AUTH_BAD_LINES], "lines of the password file are left out: weirctl auth check tells which")
	DEGRADED(t->v[C_SPOOL_FENCED], "a partition stopped after a disk error: it takes and delivers nothing until its worker is started again; see spool rows")
	DEGRADED(!t->v[C_SPOOL_DIRECT], "the log is written without O_DIRECT (slower)")
	DEGRADED(!t->v[C_SPOOL_FIXED], "the log is written without registered buffers (slower; raise the memlock limit)")
	DEGRADED(!t->v[C_ARENA_HUGE], "the arena is not on huge pages (slower; set vm.nr_hugepages)")
	DEGRADED(t->v[C_TABLES_REFUSED], "the alias tables in tables/current are missing or damaged: a worker uses older ones, or answers 451; see weirctl tables show")
	DEGRADED(t->tables_stale, "the alias files have errors: the tables are older than the configuration; see weirctl tables compile")
	DEGRADED(t->domains_failed, "mail domains could not be fetched, or what they said was refused: their live copies are older; see weirctl domain list")
	DEGRADED(t->domains_findings, "the last check of mail domains found something wrong; see weirctl domain check")
	DEGRADED(t->postmaster_findings, "postmaster of a served domain leads nowhere; see weirctl domain self-check")
	DEGRADED(generations_pinned(run_dir), "the alias tables are pinned by a rollback until weirctl tables compile")
	DEGRADED(t->v[C_TLS_CERT_REFUSED], "the files of the server certificates have changed and cannot be used: the earlier ones stay; see weirctl config check")
	DEGRADED(t->v[C_TLS_CERTS] && !t->v[C_TLS_CERT_LEFT_S], "a server certificate has expired")
	DEGRADED(t->v[C_TLS_CERT_LEFT_S] && t->v[C_TLS_CERT_LEFT_S] < 14 * 86400, "a server certificate expires within 14 days")
	DEGRADED(t->v[C_SOURCE_ABSENT], "deliveries wait: the source address that is configured for them is not one of this node; see weirctl config check")
	DEGRADED(t->v[C_LEDGER_FAILING], "the ledger cannot be written: what it lacks is kept in memory, then noted as a gap")
	DEGRADED(t->v[C_SPOOL_DAMAGED], "recovery found damaged batches: see spool rows")
	if (!any)
		printf("  nothing\n");
}

/* F4: which policies can hold. */
static void print_tls(const struct totals *t)
{
	bool dane = t->v[C_DNS_VALIDATES];

	printf("Inbound TLS\n  sessions with TLS %llu (%llu of them resumed), handshakes failed %llu, refused %llu", (unsigned long long)t->v[C_TLS_IN],
		(unsigned long long)t->v[C_TLS_IN_RESUMED], (unsigned long long)t->v[C_TLS_IN_FAILED], (unsigned long long)t->v[C_TLS_IN_LIMITED]);
	if (t->v[C_TLS_CERTS])
		printf("; %llu certificates, the first expires in %llu days", (unsigned long long)t->v[C_TLS_CERTS],
			(unsigned long long)t->v[C_TLS_CERT_LEFT_S] / 86400);
	printf("\nOutbound TLS\n  connections with TLS %llu, TLS failed %llu; by DANE %llu, by MTA-STS %llu, hosts refused %llu\n",
		(unsigned long long)t->v[C_TLS_OUT], (unsigned long long)t->v[C_TLS_OUT_FAILED], (unsigned long long)t->v[C_TLS_OUT_DANE],
		(unsigned long long)t->v[C_TLS_OUT_STS], (unsigned long long)t->v[C_TLS_OUT_REFUSED]);
	if (!dane)
		printf("  no DANE: the resolver is not known to validate DNSSEC (dns.validates)\n");
	else
		printf("  DANE: %llu DNS answers were validated%s\n", (unsigned long long)t->v[C_DNS_SECURE],
			t->v[C_DNS_SECURE] ? "" : ": does the resolver validate as dns.validates says?");
	if (t->v[C_STS_UNKNOWN])
		printf("  MTA-STS: %llu look-ups that weir-control did not answer went on without a policy\n",
			(unsigned long long)t->v[C_STS_UNKNOWN]);
}

static void print_transport(const struct totals *t)
{
	printf("Transport\n");
	if (!t->v[C_DPDK])
		printf("  io_uring%s%s%s\n", *WEIR_NO_DPDK ? " (this build has no DPDK: " : "", WEIR_NO_DPDK, *WEIR_NO_DPDK ? ")" : "");
	else
		printf("  DPDK in %llu workers: %llu frames in, %llu lost or damaged; %llu out, %llu lost; %llu of %llu buffers used\n"
		       "  TCP: %llu connections, %llu half-open; %llu segments sent again, %llu wrong checksums\n", (unsigned long long)t->v[C_DPDK],
			(unsigned long long)t->v[C_DPDK_RX_FRAMES], (unsigned long long)(t->v[C_DPDK_RX_MISSED] + t->v[C_DPDK_RX_BAD]),
			(unsigned long long)t->v[C_DPDK_TX_FRAMES], (unsigned long long)t->v[C_DPDK_TX_LOST], (unsigned long long)t->v[C_DPDK_MBUFS_USED],
			(unsigned long long)t->v[C_DPDK_MBUFS], (unsigned long long)t->v[C_TCP_ACTIVE], (unsigned long long)t->v[C_TCP_HALF_OPEN],
			(unsigned long long)t->v[C_TCP_AGAIN], (unsigned long long)t->v[C_TCP_BAD_SUM]);
}

static int cmd_status(void)
{
	struct totals t = { .processes = as_json ? json_array() : NULL };
	struct logline request;
	struct rows r = { .print = print_detail };
	char stats[4096];
	json_t *o, *counters;

	snprintf(stats, sizeof(stats), "%s/stats", run_dir);
	if (!as_json)
		printf("Processes\n");
	each_page(stats, add_page, &t);
	if (!t.alive && !t.dead) {
		fprintf(stderr, "weirctl: nothing has ever run in %s\n", run_dir);
		return 1;
	}
	if (as_json) {
		counters = json_object();
		for (int i = 0; i < C_COUNT; i++)
			json_object_set_new(counters, counter_desc[i].name, json_integer((json_int_t)t.v[i]));
		o = json_pack("{s:o, s:o, s:s, s:o}", "processes", t.processes, "counters", counters, "no_dpdk", WEIR_NO_DPDK, "nodes", nodes_json(run_dir));
		dump_json(o);
		return t.dead || t.v[C_SPOOL_FENCED] ? 1 : 0;
	}
	printf("Messages\n  accepted %llu (%llu recipients), refused %llu, infected %llu\n", (unsigned long long)t.v[C_MSG_ACCEPTED],
		(unsigned long long)t.v[C_RCPT_ACCEPTED], (unsigned long long)t.v[C_MSG_REFUSED], (unsigned long long)t.v[C_MSG_INFECTED]);
	printf("  recipients delivered %llu, bounced %llu, deleted %llu; in the queue %llu (%llu messages, %llu of them held)\n",
		(unsigned long long)t.v[C_RCPT_DELIVERED], (unsigned long long)t.v[C_RCPT_BOUNCED], (unsigned long long)t.v[C_RCPT_DELETED],
		(unsigned long long)t.v[C_QUEUE_RCPTS], (unsigned long long)t.v[C_QUEUE_MSGS], (unsigned long long)t.v[C_HELD_MSGS]);
	printf("  sessions open %llu, refused %llu; over the rate limit %llu, deferred for it %llu\n", (unsigned long long)t.v[C_SESSIONS_OPEN],
		(unsigned long long)t.v[C_SESSIONS_REFUSED], (unsigned long long)t.v[C_RATE_OVER], (unsigned long long)t.v[C_RATE_DEFERRED]);
	print_transport(&t);
	print_tls(&t);
	nodes_print(run_dir);
	clients_print_status(run_dir);
	printf("Degraded\n");
	print_degraded(&t);
	holds_status(run_dir);
	printf("Workers\n");
	row_begin(&request);
	log_str(&request, "cmd", "status");
	ask_all(&request, &r, false);
	return t.dead || t.v[C_SPOOL_FENCED] ? 1 : 0;
}

/* ---- queue ---- */

static void print_queue_row(struct span row, unsigned n)
{
	char id[64], state[32], age[32], size[32], sender[256], to[256], reason[512], open[32];

	if (n == 0)
		printf("%-13s  %-8s %8s %10s %4s  %s\n", "ID", "STATE", "AGE s", "SIZE", "OPEN", "SENDER -> RECIPIENT  REASON");
	row_value(row, "sender", sender, sizeof(sender));
	row_value(row, "reason", reason, sizeof(reason));
	printf("%-13s  %-8s %8s %10s %4s  <%s> -> <%s>  %s\n", row_value(row, "id", id, sizeof(id)), row_value(row, "state", state, sizeof(state)),
		row_value(row, "age_s", age, sizeof(age)), row_value(row, "size", size, sizeof(size)), row_value(row, "open", open, sizeof(open)),
		sender, row_value(row, "to", to, sizeof(to)), reason);
}

static void print_done(struct span row, unsigned n)
{
	char id[64], done[64];

	(void)n;
	printf("%s %s\n", row_value(row, "id", id, sizeof(id)), row_value(row, "done", done, sizeof(done)));
}

static int cmd_queue(int argc, char **argv)
{
	static const struct option options[] = { { "limit", 1, NULL, 'l' }, { "state", 1, NULL, 's' }, { "domain", 1, NULL, 'd' },
		{ "sender", 1, NULL, 'f' }, { "after", 1, NULL, 'a' }, { "all", 0, NULL, 'A' }, { 0 } };
	const char *verb = argc > 1 ? argv[1] : "";
	bool list = strcmp(verb, "list") == 0, show = strcmp(verb, "show") == 0, all = false;
	const struct passwd *pw = getpwuid(getuid());
	struct rows r = { .print = list ? print_queue_row : show ? print_detail : print_done };
	struct logline request;
	char cmd[32];
	int c, answered;

	if (!list && !show && strcmp(verb, "retry") && strcmp(verb, "hold") && strcmp(verb, "release") && strcmp(verb, "delete"))
		return usage(stderr);
	snprintf(cmd, sizeof(cmd), "queue.%s", verb);
	row_begin(&request);
	log_str(&request, "cmd", cmd);
	log_str(&request, "by", pw ? pw->pw_name : "unknown");
	optind = 2;
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1)
		switch (c) {
		case 'l':
			log_str(&request, "limit", optarg);
			break;
		case 's':
			log_str(&request, "state", optarg);
			break;
		case 'd':
			log_str(&request, "domain", optarg);
			break;
		case 'f':
			log_str(&request, "sender", optarg);
			break;
		case 'a':
			log_str(&request, "after", optarg);
			break;
		case 'A':
			all = true;
			log_str(&request, "all", "1");
			break;
		default:
			return usage(stderr);
		}
	if (!list && !all && optind + 1 != argc)
		return usage(stderr);
	if (!list && !all)
		log_str(&request, "id", argv[optind]);
	answered = ask_all(&request, &r, !list && !all);
	if (!answered)
		return failed(NULL);
	if (list && !r.n && !as_json)
		puts("The queue is empty.");
	return 0;
}

/* ---- rates ---- */

static int cmd_rate(int argc, char **argv)
{
	struct rows r = { .print = print_detail };
	struct logline request;

	if (argc != 3 || strcmp(argv[1], "explain") != 0)
		return usage(stderr);
	row_begin(&request);
	log_str(&request, "cmd", "rate.explain");
	log_str(&request, "key", argv[2]);
	return ask_all(&request, &r, true) ? 0 : failed(NULL);
}

/* ---- routes ---- */

static void print_decision(struct span row, unsigned n)
{
	enum { ROOM = 2048 }; /* each is used to pass over the values before its own, too */
	char rule[ROOM], what[ROOM], from[ROOM], to[ROOM], file[ROOM], line[ROOM], config_line[ROOM], more[ROOM], terms[ROOM];

	(void)n;
	row_value(row, "rule", rule, sizeof(rule));
	row_value(row, "what", what, sizeof(what));
	row_value(row, "from", from, sizeof(from));
	printf("%-3s %s: %s", rule, what, from);
	if (*row_value(row, "to", to, sizeof(to)))
		printf(" -> %s", to);
	if (*row_value(row, "more", more, sizeof(more)))
		printf(" and %s more", more);
	if (*row_value(row, "terms", terms, sizeof(terms)))
		printf("  [%s]", terms);
	if (*row_value(row, "file", file, sizeof(file)))
		printf("  (%s:%s)", file, row_value(row, "line", line, sizeof(line)));
	if (*row_value(row, "config_line", config_line, sizeof(config_line)))
		printf("  (configuration line %s)", config_line);
	putchar('\n');
}

static int cmd_route(int argc, char **argv)
{
	struct rows r = { .print = print_decision };
	struct logline request;

	if (argc != 2 && !(argc == 4 && strcmp(argv[2], "--client") == 0))
		return usage(stderr);
	row_begin(&request);
	log_str(&request, "cmd", "route");
	log_str(&request, "addr", argv[1]);
	if (argc == 4)
		log_str(&request, "client", argv[3]);
	return ask_all(&request, &r, true) ? 0 : failed(NULL);
}

/* ---- the whole ---- */

static const char *default_run_dir(void)
{
	const char *env = getenv("WEIR_RUN");

	if (env && *env)
		return env;
	return access("run/stats", F_OK) == 0 ? "run" : "/run/weir";
}

int main(int argc, char **argv)
{
	int i = 1;

	for (; i < argc && strncmp(argv[i], "--", 2) == 0; i++) {
		if (strcmp(argv[i], "--run") == 0 && i + 1 < argc)
			run_dir = argv[++i];
		else if (strcmp(argv[i], "--json") == 0)
			as_json = true;
		else
			return usage(strcmp(argv[i], "--help") == 0 ? stdout : stderr);
	}
	if (i < argc && strcmp(argv[argc - 1], "--json") == 0) {
		as_json = true;
		argc--;
	}
	run_dir = run_dir ? run_dir : default_run_dir();
	argc -= i;
	argv += i;
	if (argc == 0)
		return usage(stderr);
	if (strcmp(argv[0], "status") == 0 && argc == 1)
		return cmd_status();
	if (strcmp(argv[0], "queue") == 0)
		return cmd_queue(argc, argv);
	if (strcmp(argv[0], "ledger") == 0)
		return cmd_ledger(run_dir, as_json, argc, argv);
	if (strcmp(argv[0], "trace") == 0)
		return cmd_trace(run_dir, as_json, argc, argv);
	if (strcmp(argv[0], "rate") == 0)
		return cmd_rate(argc, argv);
	if (strcmp(argv[0], "config") == 0)
		return or_usage(config_command(run_dir, as_json, argc, argv));
	if (strcmp(argv[0], "tables") == 0)
		return or_usage(tables_command(run_dir, as_json, argc, argv));
	if (strcmp(argv[0], "alias") == 0 && argc == 2)
		return alias_command(run_dir, as_json, argv[1]);
	if (strcmp(argv[0], "clients") == 0)
		return or_usage(clients_command(run_dir, as_json, argc, argv));
	if (strcmp(argv[0], "domain") == 0)
		return or_usage(domain_command(run_dir, as_json, argc, argv));
	if (strcmp(argv[0], "route") == 0)
		return cmd_route(argc, argv);
	if (strcmp(argv[0], "hold") == 0)
		return or_usage(hold_command(run_dir, as_json, argc, argv));
	if (strcmp(argv[0], "verify") == 0)
		return verify_command(run_dir, as_json, argc, argv);
	if (strcmp(argv[0], "explain") == 0 || strcmp(argv[0], "check-sender") == 0 || strcmp(argv[0], "check-rcpt") == 0) {
		int code = explain_command(run_dir, as_json, argc, argv);

		if (code == EXPLAIN_USAGE)
			usage(stderr);
		return code == EXPLAIN_USAGE ? EXPLAIN_TROUBLE : code;
	}
	if (strcmp(argv[0], "explain-code") == 0 && argc <= 2)
		return codes_command(run_dir, as_json, argc == 2 ? argv[1] : NULL);
	if (strcmp(argv[0], "rules") == 0 && argc <= 2)
		return rules_command(run_dir, as_json, argc == 2 ? argv[1] : NULL);
	if (strcmp(argv[0], "auth") == 0) {
		int code = auth_tool(argc, argv);

		return code == 2 ? usage(stderr) : code;
	}
	if (strcmp(argv[0], "spool") == 0 && argc == 3)
		return spool_tool(argv[1], argv[2], stdout);
	if (strcmp(argv[0], "version") == 0) {
		printf("weir 0.1 with%s DPDK%s%s%s\n", *WEIR_NO_DPDK ? "out" : "", *WEIR_NO_DPDK ? " (" : "", WEIR_NO_DPDK, *WEIR_NO_DPDK ? ")" : "");
		return 0;
	}
	return usage(stderr);
}
