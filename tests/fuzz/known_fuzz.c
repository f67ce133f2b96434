/* A record of what is known of an address (B2), as whoever can write to Redis may make it: what is believed makes sense, and is written as what is read back the same. */
#include "spool/mail/known.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	static struct known k, again;
	char buf[KNOWN_MAX];
	struct out o = out_of(buf, sizeof(buf));

	if (known_parse(span_of(data, n), &k) != ST_OK) {
		CHECK(k.kind == KNOWN_NOTHING && !k.at_ms && !k.tried_ms && !k.reply.code);
		return 0;
	}
	CHECK(k.kind < KNOWN_NKIND && k.reply.text_len <= KNOWN_TEXT_MAX);
	CHECK(k.kind != KNOWN_NO || reply_is_permanent(&k.reply));
	for (uint16_t i = 0; i < k.reply.text_len; i++)
		CHECK(k.reply.text[i] == '\n' || (k.reply.text[i] >= ' ' && k.reply.text[i] <= '~'));
	known_write(&k, &o);
	CHECK(!o.over);
	CHECK(known_parse(out_span(&o), &again) == ST_OK);
	CHECK(again.kind == k.kind && again.at_ms == k.at_ms && again.tried_ms == k.tried_ms && again.reply.code == k.reply.code);
	CHECK(memcmp(again.reply.enhanced, k.reply.enhanced, 3) == 0 && span_eq(reply_text(&again.reply), reply_text(&k.reply)));
	return 0;
}
