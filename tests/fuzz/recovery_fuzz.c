/* The batch parser on arbitrary blocks: never reads outside, and lets only whole records of batches with a right checksum through. */
#include <stdlib.h>
#include <xxhash.h>
#include "spool/store/internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static enum status on_record(void *ctx, const struct batch_header *b, const struct record_header *r, size_t rel)
{
	size_t *sum = ctx;
	struct record_facts f;

	CHECK(r->bytes >= sizeof(*r) && r->bytes % 8 == 0);
	*sum += r->bytes;
	CHECK(*sum <= b->record_bytes && rel + r->bytes == sizeof(*b) + *sum);
	if (r->type == REC_MESSAGE && record_facts((const struct message_record *)(const void *)r, r->bytes, &f))
		CHECK(f.head <= r->bytes && f.open <= f.nrcpt);
	return ST_OK;
}

/* The input is a header and records in the rough; the checksum is made right for half of them, so that what is behind it is reached. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	size_t size = pad_block(n < BLOCK ? BLOCK : n), sum = 0;
	char *buf = aligned_alloc(BLOCK, size);
	struct batch_header h, got;
	uint32_t len;

	if (!buf || n < sizeof(h) + 1)
		goto out;
	memset(buf, 0, size);
	memcpy(buf, data, n);
	memcpy(&h, buf, sizeof(h));
	if (data[n - 1] & 1 && h.record_bytes <= size - sizeof(h)) {
		h.magic = BATCH_MAGIC;
		h.generation = 1;
		h.checksum = 0;
		memcpy(buf, &h, sizeof(h));
		h.checksum = XXH3_64bits_withSeed(buf, sizeof(h) + h.record_bytes, 1);
		memcpy(buf, &h, sizeof(h));
	}
	len = batch_valid(buf, size, 1, &got);
	CHECK(len <= size && len % BLOCK == 0);
	if (len)
		CHECK(batch_records(buf, &got, on_record, &sum) == ST_OK && sum == got.record_bytes);
out:
	free(buf);
	return 0;
}
