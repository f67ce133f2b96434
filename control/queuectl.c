#include "control/queuectl.h"

#include <getopt.h>
#include <pwd.h>
#include <stdio.h>
#include <unistd.h>
#include "control/ask.h"
#include "control/rows.h"

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

int queue_command(const char *run_dir, bool as_json, int argc, char **argv)
{
	static const struct option options[] = { { "limit", 1, NULL, 'l' }, { "state", 1, NULL, 's' }, { "domain", 1, NULL, 'd' },
		{ "sender", 1, NULL, 'f' }, { "after", 1, NULL, 'a' }, { "all", 0, NULL, 'A' }, { 0 } };
	const char *verb = argc > 1 ? argv[1] : "";
	bool list = strcmp(verb, "list") == 0, show = strcmp(verb, "show") == 0, all = false;
	const struct passwd *pw = getpwuid(getuid());
	struct rows r = { .as_json = as_json, .print = list ? print_queue_row : show ? rows_print : print_done };
	struct logline request;
	char cmd[32];
	int c, answered;

	if (!list && !show && strcmp(verb, "retry") && strcmp(verb, "hold") && strcmp(verb, "release") && strcmp(verb, "delete"))
		return -1;
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
			return -1;
		}
	if (!list && !all && optind + 1 != argc)
		return -1;
	if (!list && !all)
		log_str(&request, "id", argv[optind]);
	answered = rows_ask(run_dir, &request, &r, !list && !all);
	if (!answered) {
		fprintf(stderr, "weirctl: %s\n", trail_text());
		return 1;
	}
	if (list && !r.n && !as_json)
		puts("The queue is empty.");
	return 0;
}
