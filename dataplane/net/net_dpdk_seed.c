#include "dataplane/net/net_dpdk_seed.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/random.h>

enum { LANES_FROM = 128 };

static uint64_t hash_key[2], random_key[2], random_count;

enum status seed_init(void)
{
	uint64_t fresh[4];

	if (getrandom(fresh, sizeof(fresh), 0) != sizeof(fresh))
		return trail_errno(errno, "getrandom");
	memcpy(hash_key, fresh, sizeof(hash_key));
	memcpy(random_key, fresh + 2, sizeof(random_key));
	return ST_OK;
}

static inline __attribute__((always_inline)) uint64_t rotate(uint64_t v, unsigned n)
{
	return v << n | v >> (64 - n);
}

static inline __attribute__((always_inline)) void sip_round(uint64_t v[4])
{
	v[0] += v[1];
	v[1] = rotate(v[1], 13) ^ v[0];
	v[0] = rotate(v[0], 32);
	v[2] += v[3];
	v[3] = rotate(v[3], 16) ^ v[2];
	v[0] += v[3];
	v[3] = rotate(v[3], 21) ^ v[0];
	v[2] += v[1];
	v[1] = rotate(v[1], 17) ^ v[2];
	v[2] = rotate(v[2], 32);
}

static inline __attribute__((always_inline)) void sip_word(uint64_t v[4], uint64_t word)
{
	v[3] ^= word;
	sip_round(v);
	sip_round(v);
	v[0] ^= word;
}

uint64_t siphash(const uint64_t key[2], const void *data, size_t n)
{
	uint64_t v[4] = { key[0] ^ 0x736f6d6570736575ull, key[1] ^ 0x646f72616e646f6dull, key[0] ^ 0x6c7967656e657261ull,
		key[1] ^ 0x7465646279746573ull };
	const unsigned char *p = data;
	uint64_t word, last = (uint64_t)n << 56;
	size_t left = n;

	for (; left >= 8; left -= 8, p += 8) {
		memcpy(&word, p, 8);
		sip_word(v, word);
	}
	for (size_t i = 0; i < left; i++)
		last |= (uint64_t)p[i] << (8 * i);
	sip_word(v, last);
	v[2] ^= 0xff;
	for (int i = 0; i < 4; i++)
		sip_round(v);
	return v[0] ^ v[1] ^ v[2] ^ v[3];
}

uint64_t seed_hash(const void *data, size_t n)
{
	return siphash(hash_key, data, n);
}

uint32_t stack_random(void)
{
	random_count++;
	return (uint32_t)siphash(random_key, &random_count, sizeof(random_count));
}

/* ---- the checksum ---- */

typedef uint64_t lanes __attribute__((vector_size(32)));

/* As many octets of p as come in whole lanes; the sum is folded by the caller. */
#ifdef __x86_64__
__attribute__((target("avx2")))
#endif
static uint64_t sum_lanes(const unsigned char *p, size_t n)
{
	lanes sum = { 0 }, word;

	for (; n >= sizeof(word); n -= sizeof(word), p += sizeof(word)) {
		memcpy(&word, p, sizeof(word));
		sum += (word & UINT32_MAX) + (word >> 32);
	}
	return sum[0] + sum[1] + sum[2] + sum[3];
}

/* Processors without wide registers are quicker with words. */
static bool has_lanes(void)
{
#ifdef __x86_64__
	return __builtin_cpu_supports("avx2");
#else
	return false;
#endif
}

/* Octets at an odd address need no care: what counts is the place in the data, not in memory. */
uint16_t stack_checksum(const void *data, int len)
{
	const unsigned char *p = data;
	uint64_t sum = 0, word;
	uint32_t half;
	uint16_t pair = 0;

	if (len >= LANES_FROM && has_lanes()) {
		sum = sum_lanes(p, (size_t)len);
		p += (size_t)len / sizeof(lanes) * sizeof(lanes);
		len %= (int)sizeof(lanes);
	}
	for (; len >= 8; len -= 8, p += 8) {
		memcpy(&word, p, 8);
		sum += word & UINT32_MAX;
		sum += word >> 32;
	}
	if (len >= 4) {
		memcpy(&half, p, 4);
		sum += half;
		p += 4;
		len -= 4;
	}
	if (len >= 2) {
		memcpy(&pair, p, 2);
		sum += pair;
		p += 2;
		len -= 2;
	}
	if (len) {
		pair = 0;
		memcpy(&pair, p, 1);
		sum += pair;
	}
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)sum;
}
