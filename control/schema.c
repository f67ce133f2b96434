#include "control/schema.h"

static const char *const mode_words[] = { "off", "monitor", "defer", NULL };
static const char *const scan_down_words[] = { "tempfail", "hold", NULL };
static const char *const tls_words[] = { "never", "may", "must", "verify", NULL };
static const char *const targets_words[] = { "all", "verified", "none", NULL };
static const char *const engine_words[] = { "clamav", "trivial", NULL };
static const char *const level_words[] = { "debug", "info", "warn", "error", NULL };
static const char *const tls_version_words[] = { "1.2", "1.3", NULL };
static const char *const transport_words[] = { "io_uring", "dpdk", NULL };

#define AT(member) offsetof(struct snap_settings, member)
#define S 1000000000ull
#define MIB (1024ull * 1024)

const struct schema_row schema[] = {
	{ "hostname", T_STRING, AT(hostname), "", 0, 0, NULL, RELOAD_LIVE,
		"Name of this relay in greetings, EHLO, Received fields and reports. Default: the system's host name." },
	{ "node", T_STRING, AT(node), "", 0, 0, NULL, RELOAD_LIVE, "Short name of this node in the cluster. Default: the first label of hostname." },
	{ "postmaster", T_STRING, AT(postmaster), "", 0, 0, NULL, RELOAD_LIVE,
		"Address that gets mail to bare postmaster and bounces that cannot be delivered. Without it they are dropped, with a line in the log." },
	{ "user", T_STRING, AT(user), "", 0, 0, NULL, RELOAD_RESTART, "User that the daemons become after their set-up, when started as root." },
	{ "workers", T_U32, AT(workers), "0", 0, 64, NULL, RELOAD_RESTART, "Dataplane processes; 0: one per processor." },
	{ "transport", T_ENUM, AT(transport), "io_uring", 0, 0, transport_words, RELOAD_RESTART, "How connections reach a worker: through the kernel, or by a TCP of its own on a device that DPDK drives." },
	{ "dpdk.devices", T_STRING, AT(dpdk_devices), "", 0, 0, NULL, RELOAD_RESTART,
		"Devices of a worker as DPDK names them, separated by spaces: \"net_af_packet0,iface=eth%w\", or a PCI address. %w stands for the worker's number, as each worker has a device or queue of its own. The last one carries the traffic." },
	{ "dpdk.ipv4", T_STRING, AT(dpdk_ip4), "", 0, 0, NULL, RELOAD_RESTART,
		"The worker's IPv4 address and prefix on its device, for example 192.0.2.1%w/24. The kernel must not have it." },
	{ "dpdk.gateway4", T_STRING, AT(dpdk_gateway4), "", 0, 0, NULL, RELOAD_RESTART, "Next hop for everything outside that prefix." },
	{ "dpdk.ipv6", T_STRING, AT(dpdk_ip6), "", 0, 0, NULL, RELOAD_RESTART,
		"The same for IPv6; the prefix is 64. Router advertisements are not listened to." },
	{ "dpdk.gateway6", T_STRING, AT(dpdk_gateway6), "", 0, 0, NULL, RELOAD_RESTART, "Next hop for everything outside that prefix." },
	{ "dpdk.kernel", T_STRING, AT(dpdk_kernel), "", 0, 0, NULL, RELOAD_RESTART,
		"Name of a tap interface, for example weir%w, through which the kernel has whatever the device brings that is not for the worker's own addresses, and sends; the host's own addresses on that network go there. Where all workers share a device they share it, and %w is left out." },
	{ "dpdk.mtu", T_U32, AT(dpdk_mtu), "1500", 1280, 9000, NULL, RELOAD_RESTART, "Octets of an IP packet on the device." },
	{ "dpdk.hugepages", T_BOOL, AT(dpdk_hugepages), "no", 0, 0, NULL, RELOAD_RESTART,
		"Packet buffers on huge pages. Real network cards need them; virtual devices gain nothing." },
	{ "log_level", T_ENUM, AT(log_level), "info", 0, 0, level_words, RELOAD_LIVE, "Least level of what is logged." },
	{ "metrics", T_STRING, AT(metrics), "127.0.0.1:9925", 0, 0, NULL, RELOAD_RESTART, "ADDRESS:PORT for Prometheus (/metrics), or none." },
	{ "listen", T_TABLE, AT(listeners), "[\"127.0.0.1:2525\"]", 0, 64, NULL, RELOAD_RESTART,
		"Addresses to take SMTP on: \"ADDRESS:PORT\", or {address: \"ADDRESS:PORT\", role: mx|submission|submissions|lmtp, tls: implicit, bare_lf: refuse|normalise, banner_delay: DURATION, proxy: yes, name: TEXT}. "
		"submission (port 587) needs AUTH, which it takes only after STARTTLS; submissions (port 465) is the same with TLS from the first byte; mx has no AUTH; lmtp (RFC 2033) answers the data once for each recipient, with the same rules as mx. bare_lf: normalise makes line ends of old devices good, and still only CRLF.CRLF ends a message; banner_delay makes clients outside relay_clients wait for the greeting, and who talks before it is refused. proxy: yes: for balancers alone, which say first who their client is. name: its traffic is counted under it (rule A4)." },
	{ "balancers", T_TABLE, AT(balancers), "[]", 0, 1000, NULL, RELOAD_LIVE,
		"Networks of the balancers that may connect to listeners with proxy: yes, with the PROXY protocol, version 1 or 2. Their word for the client's address is taken." },
	{ "xclient_clients", T_TABLE, AT(xclient_clients), "[]", 0, 1000, NULL, RELOAD_LIVE,
		"Networks of clients that may say of themselves whatever they want, by XCLIENT: address, name, even the user who is logged in. For tests of the rules only." },
	{ "relay_clients", T_TABLE, AT(relay_nets), "[127.0.0.0/8, \"::1\"]", 0, 100000, NULL, RELOAD_LIVE,
		"Networks whose clients may send to anywhere: NETWORK, or {network: NETWORK, class: robust|fragile, rate: NUMBER|none, connections: NUMBER|none, name: TEXT}. The most specific one counts." },
	{ "clients.file", T_STRING, AT(clients_file), "", 0, 0, NULL, RELOAD_LIVE,
		"The registry of clients as a file, read with the configuration and, when its name is relative, beside it, in the place of weirctl clients set and delete. Its lines are below REGISTRY OF CLIENTS. Rule A3." },
	{ "clients.directory", T_STRING, AT(clients_dir), "", 0, 0, NULL, RELOAD_RESTART,
		"Where the registry, its history and what is known of clients are kept; it must survive a restart of the machine. Default: RUN/clients. Rule A3." },
	{ "clients.evidence", T_U32, AT(clients_evidence), "10000", 16, 1000000, NULL, RELOAD_RESTART,
		"Client addresses of which a worker keeps what they do, about 430 bytes each. Beyond, whoever was not seen for longest goes, those that may relay last. Rule A3." },
	{ "local_domains", T_TABLE, AT(domains), "[]", 0, 1000000, NULL, RELOAD_LIVE, "Domains to which everybody may send." },
	{ "routes", T_TABLE, AT(routes), "[]", 0, 1000000, NULL, RELOAD_LIVE,
		"Where domains go: {domain: NAME, to: \"smtp:HOST:PORT\" | \"lmtp:HOST:PORT\" | mx | a list of the same kind, tls: never|may|must|verify, final: yes|no, recipients: any|verify, life: TIME|unlimited, delay_notice: TIME|off, size: SIZE, hold: yes, hold_until: DATE, hold_reason: TEXT, source: [ADDRESS, ...], client_certificate: FILE, client_key: FILE, user: NAME, password_file: FILE}. final (always so with lmtp): what they take is delivered, reports of success are made here. verify: their recipients are verified with them (rule B2). A name that begins with a dot stands for all sub-domains, \"*\" for everything else." },
	{ "mail_domains", T_TABLE, AT(mail_domains), "[]", 0, 1000000, NULL, RELOAD_LIVE,
		"Managed mail domains, compiled into tables; everybody may send to them. {domain: NAME} with one of: aliases: FILE (with forwarding: FILE and unlisted: refuse|deliver); source: https://HOST/PATH (with ca: FILE and secrets: FILE) or source: command, in place of aliases; retired: TEXT; long_form_of: DOMAIN; forward: ADDRESS; to: NEXT-HOP as in routes; backup_mx: yes. Each may have recipients: any|verify, owner: TEXT and contact: TEXT, and those with a route what routes have, and moved: {file: FILE, to: NEXT-HOP} for single addresses that go elsewhere. Rules C2, C6, C7, C8, C9, B1, B2." },
	{ "managed.directory", T_STRING, AT(managed_dir), "", 0, 0, NULL, RELOAD_RESTART,
		"Where the live copies and the history of managed domains are kept; it must survive a restart of the machine. Default: RUN/domains. Rules C2, C9." },
	{ "managed.fetch_every", T_DURATION, AT(managed_fetch_every_ns), "1h", S, 30 * 86400 * S, NULL, RELOAD_LIVE,
		"How often a domain with an https source is fetched, plus or minus a tenth. Rule C2." },
	{ "managed.fetch_timeout", T_DURATION, AT(managed_fetch_timeout_ns), "60s", S, 600 * S, NULL, RELOAD_LIVE, "Time for one fetch, redirects included. Rule C2." },
	{ "managed.fetch_max", T_SIZE, AT(managed_fetch_max), "16M", 1024, 256 * MIB, NULL, RELOAD_LIVE, "Largest alias file that is fetched. Rule C2." },
	{ "managed.shrink", T_U32, AT(managed_shrink), "25", 0, 100, NULL, RELOAD_LIVE,
		"Per cent of its entries that a fetched domain may lose at once; beyond that the live copy stays until weirctl domain accept. Rule C4." },
	{ "managed.keep", T_U32, AT(managed_keep), "20", 2, 1000, NULL, RELOAD_LIVE, "Copies of each domain's aliases that are kept for weirctl domain revert. Rule C9." },
	{ "managed.check_every", T_DURATION, AT(managed_check_every_ns), "30d", S, 365 * 86400 * S, NULL, RELOAD_LIVE,
		"How often each managed domain is checked in detail. Rule C5." },
	{ "managed.check_targets", T_ENUM, AT(managed_targets), "all", 0, 0, targets_words, RELOAD_LIVE,
		"Which addresses behind the aliases of a domain a check has verified with their destinations: all, those whose recipients are verified (recipients: verify), or none. Rule C5." },
	{ "managed.self_check_every", T_DURATION, AT(managed_self_check_ns), "1d", S, 365 * 86400 * S, NULL, RELOAD_LIVE,
		"How often it is checked that postmaster of every served domain leads somewhere. Rule B4." },
	{ "managed.exchangers", T_STRING, AT(managed_exchangers), "", 0, 0, NULL, RELOAD_LIVE,
		"Host names that the MX records of managed domains should name, separated by spaces. Default: hostname. Rule C10." },
	{ "tables.keep", T_U32, AT(tables_keep), "10", 2, 1000, NULL, RELOAD_LIVE, "Generations of compiled tables that are kept for a rollback. Rule C1." },
	{ "dns.servers", T_TABLE, AT(dns_servers), "[]", 0, 8, NULL, RELOAD_RESTART, "Resolvers, \"ADDRESS:PORT\"; empty: those of /etc/resolv.conf." },
	{ "dns.timeout", T_DURATION, AT(dns_timeout_ns), "10s", S / 10, 60 * S, NULL, RELOAD_RESTART, "Time for a DNS question, all tries together." },
	{ "dns.validates", T_BOOL, AT(dns_validates), "no", 0, 0, NULL, RELOAD_RESTART,
		"The resolvers validate DNSSEC, and nobody can forge answers on the way from them (best on the loopback): their AD bit is believed. DANE needs it." },
	{ "tls.certificate", T_STRING, AT(tls_cert), "", 0, 0, NULL, RELOAD_LIVE,
		"PEM file with the certificate and its chain. Default: a self-signed one, which weir run makes in the run directory." },
	{ "tls.key", T_STRING, AT(tls_key), "", 0, 0, NULL, RELOAD_LIVE, "PEM file with the private key, without a password." },
	{ "tls.certificates", T_TABLE, AT(tls_certs), "[]", 0, 64, NULL, RELOAD_LIVE,
		"More certificates: {certificate: FILE, key: FILE}. The name that a client asks for (SNI) chooses among them by their subjectAltNames, wildcards included; RSA and ECDSA for the same names may both be there. Others get tls.certificate, or the first. Rule P23." },
	{ "tls.watch", T_DURATION, AT(tls_watch_ns), "60s", S, 86400 * S, NULL, RELOAD_LIVE,
		"How often the files of certificates are looked at: those that were renewed are taken over without a reload, those that cannot be used are refused and the old ones stay." },
	{ "tls.min_version", T_ENUM, AT(tls_only_13), "1.2", 0, 0, tls_version_words, RELOAD_LIVE, "Oldest TLS version that clients may use." },
	{ "tls.ciphers", T_STRING, AT(tls_ciphers), "", 0, 0, NULL, RELOAD_LIVE,
		"Ciphers for clients with TLS 1.2, as openssl-ciphers(1) writes them, the best first. Default: those with forward secrecy (ECDHE) and AES or ChaCha20." },
	{ "tls.ticket_life", T_DURATION, AT(tls_ticket_life_ns), "12h", 0, 7 * 86400 * S, NULL, RELOAD_LIVE,
		"How long a client may resume its session, on any worker of the node, and how often the key of the tickets is replaced. 0s: no resumption." },
	{ "tls.ticket_key_file", T_STRING, AT(tls_ticket_file), "", 0, 0, NULL, RELOAD_LIVE,
		"A file of ticket keys that all nodes behind one name share, 80 random octets each; new tickets are made with the first. Default: keys of the node's own, which only its workers know." },
	{ "tls.ca_file", T_STRING, AT(ca_file), "", 0, 0, NULL, RELOAD_LIVE,
		"PEM file of the authorities by which certificates of mail exchangers and MTA-STS policy hosts are verified. Default: those of the system." },
	{ "spool.directory", T_STRING, AT(spool_dir), "", 0, 0, NULL, RELOAD_RESTART, "Where the log of each partition lives. Default: RUN/spool." },
	{ "spool.partitions", T_U32, AT(partitions), "0", 0, 64, NULL, RELOAD_RESTART, "Partitions; 0: one per worker. Never fewer than there are on the disk." },
	{ "spool.segment", T_SIZE, AT(segment_bytes), "64M", 4 * MIB, 1024 * MIB, NULL, RELOAD_RESTART, "Size of new log segments." },
	{ "spool.max", T_SIZE, AT(spool_max_bytes), "8G", 16 * MIB, 0, NULL, RELOAD_RESTART, "Most disk space of all segments together." },
	{ "spool.spill", T_SIZE, AT(spill_bytes), "1M", 256 * 1024, 0, NULL, RELOAD_RESTART, "A message longer than this goes to the disk while it comes in." },
	{ "spool.direct", T_BOOL, AT(spool_direct), "yes", 0, 0, NULL, RELOAD_RESTART, "Write with O_DIRECT where the file system can." },
	{ "spool.arena", T_SIZE, AT(arena_bytes), "0", 0, 0, NULL, RELOAD_RESTART,
		"Shared memory of a worker for messages in work; 0: a sixteenth of the memory, at most 512M." },
	{ "spool.ledger", T_DURATION, AT(ledger_keep_ns), "35d", 86400 * S, 390 * 86400 * S, NULL, RELOAD_RESTART,
		"How long the ledger is kept, from which weirctl ledger and weirctl trace answer." },
	{ "scan.engine", T_ENUM, AT(engine), "clamav", 0, 0, engine_words, RELOAD_RESTART,
		"What looks at messages: clamav, or trivial (finds only the EICAR test string; for measurements)." },
	{ "scan.signatures", T_STRING, AT(signatures), "", 0, 0, NULL, RELOAD_RESTART, "Directory of ClamAV signatures. Default: the small test database that comes with Weir." },
	{ "scan.processes", T_U32, AT(scanners), "0", 0, 256, NULL, RELOAD_RESTART, "Scanner processes; 0: one per processor." },
	{ "scan.timeout", T_DURATION, AT(scan_timeout_ns), "60s", S, 3600 * S, NULL, RELOAD_LIVE, "A verdict that takes longer counts as none." },
	{ "scan.unavailable", T_ENUM, AT(scan_down), "tempfail", 0, 0, scan_down_words, RELOAD_LIVE,
		"What becomes of a message that cannot be scanned: 451, or accepted and held. It is never delivered unscanned. Clients of class fragile are always accepted." },
	{ "limits.message_size", T_SIZE, AT(size_max), "100M", 64 * 1024, 2048 * MIB, NULL, RELOAD_LIVE, "Largest message, as announced by SIZE." },
	{ "limits.recipients", T_U32, AT(rcpt_max), "5000", 100, 50000, NULL, RELOAD_LIVE, "Recipients of a message; 452 beyond." },
	{ "limits.connections", T_U32, AT(conns_max), "10000", 1, 100000, NULL, RELOAD_RESTART, "Inbound connections of a worker; 421 beyond." },
	{ "limits.connections_per_client", T_U32, AT(conns_per_client), "200", 1, 100000, NULL, RELOAD_LIVE, "Connections of one address from outside to a worker; 421 beyond. Rule P16." },
	{ "limits.connections_per_own_client", T_U32, AT(conns_per_own), "1000", 1, 100000, NULL, RELOAD_LIVE,
		"The same for an address in relay_clients or the registry, unless its entry has connections. Their networks have no limit." },
	{ "limits.connections_per_network", T_U32, AT(conns_per_network), "1000", 1, 100000, NULL, RELOAD_LIVE,
		"Connections of one network from outside, an IPv4 /24 or an IPv6 /64, to a worker; 421 beyond." },
	{ "limits.connections_reserved", T_U32, AT(conns_reserved), "20", 0, 90, NULL, RELOAD_LIVE,
		"Per cent of limits.connections that clients from outside cannot have. Of these, clients of class robust can have half, and those of class fragile, which have no queue, all. Rule A5." },
	{ "limits.tls_handshakes", T_U32, AT(tls_handshakes), "600", 0, 1000000, NULL, RELOAD_LIVE,
		"TLS handshakes of a client address (IPv6: a /64) with a worker in a minute; beyond, STARTTLS gets 421 4.7.0 and port 465 is closed. 0: no limit. Rule P23." },
	{ "limits.data_rate", T_U32, AT(data_rate), "100", 0, 1000000, NULL, RELOAD_LIVE,
		"Least bytes a second of message, on the average of timeouts.data; 421 to who is slower. 0: a byte in timeouts.data is enough." },
	{ "limits.messages", T_U32, AT(mail_max), "10000", 0, 0, NULL, RELOAD_LIVE, "Messages of an inbound session, as announced by LIMITS (MAILMAX); then 421. 0: no limit." },
	{ "limits.errors", T_U32, AT(errors_max), "20", 0, 100000, NULL, RELOAD_LIVE, "Protocol errors of a session; then 421. 0: no limit." },
	{ "limits.commands", T_U32, AT(commands_max), "1000", 0, 1000000, NULL, RELOAD_LIVE, "Commands without a message in between; then 421. 0: no limit." },
	{ "limits.transaction_memory", T_SIZE, AT(transaction_max), "4M", 65536, 0, NULL, RELOAD_LIVE, "Memory for the envelope of a message; 452 beyond." },
	{ "limits.received", T_U32, AT(max_received), "25", 5, 200, NULL, RELOAD_LIVE, "Received fields; a message with more is in a loop (5.4.6). Rule B6." },
	{ "timeouts.command", T_DURATION, AT(timeout_command_ns), "5m", S, 0, NULL, RELOAD_LIVE, "Wait for a client's whole command." },
	{ "timeouts.data", T_DURATION, AT(timeout_body_ns), "3m", S, 0, NULL, RELOAD_LIVE, "Wait for a client's next piece of message, which is as much as limits.data_rate asks in this time." },
	{ "timeouts.session", T_DURATION, AT(session_max_ns), "2h", 10 * S, 0, NULL, RELOAD_LIVE, "A whole inbound session." },
	{ "auth.password_file", T_STRING, AT(auth_file), "", 0, 0, NULL, RELOAD_LIVE,
		"Users of the submission service, one a line, USER:HASH or USER:HASH:VERIFIER, as weirctl auth hash writes them. Read again when it changes. Rule A9." },
	{ "auth.dovecot", T_STRING, AT(auth_dovecot), "", 0, 0, NULL, RELOAD_RESTART,
		"In place of a password file: the path of Dovecot's authentication socket (a unix_listener of its service auth)." },
	{ "auth.mechanisms", T_TABLE, AT(auth_mechs), "[plain, login, scram-sha-256]", 0, 8, NULL, RELOAD_LIVE,
		"SASL mechanisms that may be used. scram-sha-256 is offered only while every user of the password file has a verifier, and with Dovecot only when it is all that is listed, as Dovecot then tells who exists." },
	{ "auth.senders", T_TABLE, AT(auth_senders), "[]", 0, 1000000, NULL, RELOAD_LIVE,
		"Whose mail a user may send: {user: NAME, senders: [ADDRESS, \"@DOMAIN\" or \"*\", ...]}. A user who is not in the list may use any sender in local_domains and mail_domains. Rule P19." },
	{ "auth.secret_file", T_STRING, AT(auth_secret), "", 0, 0, NULL, RELOAD_RESTART,
		"A file of random octets, the same on all nodes, from which the salts of users who do not exist are made. Default: RUN/auth-secret, which the node makes." },
	{ "auth.failures_per_client", T_RATE, AT(auth_client_limit), "100", 0, 0, NULL, RELOAD_LIVE,
		"Failed logins of a client address (IPv6: a /64) in auth.failures_period, on all nodes together; 421 4.7.0 beyond, and no password is looked at." },
	{ "auth.failures_per_user", T_RATE, AT(auth_user_limit), "20", 0, 0, NULL, RELOAD_LIVE,
		"The same for a user's name, existing or not; 454 4.7.0 beyond. Logins that are under way count until they have succeeded." },
	{ "auth.failures_period", T_DURATION, AT(auth_period_ns), "1h", S, 0, NULL, RELOAD_LIVE, "Period of these two moving averages." },
	{ "auth.failure_delay", T_DURATION, AT(auth_delay_ns), "1s", 0, 30 * S, NULL, RELOAD_LIVE,
		"A failed login is answered so long after the client's last message, or, when the decision took longer, at the next multiple of it: the time tells nothing of users and hashes. 0s: at once. Rule P19." },
	{ "auth.timeout", T_DURATION, AT(auth_timeout_ns), "20s", S, 300 * S, NULL, RELOAD_RESTART, "Wait for Dovecot's answer; then 454." },
	{ "rates.mode", T_ENUM, AT(rate_mode), "monitor", 0, 0, mode_words, RELOAD_LIVE,
		"What happens over the limit: monitor logs and counts, defer answers 450 4.7.1. Rules A8, D2." },
	{ "rates.limit", T_RATE, AT(rate_limit), "60", 0, 0, NULL, RELOAD_LIVE, "Messages of a client host, or of an authenticated user, in rates.period, unless the client's network says otherwise." },
	{ "rates.period", T_DURATION, AT(rate_period_ns), "1h", S, 0, NULL, RELOAD_LIVE, "Period of the moving average. Rule D1." },
	{ "verify.address_yes", T_DURATION, AT(verify_address_yes_ns), "24h", S, 0, NULL, RELOAD_LIVE,
		"How long an address that its destination took is not asked for again (recipients: verify in routes and mail_domains). Rule B2." },
	{ "verify.address_no", T_DURATION, AT(verify_address_no_ns), "2h", S, 0, NULL, RELOAD_LIVE, "The same for one that it refused." },
	{ "verify.domain_yes", T_DURATION, AT(verify_domain_yes_ns), "7d", S, 0, NULL, RELOAD_LIVE,
		"How long it holds that a domain tells its addresses apart, or takes them all; and how long an address that was good is taken while its destination does not answer." },
	{ "verify.domain_no", T_DURATION, AT(verify_domain_no_ns), "3h", S, 0, NULL, RELOAD_LIVE,
		"How long it holds that a domain takes no mail at all (no such domain, null MX), or that its destination refuses the null sender and so cannot be asked." },
	{ "verify.retry", T_DURATION, AT(verify_retry_ns), "1m", S, 3600 * S, NULL, RELOAD_LIVE,
		"An address that was asked for without a clear answer (greylisting, an outage) is not asked for again before." },
	{ "verify.wait", T_DURATION, AT(verify_wait_ns), "10s", S / 10, 120 * S, NULL, RELOAD_LIVE,
		"RCPT waits no longer for an answer; then 451 4.4.1, while the probe goes on. Clients of class fragile never wait." },
	{ "verify.probe_time", T_DURATION, AT(verify_probe_ns), "60s", S / 10, 600 * S, NULL, RELOAD_LIVE, "A probe that takes longer is given up." },
	{ "verify.probes_per_minute", T_RATE, AT(verify_probe_rate), "60", 0, 0, NULL, RELOAD_LIVE,
		"Addresses that one destination is asked for, by all nodes together; 451 4.4.5 for unknown ones beyond." },
	{ "verify.probes_at_once", T_U32, AT(verify_probes), "2", 1, 100, NULL, RELOAD_LIVE, "Connections of a worker that ask one destination at the same time." },
	{ "verify.cache", T_U32, AT(verify_cache), "20000", 100, 10000000, NULL, RELOAD_RESTART, "Answers that a worker keeps beside those in Redis." },
	{ "dictionary.slow_after", T_RATE, AT(bad_slow), "20", 0, 0, NULL, RELOAD_LIVE,
		"Unknown recipients of an outside client (IPv6: a /64) in dictionary.period, on all nodes; beyond, replies to more of them are delayed. Rule B3." },
	{ "dictionary.delay", T_DURATION, AT(bad_delay_ns), "5s", 0, 60 * S, NULL, RELOAD_LIVE, "That delay." },
	{ "dictionary.refuse_after", T_RATE, AT(bad_refuse), "100", 0, 0, NULL, RELOAD_LIVE,
		"The same count; beyond, 421 4.7.0, and for dictionary.refuse_for to every connection of the client." },
	{ "dictionary.refuse_for", T_DURATION, AT(bad_refuse_ns), "1h", S, 0, NULL, RELOAD_LIVE, "How long." },
	{ "dictionary.period", T_DURATION, AT(bad_period_ns), "1h", S, 0, NULL, RELOAD_LIVE, "Period of this moving average." },
	{ "policy.help_url", T_STRING, AT(policy_help_url), "", 0, 0, NULL, RELOAD_LIVE,
		"Page that explains refusals, for example https://help.cam.example/mail/{code}, where {code} becomes the rule's name. Refusals end with name and page. Rule A12." },
	{ "policy.rules", T_TABLE, AT(policy_rules), "[]", 0, 1000, NULL, RELOAD_LIVE,
		"What is done about what rules find: {rule: NAME, class: CLASS or a list of them, mode: off|monitor|tag|hold|defer|reject}. Without class it is for all of robust, fragile, submission and mx. Rule D2; the rules are below RULES." },
	{ "redis.server", T_STRING, AT(redis), "", 0, 0, NULL, RELOAD_RESTART, "\"unix:PATH\" or \"HOST:PORT\". Default: a server of the node's own on RUN/redis.sock." },
	{ "redis.budget", T_DURATION, AT(redis_budget_ns), "20ms", 1000000, S, NULL, RELOAD_RESTART, "A decision waits no longer for Redis; then it is counted locally." },
	{ "delivery.source", T_TABLE, AT(sources), "[]", 0, 64, NULL, RELOAD_LIVE,
		"Addresses of this node that deliveries come from: one of the family of the host that is connected to; without one of that family, and without any, the system chooses. Without effect with transport: dpdk, where a worker has its own. A route may have its own list. Rule F1." },
	{ "delivery.retry_first", T_DURATION, AT(retry_first_ns), "5m", S, 0, NULL, RELOAD_LIVE, "Wait after the first failed attempt; it doubles each time." },
	{ "delivery.retry_max", T_DURATION, AT(retry_max_ns), "4h", S, 0, NULL, RELOAD_LIVE, "Longest wait between attempts." },
	{ "delivery.queue_life", T_DURATION, AT(queue_life_ns), "5d", S, 0, NULL, RELOAD_LIVE, "After this time a message is returned." },
	{ "delivery.bounce_life", T_DURATION, AT(bounce_life_ns), "2d", S, 0, NULL, RELOAD_LIVE, "The same for messages without a sender." },
	{ "delivery.delay_notice", T_DURATION, AT(delay_notice_ns), "4h", 0, 0, NULL, RELOAD_LIVE, "After this time the sender is told once; 0s: never." },
	{ "delivery.tls", T_ENUM, AT(outbound_tls), "may", 0, 0, tls_words, RELOAD_LIVE, "TLS to mail exchangers: never, opportunistic (may), mandatory without a look at the certificate (must), or with one that is valid for the host's name (verify). DANE and MTA-STS make may and must stricter, never looser." },
	{ "delivery.tls_sessions", T_U32, AT(tls_sessions), "1000", 0, 100000, NULL, RELOAD_LIVE,
		"TLS sessions of remote hosts that a worker keeps to resume, by host and by what was demanded of its certificate. 0: none." },
	{ "delivery.dane", T_BOOL, AT(dane), "yes", 0, 0, NULL, RELOAD_LIVE,
		"Obey TLSA records of mail exchangers (RFC 7672). Only with dns.validates; takes precedence over MTA-STS." },
	{ "delivery.mta_sts", T_BOOL, AT(mta_sts), "yes", 0, 0, NULL, RELOAD_LIVE, "Look for MTA-STS policies of recipients' domains and obey them (RFC 8461)." },
	{ "delivery.mta_sts_port", T_U32, AT(mta_sts_port), "443", 1, 65535, NULL, RELOAD_LIVE, "Port of https on policy hosts." },
	{ "delivery.mta_sts_timeout", T_DURATION, AT(mta_sts_timeout_ns), "20s", S / 10, 300 * S, NULL, RELOAD_LIVE,
		"The first delivery to a domain waits no longer for its MTA-STS policy, and then goes without." },
	{ "delivery.tls_reports", T_BOOL, AT(tls_reports), "yes", 0, 0, NULL, RELOAD_LIVE,
		"Count how TLS went by policy domain, and write a report a day (RFC 8460) to RUN/tls-reports." },
	{ "delivery.requiretls", T_BOOL, AT(requiretls), "yes", 0, 0, NULL, RELOAD_LIVE,
		"Offer REQUIRETLS (RFC 8689) to clients that have TLS. Such mail goes only to verified hosts that offer it too, else it is returned (5.7.30)." },
	{ "delivery.chunking", T_BOOL, AT(chunking), "yes", 0, 0, NULL, RELOAD_LIVE, "Send with BDAT (RFC 3030) to hosts that offer CHUNKING." },
	{ "delivery.port", T_U32, AT(smtp_port), "25", 1, 65535, NULL, RELOAD_LIVE, "Port of mail exchangers." },
	{ "delivery.connections_at_first", T_U32, AT(dest_conns_start), "5", 1, 1000, NULL, RELOAD_LIVE,
		"Connections of one worker to a destination of which nothing is known yet: more with each success, fewer when it refuses connections or says 421 or 451. Rule F1." },
	{ "delivery.connections_per_destination", T_U32, AT(dest_conns_max), "20", 1, 1000, NULL, RELOAD_LIVE, "The most they become." },
	{ "delivery.connections", T_U32, AT(outbound_conns_max), "1000", 1, 20000, NULL, RELOAD_RESTART, "Delivery connections of a worker in all." },
	{ "delivery.messages_per_connection", T_U32, AT(conn_msgs_max), "1000", 1, 1000000, NULL, RELOAD_LIVE, "Then a connection ends with QUIT." },
	{ "delivery.idle", T_DURATION, AT(idle_reuse_ns), "2s", 0, 300 * S, NULL, RELOAD_LIVE, "A delivery connection without work waits so long for more." },
	{ "delivery.connect_timeout", T_DURATION, AT(connect_timeout_ns), "30s", S / 10, 0, NULL, RELOAD_LIVE, "TCP connection." },
	{ "delivery.greeting_timeout", T_DURATION, AT(greeting_timeout_ns), "5m", S / 10, 0, NULL, RELOAD_LIVE, "Remote greeting (RFC 5321 4.5.3.2)." },
	{ "delivery.reply_timeout", T_DURATION, AT(reply_timeout_ns), "5m", S / 10, 0, NULL, RELOAD_LIVE, "Remote reply to a command." },
	{ "delivery.final_timeout", T_DURATION, AT(final_timeout_ns), "10m", S / 10, 0, NULL, RELOAD_LIVE, "Remote reply to the end of the message." },
	{ "reports.per_sender", T_U32, AT(reports_per_sender), "20", 0, 0, NULL, RELOAD_LIVE,
		"Delivery reports of one worker to one address in reports.period; what is above is counted and logged. 0: no limit." },
	{ "reports.per_host", T_U32, AT(reports_per_host), "200", 0, 0, NULL, RELOAD_LIVE, "The same for all mail of one client host." },
	{ "reports.total", T_U32, AT(reports_total), "2000", 0, 0, NULL, RELOAD_LIVE, "The same for all reports of a worker." },
	{ "reports.double", T_U32, AT(reports_double), "20", 0, 0, NULL, RELOAD_LIVE,
		"Undeliverable reports that the postmaster gets for mail of one client host in reports.period; of one undeliverable address one. Rule A10." },
	{ "reports.period", T_DURATION, AT(reports_period_ns), "1h", S, 0, NULL, RELOAD_LIVE, "The period of these limits." },
};
const size_t schema_rows = sizeof(schema) / sizeof(schema[0]);

const struct schema_row *schema_find(struct span key)
{
	for (size_t i = 0; i < schema_rows; i++)
		if (span_eq(key, span_str(schema[i].key)))
			return &schema[i];
	return NULL;
}

static void write_duration(uint64_t ns, struct out *o)
{
	static const struct {
		uint64_t ns;
		const char *unit;
	} unit[] = { { 86400 * S, "d" }, { 3600 * S, "h" }, { 60 * S, "m" }, { S, "s" }, { S / 1000, "ms" } };

	for (size_t i = 0; i < sizeof(unit) / sizeof(unit[0]); i++)
		if (ns && ns % unit[i].ns == 0) {
			out_fmt(o, "%llu%s", (unsigned long long)(ns / unit[i].ns), unit[i].unit);
			return;
		}
	out_fmt(o, "%gs", (double)ns / 1e9);
}

static void write_size(uint64_t v, struct out *o)
{
	if (v && v % (1024 * MIB) == 0)
		out_fmt(o, "%lluG", (unsigned long long)(v / (1024 * MIB)));
	else if (v && v % MIB == 0)
		out_fmt(o, "%lluM", (unsigned long long)(v / MIB));
	else
		out_u64(o, v);
}

void schema_value(const struct snapshot *s, const struct schema_row *row, struct out *o)
{
	const char *at = (const char *)&s->h->settings + row->off;

	switch (row->type) {
	case T_STRING:
		out_add(o, snap_span(s, *(const struct snap_str *)(const void *)at));
		break;
	case T_U32:
		out_u64(o, *(const uint32_t *)(const void *)at);
		break;
	case T_SIZE:
		write_size(*(const uint64_t *)(const void *)at, o);
		break;
	case T_DURATION:
		write_duration(*(const uint64_t *)(const void *)at, o);
		break;
	case T_RATE:
		out_fmt(o, "%g", *(const double *)(const void *)at);
		break;
	case T_ENUM:
		if (row->off == AT(engine))
			out_add(o, snap_span(s, s->h->settings.engine));
		else
			out_str(o, row->words[*(const uint32_t *)(const void *)at]);
		break;
	case T_BOOL:
		out_str(o, *(const uint32_t *)(const void *)at ? "yes" : "no");
		break;
	case T_TABLE:
		out_fmt(o, "%u entries", ((const struct snap_list *)(const void *)at)->n);
		break;
	}
}
