/* XXH3 as fast as the processor can: on x86 the library chooses among SSE2, AVX2 and AVX-512 when it is first called. The values are the same.
 *
 * Not for keys chosen by strangers without a seed (map.h). */
#ifndef WEIR_SPOOL_BASE_HASH_H
#define WEIR_SPOOL_BASE_HASH_H

#include <xxhash.h>
#ifdef __x86_64__
#include <xxh_x86dispatch.h>
#endif

#endif
