/* weirctl: what operators do. See weirctl(8). */
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
#include "control/holdctl.h"
#include "control/ledger.h"
#include "control/queuectl.h"
#include "control/rows.h"
#include "control/rulesctl.h"
#include "control/spooltool.h"
#include "control/statusctl.h"
#include "control/tablesctl.h"
#include "control/verifyctl.h"
#include "spool/base/log.h"

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

/* ---- rates ---- */

static int cmd_rate(int argc, char **argv)
{
	struct rows r = { .as_json = as_json, .print = rows_print };
	struct logline request;

	if (argc != 3 || strcmp(argv[1], "explain") != 0)
		return usage(stderr);
	row_begin(&request);
	log_str(&request, "cmd", "rate.explain");
	log_str(&request, "key", argv[2]);
	return rows_ask(run_dir, &request, &r, true) ? 0 : trail_failed();
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
	struct rows r = { .as_json = as_json, .print = print_decision };
	struct logline request;

	if (argc != 2 && !(argc == 4 && strcmp(argv[2], "--client") == 0))
		return usage(stderr);
	row_begin(&request);
	log_str(&request, "cmd", "route");
	log_str(&request, "addr", argv[1]);
	if (argc == 4)
		log_str(&request, "client", argv[3]);
	return rows_ask(run_dir, &request, &r, true) ? 0 : trail_failed();
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
		return status_command(run_dir, as_json);
	if (strcmp(argv[0], "queue") == 0)
		return or_usage(queue_command(run_dir, as_json, argc, argv));
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
