/* The way back into the kernel: frames of the device that are not the worker's go to a tap interface, and what the kernel sends there goes out on the device. So one network card
 * carries the worker's addresses and the host's own.
 *
 * The interface stays when the worker ends, with the addresses that the administrator gave it; workers that share a device share it, by a queue each.
 *
 * Thread: one. Fails: a start says in the trail what the kernel refused; later a frame that it does not take is counted and lost, as on any wire. */
#ifndef WEIR_DATAPLANE_NET_NET_DPDK_KERNEL_H
#define WEIR_DATAPLANE_NET_NET_DPDK_KERNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "dataplane/net/net.h"

struct kernel_stats {
	uint64_t to, from, lost;
};

/* After port_open. With an empty cfg->kernel there is none, and the others do nothing. Needs NET_ADMIN, which may be given up afterwards. */
enum status kernel_open(const struct snap_dpdk *cfg, const uint8_t mac[6]);
void kernel_close(void);
bool kernel_is_open(void);
void kernel_give(const uint8_t *frame, size_t n);
/* Sends what the kernel has for the device; gives how many frames there were. Not every call looks: that is a system call. */
unsigned kernel_turn(uint64_t now_ns);
void kernel_stats(struct kernel_stats *ret);

#endif
