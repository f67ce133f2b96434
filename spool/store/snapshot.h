/* The configuration as the data plane and the scanners see it: one immutable, checksummed file made by weir-control.
 *
 * <run>/snapshot is replaced as a whole (write, fsync, rename); a consumer maps it, checks everything once, and then reads it without
 * further checks. A damaged or unknown one is refused and the last good one stays in use (P24). All references are offsets from the start of the file.
 *
 * Owner: snapshot_open's caller, until snapshot_close. Thread: any, read-only. */
#ifndef WEIR_SPOOL_STORE_SNAPSHOT_H
#define WEIR_SPOOL_STORE_SNAPSHOT_H

#include <assert.h>
#include "spool/base/span.h"
#include "spool/base/status.h"
#include "spool/mail/rules.h"

enum { SNAPSHOT_VERSION = 13 };
#define SNAPSHOT_MAGIC 0x50414e5352494557ull /* "WEIRSNAP" */

struct snap_str {
	uint32_t off, len; /* followed by a NUL that is not counted */
};
struct snap_list {
	uint32_t off, n;
};

enum snap_mode { MODE_OFF, MODE_MONITOR, MODE_DEFER };
enum snap_targets { TARGETS_ALL, TARGETS_VERIFIED, TARGETS_NONE };
enum snap_scan_down { SCAN_DOWN_TEMPFAIL, SCAN_DOWN_HOLD };
enum snap_route_kind { ROUTE_MX, ROUTE_SMTP, ROUTE_LMTP };
enum snap_tls { SNAP_TLS_NEVER, SNAP_TLS_MAY, SNAP_TLS_MUST, SNAP_TLS_VERIFY };
/* Whether the recipients of a domain are verified with its destination (B2). */
enum snap_recipients { RECIPIENTS_UNSAID, RECIPIENTS_ANY, RECIPIENTS_VERIFY };
enum snap_role { ROLE_MX, ROLE_SUBMISSION, ROLE_SUBMISSIONS, ROLE_LMTP, ROLE_NROLE };
/* A submission service: AUTH, and mail only after it. */
static inline bool snap_role_is_submission(uint32_t role)
{
	return role == ROLE_SUBMISSION || role == ROLE_SUBMISSIONS;
}
enum snap_bare_lf { BARE_LF_REFUSE, BARE_LF_NORMALISE };
enum snap_mech { MECH_PLAIN = 1, MECH_LOGIN = 2, MECH_SCRAM_SHA_256 = 4 }; /* bits */

/* What is done with mail to a managed domain (C7, C8, B1). */
enum snap_domain_kind {
	DOMAIN_ALIASES,   /* local parts are looked up */
	DOMAIN_RETIRED,   /* all are refused with the domain's own text */
	DOMAIN_LONG_FORM, /* x@long is x@short */
	DOMAIN_ROUTED,    /* taken as it is and sent along its route: a provider's sub-domain */
	DOMAIN_BACKUP_MX, /* taken as it is and sent to better preferred exchangers */
	DOMAIN_FORWARDED, /* all mail goes to one address */
	DOMAIN_MOVED,     /* not a domain: its name is "@DOMAIN", its local parts are the addresses of DOMAIN that go along the route of that name */
	DOMAIN_NKIND,
};
/* Where the aliases of a domain come from: one source of truth each (C9). */
enum snap_source { SOURCE_FILE, SOURCE_HTTPS, SOURCE_COMMAND };

struct snap_listener {
	uint8_t ip[16];
	uint16_t port;
	uint16_t tls_implicit;
	uint32_t fd_index; /* its place in the list of inherited descriptors of a worker */
	uint32_t role;     /* enum snap_role; submissions: tls_implicit is set too */
	uint32_t bare_lf;  /* enum snap_bare_lf */
	uint32_t proxy;    /* 1: connections come from balancers, and begin with a PROXY header */
	uint64_t banner_delay_ns; /* for clients outside relay_clients; 0: none */
	char name[48]; /* under which its traffic is counted; empty: its address and port */
};
/* A network. */
struct snap_range {
	uint8_t ip[16];
	uint32_t prefix; /* in 128 bits */
	uint32_t line;
};
/* A client network that may relay (A1). The most specific one wins: sorted by prefix, longest first. */
struct snap_net {
	uint8_t ip[16];
	uint32_t prefix;     /* in 128 bits */
	uint32_t class_;     /* enum snap_class */
	double rate_limit;   /* messages in the period; negative: the default; 0: no limit */
	struct snap_str name; /* for logs and rate explain */
	struct snap_str owner, note;
	uint64_t expires_s;  /* since the epoch: from then on it may not; 0: never */
	uint32_t line;       /* of the configuration file, or of the registry's */
	uint32_t registered; /* 1: of the registry; 0: of relay_clients */
	uint32_t conns_max;  /* connections of one address of it to a worker; 0: the default, UINT32_MAX: no limit */
	uint32_t pad;
};
/* A local domain: everyone may send to it. Sorted by name (memcmp of look-up form, shorter first on a tie). */
struct snap_domain {
	struct snap_str name; /* look-up form: lower case, A-labels */
	uint32_t line, pad;
};
/* A managed mail domain as configured: what weir-control compiles into the tables (tables.h), which decide. Workers only see from it that a domain ought to be there. Sorted like domains. */
struct snap_mail_domain {
	struct snap_str name;
	struct snap_str value;      /* by kind: alias file or https address, refusal text, short domain, -, -, address, file of local parts */
	struct snap_str forwarding; /* DOMAIN_ALIASES: file of per-user forwarding; or empty */
	uint32_t kind;              /* enum snap_domain_kind */
	uint32_t deliver_unlisted;  /* DOMAIN_ALIASES: a local part that is not listed goes along the domain's route; 0: it is refused */
	uint32_t line;
	uint32_t recipients;        /* enum snap_recipients */
	uint32_t source;            /* DOMAIN_ALIASES: enum snap_source */
	struct snap_str owner, contact; /* for people; or empty */
	struct snap_str ca, secrets;    /* SOURCE_HTTPS: PEM file of authorities, file of passwords; or empty */
};
/* Where a domain goes. Sorted like domains; name "*" is the default route (a smart host); a name that starts with "." is for all sub-domains, one that starts with "@" for
 * the addresses of a domain that have moved. */
struct snap_route {
	struct snap_str name;
	struct snap_list hosts; /* of struct snap_host, tried in order */
	uint32_t kind;          /* enum snap_route_kind; ROUTE_MX: hosts is empty */
	uint32_t tls;           /* enum snap_tls */
	uint32_t line;
	uint32_t final_;        /* 0 or 1: what its hosts take is delivered */
	uint32_t recipients;    /* enum snap_recipients */
	struct snap_list sources; /* of struct snap_range, single addresses to connect from; none: those of the node */
	struct snap_str hold_reason; /* or empty */
	uint64_t life_ns;       /* 0: the node's; UINT64_MAX: nothing is returned for its age */
	uint64_t notice_ns;     /* delay notice; UINT64_MAX: the node's; 0: none */
	uint64_t size_max;      /* of a message; 0: the node's */
	uint64_t hold_until_ns; /* its mail waits until then (spool time); 0: it does not; UINT64_MAX: until somebody releases it */
	struct snap_str client_certificate, client_key; /* PEM files, or empty */
	struct snap_str user, password_file; /* who logs in to its hosts; or empty */
	uint32_t client_cert, pad; /* its place in tls_client_certs, from 1; 0: none */
	uint64_t hold_set_ns;   /* the same as the configuration says it, whatever was released since */
};
struct snap_host {
	struct snap_str name; /* host name (A/AAAA are looked up) or address text */
	uint32_t port;
	uint32_t pad;
};

/* What senders an authenticated user may use (P19). Sorted by user. */
struct snap_senders {
	struct snap_str user;
	struct snap_list senders; /* of struct snap_str: "local@domain", "@domain" (domain in look-up form), or "*" */
	uint32_t line, pad;
};

/* Who logs in to next hops: weir-control reads the file and publishes what is in it (tls_file.h). */
struct snap_login {
	struct snap_str user, password_file;
	uint32_t line, pad;
};

/* A server certificate (P23): weir-control reads the files and publishes what is in them (tls_file.h). */
struct snap_cert {
	struct snap_str certificate, key; /* PEM files */
	uint32_t line, pad;
};
/* A mode that the configuration gives to a rule; weir-control makes the matrix of them. */
struct snap_policy {
	uint32_t rule;    /* enum rule */
	uint32_t classes; /* bits 1 << enum snap_class */
	uint32_t mode;    /* enum policy_mode */
	uint32_t line;
};

/* Everything with one value. Times in ns unless the name says otherwise. */
struct snap_settings {
	struct snap_str hostname, node, postmaster, run_dir, spool_dir, tls_cert, tls_key, redis, user, signatures, engine, metrics,
		auth_file, auth_dovecot, auth_secret, ca_file;
	struct snap_str dpdk_devices, dpdk_ip4, dpdk_ip6, dpdk_gateway4, dpdk_gateway6, dpdk_kernel; /* %w: the worker's number; read by snap_dpdk */
	uint32_t dpdk_mtu, dpdk_hugepages;
	uint32_t workers, partitions, scanners, conns_max, conns_per_client, conns_per_own, conns_per_network, conns_reserved /* per cent */, rcpt_max, errors_max, commands_max;
	uint32_t data_rate; /* bytes a second */
	uint32_t transport; /* 0 io_uring, 1 DPDK: enum net_transport */
	uint32_t log_level; /* enum log_level */
	uint64_t size_max, arena_bytes, segment_bytes, spool_max_bytes, spill_bytes, transaction_max;
	uint64_t timeout_command_ns, timeout_body_ns, session_max_ns;
	uint64_t scan_timeout_ns;
	uint32_t scan_down;       /* enum snap_scan_down: what happens when no scanner is there */
	uint32_t rate_mode;       /* enum snap_mode */
	double rate_limit;        /* messages per rate_period per client host */
	uint64_t rate_period_ns;
	uint64_t redis_budget_ns; /* a decision never waits longer for Redis */
	uint64_t retry_first_ns, retry_max_ns, queue_life_ns, bounce_life_ns, delay_notice_ns;
	uint64_t connect_timeout_ns, greeting_timeout_ns, reply_timeout_ns, final_timeout_ns, idle_reuse_ns;
	uint32_t dest_conns_start; /* connections to one destination that nothing is known of yet */
	uint32_t dest_conns_max;  /* connections to one destination, per worker */
	uint32_t conn_msgs_max;   /* messages on one delivery connection */
	uint32_t outbound_conns_max; /* per worker */
	uint32_t smtp_port;       /* port of MXs: 25 but for tests */
	uint32_t outbound_tls;    /* enum snap_tls for MX delivery */
	uint32_t max_received;    /* B6: 25 */
	uint64_t dns_timeout_ns;
	uint64_t ledger_keep_ns;
	double auth_client_limit, auth_user_limit; /* failed logins in auth_period; 0: no limit */
	uint64_t auth_period_ns, auth_timeout_ns, auth_delay_ns;
	uint32_t spool_direct;
	uint32_t dns_validates;   /* the AD bit of the resolvers is believed */
	uint32_t dane, mta_sts, tls_reports; /* 0 or 1 */
	uint32_t mta_sts_port;    /* of policy hosts: 443 but for tests */
	uint64_t mta_sts_timeout_ns;
	struct snap_str tls_ciphers, tls_ticket_file;
	uint32_t tls_only_13;     /* 1: tls.min_version is 1.3 */
	uint32_t tls_handshakes;  /* a minute, of a client address; 0: no limit */
	uint64_t tls_ticket_life_ns, tls_watch_ns; /* ticket life 0: no tickets */
	uint32_t tls_sessions;    /* of peers, kept to be resumed; per worker */
	uint32_t tables_keep; /* generations kept for rollback */
	struct snap_str clients_dir, clients_file; /* the registry: its history and evidence; a file in the place of commands */
	struct snap_list relay_nets; /* of struct snap_net: relay_clients alone; nets is that and the registry */
	uint32_t registry_off;       /* what is behind it in the file is of the registry */
	uint32_t clients_evidence;   /* client addresses that a worker knows something of */
	struct snap_str managed_dir, managed_exchangers; /* history of managed domains; exchangers that their MX may name */
	uint64_t managed_fetch_every_ns, managed_fetch_timeout_ns, managed_fetch_max, managed_check_every_ns, managed_self_check_ns;
	uint32_t managed_shrink; /* per cent of its entries that a domain may lose at once (C4) */
	uint32_t managed_targets; /* enum snap_targets */
	uint32_t managed_keep;   /* copies of each domain's aliases */
	uint32_t chunking, requiretls; /* 0 or 1 */
	uint32_t mail_max;        /* messages of an inbound session; 0: no limit */
	uint32_t reports_per_sender, reports_per_host, reports_total, reports_double; /* in reports_period_ns, of one worker; 0: no limit */
	uint64_t reports_period_ns;
	/* B2: how long what is known of recipients lasts, how long RCPT waits, how often destinations are asked; B3 */
	uint64_t verify_address_yes_ns, verify_address_no_ns, verify_domain_yes_ns, verify_domain_no_ns, verify_wait_ns, verify_probe_ns, verify_retry_ns;
	double verify_probe_rate; /* a minute and destination; 0: no limit */
	uint32_t verify_probes, verify_cache;
	double bad_slow, bad_refuse; /* bad recipients in bad_period_ns; 0: no limit */
	uint64_t bad_period_ns, bad_delay_ns, bad_refuse_ns;
	struct snap_str config_file;     /* where the line numbers are from; empty: there is none */
	struct snap_str policy_help_url; /* {code} stands for the rule's name; empty: none */
	struct snap_list policy_rules;   /* of struct snap_policy, as configured */
	uint8_t policy_mode[RULE_NRULE][CLASS_NCLASS]; /* enum policy_mode */
	uint32_t policy_line[RULE_NRULE][CLASS_NCLASS]; /* of the configuration; 0: the default */
	struct snap_list listeners, nets, domains, routes, dns_servers /* of struct snap_host */, mail_domains;
	struct snap_list balancers, xclient_clients; /* of struct snap_range */
	struct snap_list auth_mechs /* of uint32_t, enum snap_mech */, auth_senders;
	struct snap_list sources; /* of struct snap_range: addresses to connect from */
	struct snap_list tls_certs; /* of struct snap_cert; tls.certificate is the first */
	struct snap_list tls_client_certs; /* of struct snap_cert: those that routes show */
	struct snap_list client_logins; /* of struct snap_login: those of routes, each once */
};

struct snap_header {
	uint64_t magic;
	uint32_t version, settings_size;
	uint64_t bytes;      /* of the whole file */
	uint64_t checksum;   /* XXH3 of all that follows this field */
	uint64_t generation; /* counts up with each publication */
	uint64_t made_wall_ns;
	uint8_t pad[16];
	struct snap_settings settings;
};
static_assert(offsetof(struct snap_header, settings) == 64);

struct snapshot {
	const struct snap_header *h;
	size_t bytes;
};

enum status snapshot_open(const char *path, struct snapshot *ret);
void snapshot_close(struct snapshot *s);
/* Reads a string; valid until close; NUL-terminated. */
struct span snap_span(const struct snapshot *s, struct snap_str v);
const char *snap_cstr(const struct snapshot *s, struct snap_str v);
const struct snap_listener *snap_listeners(const struct snapshot *s, uint32_t *ret_n);
const struct snap_host *snap_hosts(const struct snapshot *s, struct snap_list l, uint32_t *ret_n);
/* enum snap_mech bits that the configuration allows. */
unsigned snap_mechs(const struct snapshot *s);
/* The senders of a user; NULL: nothing is said about the user. And whether an address, its domain in look-up form, is among them. */
const struct snap_senders *snap_find_senders(const struct snapshot *s, struct span user);
bool snap_sender_in(const struct snapshot *s, const struct snap_senders *l, struct span local, struct span domain);
/* What is done about what a rule finds, by the configuration. dataplane/policy/apply.c knows what that comes to. */
enum policy_mode snap_policy_mode(const struct snapshot *s, enum rule r, enum snap_class class);
/* The most specific network with this client, expired or not; or NULL. */
const struct snap_net *snap_find_net(const struct snapshot *s, const uint8_t ip[16]);
/* The same, as long as it lets the client relay; NULL with *ret_expired: it did until it expired. */
const struct snap_net *snap_find_client(const struct snapshot *s, const uint8_t ip[16], uint64_t now_s, const struct snap_net **ret_expired);
/* All of them. */
const struct snap_net *snap_nets(const struct snapshot *s, uint32_t *ret_n);
bool snap_may_xclient(const struct snapshot *s, const uint8_t ip[16]);
bool snap_is_balancer(const struct snapshot *s, const uint8_t ip[16]);
/* domain in look-up form. */
const struct snap_domain *snap_find_domain(const struct snapshot *s, struct span domain);
const struct snap_mail_domain *snap_mail_domains(const struct snapshot *s, uint32_t *ret_n);
const struct snap_mail_domain *snap_find_mail_domain(const struct snapshot *s, struct span domain);
/* Whether a route has just this name; ".cam.example" is the one for all sub-domains. */
bool snap_route_is(const struct snapshot *s, struct span name);
/* Exact name, then ".parent" names from the longest, then "*"; NULL: by MX. */
const struct snap_route *snap_find_route(const struct snapshot *s, struct span domain);
/* Whether the configuration wants recipients of this domain verified with their destination (B2): by its own word, else by its route's. */
bool snap_wants_verified(const struct snapshot *s, struct span domain);
/* The route of those addresses of a domain that have moved; NULL: none have. */
const struct snap_route *snap_find_moved(const struct snapshot *s, struct span domain);
const struct snap_route *snap_routes(const struct snapshot *s, uint32_t *ret_n);
const struct snap_range *snap_ranges(const struct snapshot *s, struct snap_list l, uint32_t *ret_n);
const struct snap_login *snap_logins(const struct snapshot *s, uint32_t *ret_n);

#endif
