/* Whatever a remote's reply says: its text is printable and bounded, it is one line in logs and reports (P11), and as we pass it on it is a reply of SMTP, of the same code, which is read as the same.
 *
 * Input: two bytes of code, one of stage, then the lines, each ended by a line feed. */
#include <stdlib.h>
#include "spool/base/status.h"
#include "spool/mail/reply.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void check_line(const struct reply *r)
{
	char text[REPLY_TEXT_MAX + 32];
	struct out o = out_of(text, sizeof(text));

	reply_line(r, &o);
	CHECK(!o.over);
	for (size_t i = 0; i < o.n; i++)
		CHECK(text[i] >= ' ' && text[i] < 0x7f);
}

/* Reads what was written. Gives whether a line was as long as lines may be: it may have been cut. */
static bool read_back(struct span text, const struct reply *r, struct reply *back)
{
	bool first = true, cut = false;

	*back = (struct reply){ .code = r->code };
	while (text.n) {
		struct span line = span_cut(&text, '\n');

		CHECK(line.n >= 5 && line.n <= 511 && line.p[line.n - 1] == '\r' && line.p[3] == (text.n ? '-' : ' '));
		CHECK((line.p[0] - '0') * 100 + (line.p[1] - '0') * 10 + line.p[2] - '0' == r->code);
		for (size_t i = 0; i < line.n - 1; i++)
			CHECK(line.p[i] >= ' ' && line.p[i] < 0x7f);
		cut = cut || line.n >= 490;
		reply_add_line(back, span_of(line.p + 4, line.n - 5), first);
		first = false;
	}
	return cut;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	static char text[16 * REPLY_TEXT_MAX + 32];
	struct out o = out_of(text, sizeof(text));
	struct reply r, back;
	struct span in;
	char status[12];
	bool first = true;
	uint8_t said[3];

	if (n < 3)
		return 0;
	r = (struct reply){ .code = (uint16_t)(200 + (data[0] << 8 | data[1]) % 400) };
	in = span_of(data + 3, n - 3);
	do {
		reply_add_line(&r, span_cut(&in, '\n'), first);
		first = false;
	} while (in.p);
	reply_said(&r, said);
	CHECK(said[0] == 0 || said[0] == r.code / 100);
	CHECK(r.text_len <= REPLY_TEXT_MAX);
	for (uint16_t i = 0; i < r.text_len; i++)
		CHECK(r.text[i] == '\n' || (r.text[i] >= ' ' && r.text[i] < 0x7f));
	check_line(&r);
	reply_write(&r, &o);
	CHECK(!o.over);
	if (!read_back(out_span(&o), &r, &back))
		CHECK(memcmp(back.enhanced, r.enhanced, 3) == 0 && span_eq(reply_text(&back), reply_text(&r)));
	reply_derive(&r, data[2] % 4);
	CHECK(r.enhanced[0] == 2 || r.enhanced[0] == 4 || r.enhanced[0] == 5);
	CHECK(strlen(reply_status(&r, status)) >= 5);
	check_line(&r);
	return 0;
}
