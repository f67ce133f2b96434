#include "dataplane/net/net_dpdk_kernel.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>
#include "dataplane/net/net_dpdk_port.h"
#include "spool/base/clock.h"

enum { BURST = 32, FRAME_MAX = 9000 + 18 };
#define LOOK_NS (20 * NS_PER_US)

static_assert(SNAP_INTERFACE_LEN == IFNAMSIZ);

static struct {
	int fd;
	uint64_t look_ns; /* when to look again */
	struct kernel_stats stats;
} kernel = { .fd = -1 };

static enum status refused(const char *name, const char *what)
{
	if (errno == EPERM)
		return trail(ST_IO, "dpdk.kernel: %s %s: it needs root or CAP_NET_ADMIN at the start", name, what);
	return trail_errno(errno, "dpdk.kernel: %s %s; when it was made otherwise before: ip link delete %s", name, what, name);
}

/* The device's own hardware address and MTU, so that neighbours see one host; up, but without addresses. */
static enum status set_up(const struct snap_dpdk *cfg, const uint8_t mac[6])
{
	struct ifreq ifr = { 0 };
	int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	const char *what = NULL;
	enum status st;

	memcpy(ifr.ifr_name, cfg->kernel, sizeof(cfg->kernel));
	ifr.ifr_hwaddr.sa_family = ARPHRD_ETHER;
	memcpy(ifr.ifr_hwaddr.sa_data, mac, 6);
	if (s < 0 || ioctl(s, SIOCSIFHWADDR, &ifr) < 0)
		what = "takes no hardware address";
	ifr.ifr_mtu = (int)cfg->mtu;
	if (!what && ioctl(s, SIOCSIFMTU, &ifr) < 0)
		what = "takes no MTU";
	if (!what && ioctl(s, SIOCGIFFLAGS, &ifr) == 0) {
		ifr.ifr_flags |= IFF_UP;
		if (ioctl(s, SIOCSIFFLAGS, &ifr) < 0)
			what = "does not come up";
	}
	st = what ? refused(cfg->kernel, what) : ST_OK;
	if (s >= 0)
		close(s);
	return st;
}

enum status kernel_open(const struct snap_dpdk *cfg, const uint8_t mac[6])
{
	struct ifreq ifr = { .ifr_flags = (short)(IFF_TAP | IFF_NO_PI | (cfg->shared ? IFF_MULTI_QUEUE : 0)) };
	enum status st;

	if (!*cfg->kernel)
		return ST_OK;
	memcpy(ifr.ifr_name, cfg->kernel, sizeof(cfg->kernel));
	kernel.fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (kernel.fd < 0)
		return trail_errno(errno, "dpdk.kernel: /dev/net/tun (is the module tun there?)");
	if (ioctl(kernel.fd, TUNSETIFF, &ifr) < 0 || ioctl(kernel.fd, TUNSETPERSIST, 1) < 0)
		st = refused(cfg->kernel, "cannot be a tap interface");
	else
		st = set_up(cfg, mac);
	if (st != ST_OK)
		kernel_close();
	return st;
}

void kernel_close(void)
{
	if (kernel.fd >= 0)
		close(kernel.fd);
	kernel.fd = -1;
}

bool kernel_is_open(void)
{
	return kernel.fd >= 0;
}

void kernel_give(const uint8_t *frame, size_t n)
{
	if (write(kernel.fd, frame, n) == (ssize_t)n)
		kernel.stats.to++;
	else
		kernel.stats.lost++;
}

static bool send_one(const uint8_t *frame, size_t n)
{
	void *mbuf;
	uint8_t *to = port_room((uint32_t)n, &mbuf);

	if (!to)
		return false; /* which port_room has counted */
	memcpy(to, frame, n);
	port_send(mbuf, false); /* a tap asks for whole checksums */
	return true;
}

unsigned kernel_turn(uint64_t now_ns)
{
	uint8_t frame[FRAME_MAX];
	unsigned n = 0;
	ssize_t len;

	if (kernel.fd < 0 || now_ns < kernel.look_ns)
		return 0;
	while (n < BURST && (len = read(kernel.fd, frame, sizeof(frame))) > 0) {
		kernel.stats.from += send_one(frame, (size_t)len);
		n++;
	}
	kernel.look_ns = n ? now_ns : now_ns + LOOK_NS;
	return n;
}

void kernel_stats(struct kernel_stats *ret)
{
	*ret = kernel.stats;
}
