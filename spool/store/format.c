/* What is on the disk, checked before anybody believes it: shared by recovery, the tools and the fuzzer. */
#include <stdlib.h>
#include "spool/base/hash.h"
#include "spool/store/internal.h"

enum { V1_CHECKSUM_AT = offsetof(struct seg_header, stream) };

void seg_header_make(struct seg_header *h)
{
	h->magic = SEGMENT_MAGIC;
	h->version = FORMAT_VERSION;
	h->checksum = XXH3_64bits(h, offsetof(struct seg_header, checksum));
}

static bool all_zero(const char *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (p[i])
			return false;
	return true;
}

enum header_kind seg_header_read(const void *block, struct seg_header *ret)
{
	uint64_t sum;

	memcpy(ret, block, sizeof(*ret));
	if (ret->magic != SEGMENT_MAGIC)
		return all_zero(block, BLOCK) ? HEADER_NONE : HEADER_DAMAGED;
	if (ret->version > FORMAT_VERSION || ret->version < FORMAT_OLDEST || ret->incompatible)
		return HEADER_UNKNOWN;
	if (ret->version > 1)
		return ret->checksum == XXH3_64bits(ret, offsetof(struct seg_header, checksum)) && ret->stream < NSTREAMS ? HEADER_OK :
			HEADER_DAMAGED;
	memcpy(&sum, (const char *)block + V1_CHECKSUM_AT, sizeof(sum));
	ret->stream = STREAM_HOT;
	ret->checkpoint = 0;
	return sum == XXH3_64bits(block, V1_CHECKSUM_AT) ? HEADER_OK : HEADER_DAMAGED;
}

static bool records_sound(const char *p, size_t n, uint32_t records)
{
	for (; records; records--) {
		const struct record_header *h = (const struct record_header *)(const void *)p;

		if (n < sizeof(*h) || h->bytes < sizeof(*h) || h->bytes % 8 || h->bytes > n)
			return false;
		p += h->bytes;
		n -= h->bytes;
	}
	return n == 0;
}

uint32_t batch_valid(const char *buf, size_t n, uint64_t generation, struct batch_header *ret)
{
	struct batch_header h;
	const char *p = buf + sizeof(h);
	XXH3_state_t *x;
	uint64_t sum;

	if (n < BLOCK)
		return 0;
	memcpy(&h, buf, sizeof(h));
	if (h.magic != BATCH_MAGIC || h.generation != generation || h.bytes % BLOCK || h.bytes > n || h.record_bytes > h.bytes ||
		h.raw_bytes > h.bytes || pad_block((uint64_t)h.record_bytes + sizeof(h)) + (uint64_t)h.raw_bytes != h.bytes)
		return 0;
	x = XXH3_createState();
	if (!x)
		return 0;
	*ret = h;
	h.checksum = 0;
	XXH3_64bits_reset_withSeed(x, generation);
	XXH3_64bits_update(x, &h, sizeof(h));
	XXH3_64bits_update(x, p, h.record_bytes);
	sum = XXH3_64bits_digest(x);
	XXH3_freeState(x);
	return sum == ret->checksum && records_sound(p, h.record_bytes, h.records) ? h.bytes : 0;
}

enum status batch_records(const char *buf, const struct batch_header *b, record_fn *fn, void *ctx)
{
	const char *p = buf + sizeof(*b);
	enum status st = ST_OK;

	for (uint32_t i = 0; i < b->records && st == ST_OK; i++) {
		const struct record_header *r = (const struct record_header *)(const void *)p;

		st = fn(ctx, b, r, (size_t)(p - buf));
		p += r->bytes;
	}
	return st;
}
