/* What lwIP asks of the compiler and the system. Included by lwIP, see dataplane/net/lwip/lwipopts.h. */
#ifndef WEIR_DATAPLANE_NET_LWIP_ARCH_CC_H
#define WEIR_DATAPLANE_NET_LWIP_ARCH_CC_H

#include <stdint.h>
#include <stdlib.h>
#include "spool/base/status.h"

#define LWIP_PLATFORM_DIAG(x) do { } while (0)
/* An assertion of lwIP's that fails is a bug: like CHECK it ends the process, and recovery is the normal start. */
#define LWIP_PLATFORM_ASSERT(text) check_failed(text, __FILE__, __LINE__)

/* lwIP's own fall-back counts bytes in a loop; ours (net_dpdk_seed.c) adds words. */
uint16_t stack_checksum(const void *data, int len);
#define LWIP_CHKSUM stack_checksum

uint32_t stack_random(void);
#define LWIP_RAND() stack_random()

#endif
