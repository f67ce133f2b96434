/* What this worker remembers of addresses and domains (B2): in front of Redis, and in its place while it is away.
 *
 * Bounded by number: the least recently used goes. An entry is as good as a look at Redis for KNOWN_CACHE_FRESH_NS; after that Redis is asked again, because another node may have learnt more.
 *
 * Owner: the worker. Thread: one. */
#ifndef WEIR_DATAPLANE_LOOKUP_KNOWN_CACHE_H
#define WEIR_DATAPLANE_LOOKUP_KNOWN_CACHE_H

#include "spool/base/clock.h"
#include "spool/mail/known.h"

#define KNOWN_CACHE_FRESH_NS (60 * NS_PER_S)

struct known_cache;

enum status known_cache_new(uint32_t max, struct known_cache **ret);
void known_cache_free(struct known_cache *c);
/* key: "local@domain", or the domain. *ret is KNOWN_NOTHING when there is none; *ret_read_ns: monotonic, when it was learnt or read from Redis; 0: never. */
void known_cache_get(struct known_cache *c, struct span key, struct known *ret, uint64_t *ret_read_ns);
/* Without memory it is not remembered. KNOWN_NOTHING is worth remembering, too. */
void known_cache_put(struct known_cache *c, struct span key, const struct known *k, uint64_t now_ns);
void known_cache_forget(struct known_cache *c, struct span key);
/* The domain and every address of it. */
void known_cache_forget_domain(struct known_cache *c, struct span domain);
size_t known_cache_len(const struct known_cache *c);

#endif
