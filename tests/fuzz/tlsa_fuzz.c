/* A TLSA record is usable only as RFC 7672 3.1 says, its data are all that follows the three numbers, and its text is that of the very same record. */
#include <stdio.h>
#include <stdlib.h>
#include "spool/base/status.h"
#include "spool/mail/tlsa.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

/* Reads the text that zone files have. */
static struct out read_text(const char *text)
{
	struct out o = out_of(malloc(strlen(text)), strlen(text));
	unsigned v[3], octet;
	int at = 0;

	CHECK(o.p && sscanf(text, "%u %u %u %n", &v[0], &v[1], &v[2], &at) == 3);
	for (unsigned i = 0; i < 3; i++)
		out_char(&o, (char)v[i]);
	for (text += at; *text; text += 2) {
		CHECK(sscanf(text, "%2x", &octet) == 1);
		out_char(&o, (char)octet);
	}
	return o;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct span rdata = span_of(data, n);
	char *text = malloc(2 * n + 64);
	struct out o = out_of(text, 2 * n + 63), back;
	struct tlsa t;
	bool usable = tlsa_parse(rdata, &t);

	CHECK(text);
	CHECK(usable == (n > 3 && (data[0] == TLSA_DANE_TA || data[0] == TLSA_DANE_EE) && data[1] <= 1 &&
		(data[2] == 0 || (data[2] == 1 && n == 35) || (data[2] == 2 && n == 67))));
	if (usable) {
		tlsa_write(&t, &o);
		CHECK(!o.over);
		text[o.n] = '\0';
		back = read_text(text);
		CHECK(span_eq(out_span(&back), rdata));
		free(back.p);
	}
	free(text);
	return 0;
}
