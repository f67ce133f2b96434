/* weir-bench: load for mail servers, and a place for it to go. See weir-bench(1). */
#include <getopt.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include "bench/bench.h"
#include "bench/spool.h"
#include "spool/base/daemon.h"
#include "spool/mail/address.h"

volatile bool bench_stop;

static void on_stop(int sig)
{
	(void)sig;
	bench_stop = true;
}

static int usage(FILE *f)
{
	fputs("usage: weir-bench send --to ADDRESS:PORT [--sessions N] [--messages N] [--size BYTES] [--per-connection N]\n"
	      "                       [--rate MESSAGES-A-SECOND] [--from A] [--rcpt A] [--first-id N] [--acked FILE]\n"
	      "                       [--dpdk DEVICE --ip ADDRESS/PREFIX]\n"
	      "       weir-bench sink --listen ADDRESS:PORT [--expect N] [--idle SECONDS] [--arrived FILE] [--lmtp] [--mailboxes DIR]\n"
	      "                       [--dpdk DEVICE --ip ADDRESS/PREFIX]\n"
	      "       weir-bench noop --to ADDRESS:PORT [--sessions N] [--messages N] [--dpdk DEVICE --ip ADDRESS/PREFIX]\n"
	      "       weir-bench tables --make DIR [--domains N] [--aliases N-EACH]\n"
	      "       weir-bench tables --run DIR [--lookups N]\n"
	      "       weir-bench spool durable|fill|recover|compact --dir DIRECTORY ...\n", f);
	return f == stdout ? 0 : 2;
}

static bool parse_address(const char *text, struct sockaddr_storage *ss)
{
	const char *colon = strrchr(text, ':');
	struct sockaddr_in *v4 = (struct sockaddr_in *)(void *)ss;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)(void *)ss;
	uint8_t ip[16];
	uint64_t port;

	if (!colon || !span_u64(span_str(colon + 1), 65535, &port) || ip_parse(span_of(text, (size_t)(colon - text)), ip) != ST_OK)
		return false;
	if (ip[10] == 0xff && ip[11] == 0xff && !ip[0]) {
		v4->sin_family = AF_INET;
		v4->sin_port = htons((uint16_t)port);
		memcpy(&v4->sin_addr, ip + 12, 4);
	} else {
		v6->sin6_family = AF_INET6;
		v6->sin6_port = htons((uint16_t)port);
		memcpy(&v6->sin6_addr, ip, 16);
	}
	return true;
}

static FILE *open_list(const char *path)
{
	FILE *f = fopen(path, "w");

	if (!f) {
		perror(path);
		exit(1);
	}
	setvbuf(f, NULL, _IOLBF, 0); /* the ledger must survive a kill of this program */
	return f;
}

int main(int argc, char **argv)
{
	static const struct option options[] = { { "to", 1, NULL, 't' }, { "listen", 1, NULL, 'l' }, { "sessions", 1, NULL, 's' },
		{ "messages", 1, NULL, 'm' }, { "size", 1, NULL, 'z' }, { "per-connection", 1, NULL, 'p' }, { "rate", 1, NULL, 'r' },
		{ "from", 1, NULL, 'f' }, { "rcpt", 1, NULL, 'c' }, { "first-id", 1, NULL, 'i' }, { "acked", 1, NULL, 'a' },
		{ "expect", 1, NULL, 'e' }, { "idle", 1, NULL, 'd' }, { "arrived", 1, NULL, 'v' }, { "lmtp", 0, NULL, 'L' }, { "mailboxes", 1, NULL, 'M' },
		{ "dpdk", 1, NULL, 'D' }, { "ip", 1, NULL, 'I' }, { 0 } };
	struct send_options s = { .from = "bench@cam.example", .rcpt = "sink@example.org", .sessions = 50, .messages = 1000,
		.per_connection = 1000000, .size = 4096 };
	struct sink_options k = { 0 };
	bool have_address = false;
	int c;

	if (argc < 2)
		return usage(stderr);
	if (strcmp(argv[1], "spool") == 0)
		return bench_spool(argc, argv);
	if (strcmp(argv[1], "tables") == 0) {
		c = bench_tables(argc, argv);
		return c < 0 ? usage(stderr) : c;
	}
	optind = 2;
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1)
		switch (c) {
		case 't':
			have_address = parse_address(optarg, &s.to);
			break;
		case 'l':
			have_address = parse_address(optarg, &k.listen);
			break;
		case 's':
			s.sessions = (unsigned)atoi(optarg);
			break;
		case 'm':
			s.messages = (unsigned)atoi(optarg);
			break;
		case 'z':
			s.size = (unsigned)atoi(optarg);
			break;
		case 'p':
			s.per_connection = (unsigned)atoi(optarg);
			break;
		case 'r':
			s.rate = atof(optarg);
			break;
		case 'f':
			s.from = optarg;
			break;
		case 'c':
			s.rcpt = optarg;
			break;
		case 'i':
			s.first_id = strtoull(optarg, NULL, 10);
			break;
		case 'a':
			s.acked = open_list(optarg);
			break;
		case 'e':
			k.expect = strtoull(optarg, NULL, 10);
			break;
		case 'd':
			k.idle_s = atof(optarg);
			break;
		case 'v':
			k.arrived = open_list(optarg);
			break;
		case 'D':
			s.transport.device = k.transport.device = optarg;
			break;
		case 'I':
			s.transport.ip = k.transport.ip = optarg;
			break;
		case 'M':
			k.mailboxes = optarg;
			break;
		case 'L':
			k.lmtp = true;
			break;
		default:
			return usage(stderr);
		}
	if (!have_address || optind != argc || !s.sessions || !s.messages || s.size < 4 || !s.per_connection)
		return usage(stderr);
	daemon_signals(on_stop);
	daemon_raise_files();
	if (strcmp(argv[1], "send") == 0)
		return bench_send(&s);
	if (strcmp(argv[1], "sink") == 0)
		return bench_sink(&k);
	if (strcmp(argv[1], "noop") == 0)
		return bench_noop(&s);
	return usage(stderr);
}
