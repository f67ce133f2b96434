#include "control/statusctl.h"

#include <stdio.h>
#include "control/clientsctl.h"
#include "control/generations.h"
#include "control/holdctl.h"
#include "control/metrics.h"
#include "control/nodes_status.h"
#include "control/rows.h"
#include "spool/base/clock.h"

struct totals {
	uint64_t v[C_COUNT];
	unsigned alive, dead;
	uint64_t control_beat_ns, oldest_start_ns, tables_stale, domains_failed, domains_findings, postmaster_findings;
	json_t *processes; /* NULL: text */
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

	if (t->processes) {
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

static void print_degraded(const struct totals *t, const char *run_dir)
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

int status_command(const char *run_dir, bool as_json)
{
	struct totals t = { .processes = as_json ? json_array() : NULL };
	struct logline request;
	struct rows r = { .as_json = as_json, .print = rows_print };
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
	print_degraded(&t, run_dir);
	holds_status(run_dir);
	printf("Workers\n");
	row_begin(&request);
	log_str(&request, "cmd", "status");
	rows_ask(run_dir, &request, &r, false);
	return t.dead || t.v[C_SPOOL_FENCED] ? 1 : 0;
}
