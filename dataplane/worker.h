/* The worker: one process, one loop, one share of everything. This header is what its parts see of each other.
 *
 * Its parts are inbound (sessions), scan (links to scanner processes), mail (a message's way from complete to final), outbound and conns (delivery),
 * bounce (notifications), command (operators). They call each other directly; nobody but the loop waits.
 *
 * Owner: main. Thread: one. */
#ifndef WEIR_DATAPLANE_WORKER_H
#define WEIR_DATAPLANE_WORKER_H

#include <stddef.h>
#include "dataplane/lookup/dns.h"
#include "dataplane/lookup/dovecot.h"
#include "dataplane/lookup/passwords.h"
#include "dataplane/lookup/mta_sts.h"
#include "dataplane/lookup/shared.h"
#include "dataplane/net/net.h"
#include "dataplane/smtp/server.h"
#include "spool/base/log.h"
#include "spool/base/map.h"
#include "spool/base/uring.h"
#include "spool/base/wheel.h"
#include "spool/store/snapshot.h"
#include "spool/store/store.h"
#include "spool/store/tables.h"

#define container_of(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

struct inbound;
struct scan;
struct outbound;
struct flush;
struct holds;
struct report_limits;
struct command;
struct generation;
struct handshakes;
struct logins;
struct clients;
struct verify;
struct dictionary;

enum { WORKER_PARTITIONS_MAX = 64, WORKER_LISTENERS_MAX = 64 };

/* A configuration in use: counted, because sessions keep the one that they began with. */
struct config {
	uint32_t refs;
	struct snapshot snap;
	const struct snap_settings *set;
	struct smtp_server_config smtp[ROLE_NROLE];
	struct tls_context *tls_server; /* NULL: no STARTTLS */
	struct tls_context *tls_client;
	struct tls_identity *identity[TLS_CLIENT_CERTS_MAX]; /* those of snap_settings.tls_client_certs */
	struct logins *logins; /* NULL: no route logs in */
};

/* What a connection's user pointer points at begins with this. */
enum owner_kind { OWNER_SESSION, OWNER_CONN };
struct owner {
	enum owner_kind kind;
};

/* Every timer of the worker's wheel: which function its end calls (worker.c has the table). */
enum timer_kind {
	TIMER_TICK,    /* once a second */
	TIMER_SESSION, /* struct session */
	TIMER_SCAN,    /* struct scan_slot */
	TIMER_MAIL,    /* struct mail: its next delivery attempt */
	TIMER_CONN,    /* struct out_conn */
	TIMER_VERIFY,  /* struct verify_job */
	TIMER_VERIFY_WAIT, /* struct verify_query */
	TIMER_RCPT,    /* struct rcpt_check: a reply that is delayed */
	TIMER_FACTS,   /* struct facts_ask */
	TIMER_AUTH,    /* struct session: a failed login may be answered */
	TIMER_NKIND,
};

struct worker_options {
	const char *run_dir;
	uint32_t index;
	int listen_fds[WORKER_LISTENERS_MAX];
	uint32_t nlisten;
	struct snap_dpdk dpdk; /* worker_prepare */
};

struct worker {
	const struct worker_options *opt;
	struct config *cfg; /* the newest */
	struct uring uring;
	struct wheel *wheel;
	struct net *net;
	struct arena *arena;
	struct store *store[WORKER_PARTITIONS_MAX];
	uint32_t nstore;
	struct dns *dns;
	struct shared *shared;
	struct passwords *passwords; /* NULL: no submission service, or Dovecot's */
	struct dovecot *dovecot;     /* NULL: no submission service, or the password file's */
	struct snap_listener listener[WORKER_LISTENERS_MAX]; /* what the sockets are, whatever a later configuration says */
	struct sts *sts;
	struct tls_report *tls_report;
	struct inbound *inbound;
	struct handshakes *handshakes;
	struct clients *clients; /* NULL: nothing is noted about them */
	struct scan *scan;
	struct outbound *outbound;
	struct flush *flush;
	struct holds *holds;
	uint64_t source_absent_ns; /* a delivery could not come from the configured address; 0: never */
	struct report_limits *report_limits;
	struct verify *verify;
	struct dictionary *dictionary;
	struct command *command;
	struct timer tick;
	uint64_t ticks;
	uint64_t now_ns; /* monotonic, of this turn */
	struct tables tables; /* those in use; nothing points into them from one turn to the next */
	struct generation *generation;
	uint64_t snapshot_stamp, tls_stamp; /* what the files of the configuration were when last looked at */
	struct worker_gate {
		uint32_t sessions_max; /* as the descriptors go */
		bool closed;           /* accepting is paused */
		bool aside;            /* its sockets have left the port */
	} gate;                  /* gate.c's */
	volatile bool stopping; /* set by a signal */
	uint64_t stop_by_ns;
	const char *net_trouble; /* what was logged last */
	bool stop_hurried; /* sessions in the middle of a message were told to go */
};

/* What needs privileges: the device of the DPDK transport. Then they may be given up. */
enum status worker_prepare(struct worker_options *opt);
/* Sets up everything; ST_OK or the trail says what is missing. */
enum status worker_init(struct worker *w, const struct worker_options *opt);
/* Until worker_stop has taken effect. */
void worker_loop(struct worker *w);
void worker_done(struct worker *w);
/* Where new mail goes: the first partition that is not fenced. NULL: there is none, 421. */
struct store *worker_store(const struct worker *w);

/* config.c: loads <run>/snapshot as a new configuration with one reference. */
enum status config_load(const char *run_dir, struct config **ret);
struct config *config_hold(struct config *c);
void config_release(struct config *c);

#endif
