/* What strangers must not guess: initial sequence numbers, local ports, random numbers; and the checksum, which has no other home.
 *
 * All keyed by getrandom() at the start. Thread: one, like all of the stack. */
#ifndef WEIR_DATAPLANE_NET_NET_DPDK_SEED_H
#define WEIR_DATAPLANE_NET_NET_DPDK_SEED_H

#include <stddef.h>
#include <stdint.h>
#include "spool/base/status.h"

enum status seed_init(void);
/* SipHash-2-4 (Aumasson, Bernstein 2012) of n octets under a 128-bit key. */
uint64_t siphash(const uint64_t key[2], const void *data, size_t n);
/* The same under a key of this process's own. */
uint64_t seed_hash(const void *data, size_t n);
uint32_t stack_random(void);
/* The Internet checksum without its last complement (RFC 1071), as the sum lies in memory. */
uint16_t stack_checksum(const void *data, int len);

#endif
