/* Workers that have queues of one device, and one address: frames that came to one of them and are another's.
 *
 * The device deals flows out, as it likes. What a client opens belongs to the worker that got its SYN, for the device keeps a flow where it was. What a worker opens itself has a
 * local port that is its own (share_owner), and its segments are handed to it whoever gets them. What neighbours say of themselves (ARP, NDP) and routers of paths
 * goes to all. Between each two workers is a ring of copied frames in a file that both map; a full ring loses frames, which TCP repairs.
 *
 * Owner: one in a process. Thread: one a worker. */
#ifndef WEIR_DATAPLANE_NET_NET_DPDK_SHARE_H
#define WEIR_DATAPLANE_NET_NET_DPDK_SHARE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "spool/base/status.h"

enum { SHARE_FRAMES = 256 };

struct share;

/* Joins the workers of a node: dir/frames is made by the first one, or when it is of another shape. mtu: what the largest frame carries. What waits for
 * this worker from before is dropped. */
enum status share_open(const char *dir, uint32_t worker, uint32_t workers, uint32_t mtu, struct share **ret);
/* One worker at a time opens its queue: the first one brings the XDP program that all need. Gives what share_unlock takes. */
int share_lock(const char *dir);
void share_unlock(int lock);
void share_close(struct share *s);
/* All of these take NULL for a worker that shares nothing: then it owns everything. */
uint32_t share_owner(const struct share *s, uint16_t local_port);
bool share_is_own(const struct share *s, uint16_t local_port);
void share_give(struct share *s, uint32_t worker, const void *frame, size_t n);
void share_give_all(struct share *s, const void *frame, size_t n);
/* The next frame that somebody gave, valid until the next call; NULL: there is none. */
const uint8_t *share_next(struct share *s, size_t *ret_n);
void share_stats(const struct share *s, uint64_t *ret_given, uint64_t *ret_lost);

#endif
