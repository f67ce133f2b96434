/* weir: `weir run` starts a whole node in the foreground and keeps it running. See weir(8). */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <pwd.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include "control/children.h"
#include "control/schema.h"
#include "spool/base/clock.h"
#include "spool/base/daemon.h"
#include "spool/mail/address.h"
#include "spool/store/snap_dpdk.h"

enum { LISTEN_BACKLOG = 4096 };

static volatile sig_atomic_t stopping;
static char bin_dir[4096];
static char run_as[64]; /* the user that all children become; what needs root was done here */

static void on_stop(int sig)
{
	(void)sig;
	stopping = 1;
}

static _Noreturn void die(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

static _Noreturn void die(const char *fmt, ...)
{
	va_list ap;

	fputs("weir: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	children_end();
	exit(1);
}

/* ---- what a node needs ---- */

static void make_dir(const char *path, mode_t mode, const char *user)
{
	const struct passwd *pw = user && *user ? getpwnam(user) : NULL;

	if (mkdir(path, mode) < 0 && errno != EEXIST)
		die("%s: %s", path, strerror(errno));
	if (pw && geteuid() == 0 && chown(path, pw->pw_uid, pw->pw_gid) < 0)
		die("%s: %s", path, strerror(errno));
}

/* A self-signed certificate of the node's own: enough for opportunistic TLS. */
static void make_certificate(const char *run_dir, const char *hostname, const char *user)
{
	char cert[4200], key[4200];
	EVP_PKEY *pkey = NULL;
	X509 *x = NULL;
	FILE *f;
	int fd;

	snprintf(cert, sizeof(cert), "%s/tls-cert.pem", run_dir);
	snprintf(key, sizeof(key), "%s/tls-key.pem", run_dir);
	if (access(cert, R_OK) == 0 && access(key, R_OK) == 0)
		return;
	pkey = EVP_EC_gen("P-256");
	x = X509_new();
	if (!pkey || !x)
		die("making a TLS key failed");
	X509_set_version(x, 2);
	ASN1_INTEGER_set_uint64(X509_get_serialNumber(x), clock_wall_ns());
	X509_gmtime_adj(X509_getm_notBefore(x), -3600);
	X509_gmtime_adj(X509_getm_notAfter(x), 3650L * 86400);
	X509_set_pubkey(x, pkey);
	X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_ASC, (const unsigned char *)hostname, -1, -1, 0);
	X509_set_issuer_name(x, X509_get_subject_name(x));
	X509_sign(x, pkey, EVP_sha256());
	fd = open(key, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	f = fd >= 0 ? fdopen(fd, "w") : NULL;
	if (!f || !PEM_write_PrivateKey(f, pkey, NULL, NULL, 0, NULL, NULL) || fclose(f) != 0)
		die("%s: cannot be written", key);
	f = fopen(cert, "w");
	if (!f || !PEM_write_X509(f, x) || fclose(f) != 0)
		die("%s: cannot be written", cert);
	X509_free(x);
	EVP_PKEY_free(pkey);
	if (user && *user && geteuid() == 0) {
		const struct passwd *pw = getpwnam(user);

		if (!pw || chown(key, pw->pw_uid, pw->pw_gid) < 0 || chown(cert, pw->pw_uid, pw->pw_gid) < 0)
			die("%s: %s", key, strerror(errno));
	}
}

static int listen_on(const struct snap_listener *l)
{
	struct sockaddr_in6 a = { .sin6_family = AF_INET6, .sin6_port = htons(l->port) };
	struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_port = htons(l->port) };
	bool is4 = l->ip[10] == 0xff && l->ip[11] == 0xff && !l->ip[0];
	int one = 1, fd = socket(is4 ? AF_INET : AF_INET6, SOCK_STREAM, 0);
	char ip[64];
	struct out o = out_of(ip, sizeof(ip) - 1);

	memcpy(&a.sin6_addr, l->ip, 16);
	memcpy(&v4.sin_addr, l->ip + 12, 4);
	ip_write(l->ip, &o);
	ip[o.n] = '\0';
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one));
	if (!is4)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
	if (fd < 0 || bind(fd, is4 ? (struct sockaddr *)&v4 : (struct sockaddr *)&a, is4 ? sizeof(v4) : sizeof(a)) < 0 ||
		listen(fd, LISTEN_BACKLOG) < 0)
		die("cannot listen on %s port %u: %s", ip, l->port, strerror(errno));
	return fd;
}

static void start_redis(const struct snapshot *s, const char *run_dir)
{
	const char *where = snap_cstr(s, s->h->settings.redis);
	struct child *c;

	if (strncmp(where, "unix:", 5) != 0 || strncmp(where + 5, run_dir, strlen(run_dir)) != 0)
		return; /* somebody else's */
	c = child_new("redis-server", 3);
	child_arg(c, "redis-server");
	child_arg(c, "--port");
	child_arg(c, "0");
	child_arg(c, "--unixsocket");
	child_arg(c, "%s", where + 5);
	child_arg(c, "--unixsocketperm");
	child_arg(c, "700");
	child_arg(c, "--save");
	child_arg(c, "%s", "");
	child_arg(c, "--appendonly");
	child_arg(c, "no");
	child_arg(c, "--dir");
	child_arg(c, "%s", run_dir);
	child_arg(c, "--loglevel");
	child_arg(c, "warning");
	child_start(c, run_as);
}

static void start_control(const char *config, const char *run_dir)
{
	struct child *c = child_new("weir-control", 2);

	child_arg(c, "%s/weir-control", bin_dir);
	child_arg(c, "--run");
	child_arg(c, "%s", run_dir);
	if (config) {
		child_arg(c, "--config");
		child_arg(c, "%s", config);
	}
	child_start(c, run_as);
}

static void start_scanner(const struct snapshot *s, const char *run_dir)
{
	const struct snap_settings *set = &s->h->settings;
	struct child *c = child_new("weir-scanner", 1);

	child_arg(c, "%s/weir-scanner", bin_dir);
	child_arg(c, "--run");
	child_arg(c, "%s", run_dir);
	child_arg(c, "--spool");
	child_arg(c, "%s", snap_cstr(s, set->spool_dir));
	child_arg(c, "--processes");
	child_arg(c, "%u", set->scanners);
	child_arg(c, "--signatures");
	child_arg(c, "%s", snap_cstr(s, set->signatures));
	child_arg(c, "--engine");
	child_arg(c, "%s", snap_cstr(s, set->engine));
	child_start(c, run_as);
}

/* Every worker has sockets of its own, which stay open here: connections wait in them while a worker is restarted. */
static void give_sockets(struct child *c, const struct snapshot *s)
{
	char fds[64 * 8] = "";
	struct out o = out_of(fds, sizeof(fds) - 1);
	uint32_t n;
	const struct snap_listener *l = snap_listeners(s, &n);

	for (uint32_t k = 0; k < n; k++)
		out_fmt(&o, "%s%d", k ? "," : "", listen_on(&l[k]));
	child_arg(c, "--listen-fds");
	child_arg(c, "%s", fds);
}

static void start_worker(const struct snapshot *s, const char *run_dir, unsigned i)
{
	struct child *c = child_new("weir-dataplane", 0);

	child_arg(c, "%s/weir-dataplane", bin_dir);
	child_arg(c, "--run");
	child_arg(c, "%s", run_dir);
	child_arg(c, "--worker");
	child_arg(c, "%u", i);
	if (!s->h->settings.transport) {
		give_sockets(c, s);
	} else { /* DPDK: the addresses are its own; opening its device needs root */
		c->drops_itself = true;
		child_arg(c, "--user");
		child_arg(c, "%s", run_as);
	}
	child_start(c, run_as);
}

/* Where a first message can be sent: the first listener, or the first worker's own address when DPDK listens on all of them. */
static void first_address(const struct snapshot *s, struct out *o)
{
	static const uint8_t any4[16] = { [10] = 0xff, [11] = 0xff };
	struct snap_dpdk d;
	uint32_t n;
	const struct snap_listener *l = snap_listeners(s, &n);

	if (s->h->settings.transport && memcmp(l[0].ip, any4, 16) == 0 && snap_dpdk(s, 0, &d) == ST_OK && d.has_ip4)
		ip_write(d.ip4, o);
	else
		ip_write(l[0].ip, o);
}

static void say_hello(const struct snapshot *s, const char *run_dir)
{
	uint32_t n;
	const struct snap_listener *l = snap_listeners(s, &n);
	char ip[64];
	struct out o = out_of(ip, sizeof(ip) - 1);

	first_address(s, &o);
	ip[o.n] = '\0';
	printf("\nWeir relays: %u workers%s, listening on", s->h->settings.workers, s->h->settings.transport ? " on DPDK" : "");
	for (uint32_t i = 0; i < n; i++) {
		char text[64];
		struct out t = out_of(text, sizeof(text) - 1);

		ip_write(l[i].ip, &t);
		printf("%s %.*s port %u", i ? "," : "", SPAN_FMT(out_span(&t)), l[i].port);
	}
	printf("\n\nSend a first message:   swaks --server %s:%u --from me@cam.example --to you@example.org\n", ip, l[0].port);
	printf("See what became of it:  %s/weirctl --run %s queue list\n", bin_dir, run_dir);
	printf("See how the node is:    %s/weirctl --run %s status\n", bin_dir, run_dir);
	printf("Stop everything:        Ctrl-C\n\n");
	fflush(stdout);
}

static void write_pids(const char *run_dir)
{
	char path[4200];
	FILE *f;

	snprintf(path, sizeof(path), "%s/supervisor", run_dir);
	f = fopen(path, "w");
	if (!f)
		return;
	fprintf(f, "weir %d\n", (int)getpid());
	children_list(f);
	fclose(f);
}

static void keep(const char *run_dir)
{
	while (!stopping) {
		children_reap(true);
		if (children_again(run_as))
			write_pids(run_dir);
		usleep(20 * 1000);
	}
}

static void usage(FILE *f)
{
	fputs("usage: weir run [--config FILE] [--run DIR]\n", f);
}

static void start_node(const char *config, const char *run_dir)
{
	struct snapshot s;
	struct model m;
	char path[4200];

	/* once for our own use and to make what it needs; weir-control publishes it */
	if (!model_read(&m, config, run_dir, 1, stderr))
		die("the configuration has errors, nothing was started");
	free(m.bytes);
	make_dir(run_dir, 0750, NULL);
	snprintf(path, sizeof(path), "%s/snapshot", run_dir);
	unlink(path);
	if (!model_read(&m, config, run_dir, 1, stderr))
		die("the configuration has errors, nothing was started");
	s = (struct snapshot){ .h = (const struct snap_header *)(const void *)m.bytes, .bytes = m.n };
	make_dir(run_dir, 0750, snap_cstr(&s, s.h->settings.user));
	make_dir(snap_cstr(&s, s.h->settings.spool_dir), 0700, snap_cstr(&s, s.h->settings.user));
	snprintf(path, sizeof(path), "%s/stats", run_dir);
	make_dir(path, 0750, snap_cstr(&s, s.h->settings.user));
	snprintf(run_as, sizeof(run_as), "%s", snap_cstr(&s, s.h->settings.user));
	make_certificate(run_dir, snap_cstr(&s, s.h->settings.hostname), snap_cstr(&s, s.h->settings.user));
	start_redis(&s, run_dir);
	start_control(config, run_dir);
	snprintf(path, sizeof(path), "%s/snapshot", run_dir);
	for (int i = 0; access(path, R_OK) < 0 && !stopping; i++) {
		children_reap(!stopping);
		if (i == 6000) /* a minute: it compiles the alias tables first */
			die("weir-control has not published a configuration");
		usleep(10 * 1000);
	}
	for (unsigned i = 0; i < s.h->settings.workers; i++)
		start_worker(&s, run_dir, i);
	start_scanner(&s, run_dir);
	write_pids(run_dir);
	say_hello(&s, run_dir);
	free(m.bytes);
}

int main(int argc, char **argv)
{
	static const struct option options[] = { { "config", 1, NULL, 'c' }, { "run", 1, NULL, 'r' }, { "help", 0, NULL, 'h' }, { 0 } };
	const char *config = NULL, *run = "run";
	char *run_dir, *file = NULL;
	ssize_t n = readlink("/proc/self/exe", bin_dir, sizeof(bin_dir) - 1);
	int c;

	while ((c = getopt_long(argc, argv, "c:r:h", options, NULL)) != -1) {
		if (c == 'c')
			config = optarg;
		else if (c == 'r')
			run = optarg;
		else {
			usage(c == 'h' ? stdout : stderr);
			return c == 'h' ? 0 : 2;
		}
	}
	if (optind + 1 != argc || strcmp(argv[optind], "run") != 0) {
		usage(stderr);
		return 2;
	}
	if (n <= 0 || !strrchr(bin_dir, '/'))
		die("cannot tell where my programs are");
	*strrchr(bin_dir, '/') = '\0';
	if (mkdir(run, 0750) < 0 && errno != EEXIST)
		die("%s: %s", run, strerror(errno));
	run_dir = realpath(run, NULL);
	if (!run_dir || strlen(run_dir) > 80)
		die("%s: the path of the run directory must be shorter than 80 characters (Unix sockets)", run);
	if (config && !(file = realpath(config, NULL)))
		die("the configuration file cannot be read: %s", strerror(errno));
	daemon_signals(on_stop);
	daemon_raise_files();
	start_node(file, run_dir);
	keep(run_dir);
	puts("weir: stopping");
	children_end();
	puts("weir: stopped");
	free(file);
	free(run_dir);
	return 0;
}
