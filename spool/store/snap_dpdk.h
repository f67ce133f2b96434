/* The group dpdk of the configuration as one worker's settings: %w is replaced by its number, addresses are parsed.
 *
 * The one parser for both sides: weir-control checks with it, a worker starts with it. */
#ifndef WEIR_SPOOL_STORE_SNAP_DPDK_H
#define WEIR_SPOOL_STORE_SNAP_DPDK_H

#include <stdbool.h>
#include "spool/store/snapshot.h"

enum { SNAP_DEVICES_MAX = 8, SNAP_DEVICE_LEN = 256, SNAP_INTERFACE_LEN = 16 };

struct snap_dpdk {
	char device[SNAP_DEVICES_MAX][SNAP_DEVICE_LEN]; /* as DPDK names them; the last one carries the traffic */
	uint32_t ndevices;
	uint32_t mtu;
	char kernel[SNAP_INTERFACE_LEN]; /* the interface by which the kernel shares the device; empty: it does not */
	bool hugepages;
	bool shared; /* all workers have the same addresses, and queues of one device */
	uint32_t worker, workers;
	bool has_ip4, has_gateway4, has_ip6, has_gateway6;
	uint8_t ip4[16], gateway4[16], ip6[16], gateway6[16]; /* IPv4 as ::ffff:a.b.c.d */
	uint32_t prefix4; /* of IPv6 it is always 64 */
};

/* ST_INVALID: the trail names the key and what would be right. */
enum status snap_dpdk(const struct snapshot *s, uint32_t worker, struct snap_dpdk *ret);
/* Whether this listener is one of a worker with these settings: its own address, or all addresses of a family that it has. */
bool snap_dpdk_has(const struct snap_dpdk *d, const uint8_t ip[16]);
/* ST_INVALID: a listener names an address that is not the worker's, or none is left. */
enum status snap_dpdk_listens(const struct snapshot *s, const struct snap_dpdk *d);

#endif
