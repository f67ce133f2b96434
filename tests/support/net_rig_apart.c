#include "tests/support/net_rig_apart.h"

#include <netinet/in.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include "tests/support/net_peer.h"

/* They wait more than they work. */
enum { AT_ONCE = 4, PORT = 2525 };
#define FAR_IP4 0x0a190001 /* 10.25.0.1 */
#define MAPPED 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff

const struct snap_dpdk apart_dpdk = { .device = { "net_af_packet0,iface=net0,framecnt=1024" }, .ndevices = 1, .mtu = 1500, .workers = 1,
	.has_ip4 = true, .ip4 = { MAPPED, 10, 25, 0, 10 }, .prefix4 = 24 };

/* The kernel has the address of one end only, and computes checksums for a device that would not. */
static const char make_wire[] =
	"exec 2>/dev/null; echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6; "
	"printf '%s\\n' 'link add net0 type veth peer name far0' 'addr add 10.25.0.1/24 dev far0' 'link set net0 up' 'link set far0 up' | ip -batch - && "
	"ethtool -K far0 tx off tso off gso off gro off >/dev/null";

/* This process gets a namespace of its own. */
static bool enter_namespace(void)
{
	return unshare(CLONE_NEWNET) == 0 && system(make_wire) == 0; // NOLINT(cert-env33-c)
}

/* ---- each in a process ---- */

struct child {
	pid_t pid;
	int out;
};

static int run_one(const char *name, const struct CMUnitTest *test)
{
	if (!enter_namespace()) {
		fprintf(stderr, "no namespace for %s\n", test->name);
		return 1;
	}
	if (net_dpdk_open(&apart_dpdk, "/tmp") != ST_OK) {
		fprintf(stderr, "[  FAILED  ] %s\n%s\n", test->name, trail_text());
		return 1;
	}
	peer_kernel_at(FAR_IP4);
	return _cmocka_run_group_tests(name, test, 1, NULL, NULL);
}

static struct child begin(const char *name, const struct CMUnitTest *test)
{
	struct child c = { .out = memfd_create("output", MFD_CLOEXEC) };

	assert_true(c.out >= 0);
	fflush(NULL);
	c.pid = fork();
	assert_true(c.pid >= 0);
	if (c.pid == 0) {
		int failed;

		dup2(c.out, STDOUT_FILENO);
		dup2(c.out, STDERR_FILENO);
		failed = run_one(name, test);
		fflush(NULL);
		_exit(failed ? 1 : 0); /* EAL keeps what it has to the end, so that leaks are looked for over the other transports */
	}
	return c;
}

/* Gives whether it failed. */
static bool end(const struct child *c)
{
	char buf[4096];
	int status;
	ssize_t n;

	assert_int_equal(waitpid(c->pid, &status, 0), c->pid);
	for (off_t at = 0; (n = pread(c->out, buf, sizeof(buf), at)) > 0; at += n)
		fwrite(buf, 1, (size_t)n, stderr);
	close(c->out);
	if (WIFSIGNALED(status))
		fprintf(stderr, "killed by signal %d\n", WTERMSIG(status));
	return !WIFEXITED(status) || WEXITSTATUS(status) != 0;
}

/* ---- where it cannot be ---- */

static const char *reason;

static void skipped(void **state)
{
	(void)state;
	print_message("%s\n", reason);
	skip();
}

static const char *why_not(void)
{
	const char *missing = net_dpdk_missing();
	int status;
	pid_t pid;

	if (missing)
		return missing;
	fflush(NULL);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0)
		_exit(enter_namespace() ? 0 : 1);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status == 0 ? NULL : "network namespaces need root, ip and ethtool";
}

int apart_run(const char *name, const struct CMUnitTest *tests, size_t n)
{
	struct child running[AT_ONCE];
	int failed = 0;

	reason = why_not();
	for (size_t i = 0; i < n + AT_ONCE; i++) {
		if (reason && i < n)
			failed += _cmocka_run_group_tests(name, &(struct CMUnitTest){ .name = tests[i].name, .test_func = skipped }, 1, NULL, NULL);
		if (reason)
			continue;
		if (i >= AT_ONCE && i - AT_ONCE < n)
			failed += end(&running[i % AT_ONCE]);
		if (i < n)
			running[i % AT_ONCE] = begin(name, &tests[i]);
	}
	return failed;
}

void apart_listen(struct net_listen *ret, struct sockaddr_storage *ret_at)
{
	struct sockaddr_in *at = (struct sockaddr_in *)(void *)ret_at;
	static const uint8_t ip4[4] = APART_NET_IP4;

	*ret = (struct net_listen){ .fd = -1, .port = PORT };
	memcpy(ret->ip, apart_dpdk.ip4, 16);
	memset(ret_at, 0, sizeof(*ret_at));
	at->sin_family = AF_INET;
	at->sin_port = htons(PORT);
	memcpy(&at->sin_addr, ip4, 4);
}
